// From an image to the faces in it, each with its embedding.

import {Detector} from './detector.js';
import {alignFace, fromImageData, marginFace, resizeArea, toImageData} from './image.js';

export class Recogniser {
  /** Load the networks of a bundle; `model` is its model.json, `folder` the URL that it stands at. */
  static async open(litert, model, folder) {
    const network = async (file) => runner(litert, await litert.loadAndCompile(folder + file, {accelerator: 'wasm'}));
    const [pnet, rnet, onet, base] = await Promise.all(
      ['pnet.tflite', 'rnet.tflite', 'onet.tflite', 'base.tflite'].map(network));
    const strangers = await fetch(`${folder}strangers.bin`);
    const values = new Float32Array(strangers.ok ? await strangers.arrayBuffer() : 0), {dim} = model.embedding;
    model.cohort = {
      people: model.strangers,
      embeddings: model.strangers.map((_, index) => values.subarray(index * dim, (index + 1) * dim)),
    };
    return new Recogniser(model, new Detector({pnet, rnet, onet}, model.detector), base);
  }

  constructor(model, detector, base) {
    Object.assign(this, {model, detector, base});
  }

  /**
   * The faces in an ImageData, best first.
   * Each has box, score and landmarks in its pixels, embedding (Float32Array of length 1) and crop (ImageData).
   */
  async look(imageData) {
    const began = performance.now();
    const image = fromImageData(imageData);
    const shrink = Math.max(image.width, image.height) / this.detector.longest;
    const small = shrink > 1
      ? resizeArea(image, Math.round(image.width / shrink), Math.round(image.height / shrink)) : image;
    const found = await this.detector.detect(small);
    const detected = performance.now();
    const scale = image.width / small.width, faces = [];
    for (const {box, score, landmarks} of found) {
      const face = {box: box.map((side) => side * scale), score, landmarks: landmarks.map((p) => p.map((c) => c * scale))};
      const crop = this.#crop(image, face);
      faces.push({...face, embedding: await this.#embed(crop), crop: toImageData(crop)});
    }
    return {faces, milliseconds: {detect: detected - began, embed: performance.now() - detected}};
  }

  #crop(image, {box, landmarks}) {
    const {template, size, margin} = this.model.alignment;
    return template === 'arcface' ? alignFace(image, landmarks, size) : marginFace(image, box, margin, size);
  }

  async #embed(crop) {
    const {scale, zero_point: zeroPoint} = this.model.embedding;
    const row = Float32Array.from(await this.base(crop.data), (value) => (value - zeroPoint) * scale);
    const length = Math.hypot(...row) || 1;
    return row.map((value) => value / length);
  }
}

/** A function from the values of a network's input to a promise of those of its output. */
function runner(litert, compiled) {
  const [input] = compiled.getInputDetails();
  const shape = Array.from(input.shape);
  return async (values) => {
    const tensor = new litert.Tensor(values, shape);
    const [output] = await compiled.run(tensor);
    const result = output.toTypedArray().slice();
    tensor.delete();
    output.delete();
    return result;
  };
}
