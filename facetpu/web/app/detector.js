// MTCNN, as in facetpu/mtcnn/detector.py, with one difference: LiteRT.js cannot give a network another
// input size, so all levels of the pyramid are laid out on one page and P-Net reads it at once.

import {CELL, STRIDE, cellBox, regress, square, suppress} from './boxes.js';
import {cut, resizeArea} from './image.js';

const FACTOR = 0.709; // from one level of the pyramid to the next
const PROPOSED = 0.6, REFINED = 0.7, ACCEPTED = 0.7; // least probability after P-, R- and O-Net
const MOST_PROPOSALS = 200; // of the best that R-Net looks at: a crowd has fewer, wallpaper more

export class Detector {
  /**
   * @param {{pnet, rnet, onet}} networks functions from a Float32Array to a promise of a Float32Array
   * @param {{minFace, page: {width, height}, slots: {x, y, side}[]}} layout where P-Net's levels lie
   */
  constructor(networks, layout) {
    Object.assign(this, networks, layout);
    this.longest = Math.floor((layout.slots[0].side * layout.minFace) / CELL); // side of the images it takes
  }

  /** The faces in an image no longer than `longest`, best first: {box, score, landmarks} in its pixels. */
  async detect(image) {
    const proposals = await this.#propose(image);
    const squares = (await this.#look(this.rnet, 24, image, proposals, REFINED));
    const refined = suppress(squares, 0.7).map(({box, output}) => square(regress(box, output.slice(1, 5))));
    const faces = (await this.#look(this.onet, 48, image, refined, ACCEPTED)).map(({box, score, output}) => ({
      box: regress(box, output.slice(1, 5)),
      score,
      landmarks: Array.from({length: 5}, (_, point) => [
        box[0] + output[5 + point] * (box[2] - box[0] + 1) - 1, // back to counting pixels from 0
        box[1] + output[10 + point] * (box[3] - box[1] + 1) - 1,
      ]),
    }));
    return suppress(faces, 0.7, true);
  }

  async #propose(image) {
    const levels = this.#levels(image);
    const page = new Float32Array(this.page.width * this.page.height * 3);
    for (const {slot, scale} of levels) {
      const level = resizeArea(image, Math.ceil(image.width * scale), Math.ceil(image.height * scale));
      for (let y = 0; y < level.height; y++) {
        const row = level.data.subarray(y * level.width * 3, (y + 1) * level.width * 3);
        page.set(row, ((slot.y + y) * this.page.width + slot.x) * 3);
      }
    }
    const cells = await this.pnet(page);
    const candidates = levels.flatMap((level) => suppress(this.#candidates(cells, level, image), 0.5));
    const kept = suppress(candidates, 0.7).slice(0, MOST_PROPOSALS);
    return kept.map(({box, offsets}) => square(regress(box, offsets, 0)));
  }

  #candidates(cells, {slot, scale}, image) {
    const count = (side) => Math.ceil((side - 2) / STRIDE) - 4; // cells along a side of a level
    const columns = count(Math.ceil(image.width * scale)), rows = count(Math.ceil(image.height * scale));
    const stride = count(this.page.width), found = [];
    for (let x = 0; x < columns; x++) {
      for (let y = 0; y < rows; y++) {
        const cell = ((slot.y / STRIDE + y) * stride + slot.x / STRIDE + x) * 5;
        const score = probability(cells[cell]);
        if (score >= PROPOSED) {
          found.push({box: cellBox(x, y, scale), score, offsets: cells.slice(cell + 1, cell + 5)});
        }
      }
    }
    return found;
  }

  /** The pyramid's scales, each with its slot on the page. */
  #levels({width, height}) {
    const finest = CELL / this.minFace, levels = [];
    for (let side = Math.min(width, height) * finest; side >= CELL; side *= FACTOR) {
      levels.push({slot: this.slots[levels.length], scale: finest * FACTOR ** levels.length});
    }
    return levels;
  }

  /** Those of the boxes that a network takes for a face: {box, score, output}. */
  async #look(network, side, image, boxes, threshold) {
    const likely = [];
    for (const box of boxes) {
      if (box[2] < box[0] || box[3] < box[1]) continue;
      const crop = cut(image, box);
      const exact = {...crop, data: Float32Array.from(crop.data)}; // rounded to bytes they would move boxes
      const output = await network(resizeArea(exact, side, side).data);
      const score = probability(output[0]);
      if (score > threshold) likely.push({box, score, output});
    }
    return likely;
  }
}

const probability = (logit) => 1 / (1 + Math.exp(-logit));
