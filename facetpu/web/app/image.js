// Pixels: the same arithmetic as facetpu/image.py, so that a face gives the same embedding here as there.
//
// An image is {data, width, height}: RGB, three values a pixel, in a Uint8Array or a Float32Array.

// The five landmarks of an aligned 112 x 112 face, from InsightFace: eyes, nose, corners of the mouth.
const ARCFACE_SIZE = 112;
const ARCFACE_LANDMARKS = [
  [38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041],
];

/** The RGB image of a canvas's ImageData; what is transparent is taken as it is. */
export function fromImageData({data, width, height}) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return {data: rgb, width, height};
}

/** The ImageData of an RGB image of bytes. */
export function toImageData({data, width, height}) {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    rgba[to] = data[from];
    rgba[to + 1] = data[from + 1];
    rgba[to + 2] = data[from + 2];
  }
  return new ImageData(rgba, width, height);
}

/**
 * Each output pixel is the mean of the area that it covers, as OpenCV's INTER_AREA has it.
 * The output has the input's type; bytes are rounded.
 */
export function resizeArea({data, width, height}, newWidth, newHeight) {
  const weights = newWidth <= width && newHeight <= height ? shrinkingWeights : growingWeights;
  const across = weights(width, newWidth);
  const out = new data.constructor(newWidth * newHeight * 3);
  const round = data instanceof Uint8Array ? 0.5 : 0;
  const row = new Float32Array(width * 3);
  weights(height, newHeight).forEach(({start, shares}, y) => {
    row.fill(0);
    shares.forEach((share, line) => {
      const from = (start + line) * row.length;
      for (let i = 0; i < row.length; i++) row[i] += share * data[from + i];
    });
    across.forEach(({start: left, shares: columns}, x) => {
      let red = round, green = round, blue = round;
      columns.forEach((share, column) => {
        const from = (left + column) * 3;
        red += share * row[from];
        green += share * row[from + 1];
        blue += share * row[from + 2];
      });
      out.set([red, green, blue], (y * newWidth + x) * 3);
    });
  });
  return {data: out, width: newWidth, height: newHeight};
}

/** One axis of a shrinking resize: of each output pixel the first input pixel and the shares from there on. */
function shrinkingWeights(source, target) {
  const scale = source / target;
  return Array.from({length: target}, (_, out) => {
    const low = out * scale, high = Math.min(low + scale, source);
    const start = Math.floor(low), stop = Math.min(Math.ceil(high), source);
    const shares = [];
    for (let pixel = start; pixel < stop; pixel++) {
      shares.push((Math.min(high, pixel + 1) - Math.max(low, pixel)) / scale);
    }
    return {start, shares};
  });
}

/** INTER_AREA turns to this linear interpolation of its own on both axes once one of them grows. */
function growingWeights(source, target) {
  const growth = target / source;
  return Array.from({length: target}, (_, out) => {
    const start = Math.min(Math.floor(out * (1 / growth)), source - 1);
    const beyond = out + 1 - (start + 1) * growth;
    const share = beyond <= 0 || start === source - 1 ? 0 : beyond - Math.floor(beyond);
    return {start, shares: share ? [1 - share, share] : [1]};
  });
}

/** The pixels in a box of whole numbers that counts from 1 and includes its ends, black beyond the image. */
export function cut({data, width, height}, [x1, y1, x2, y2]) {
  const crop = {data: new data.constructor((x2 - x1 + 1) * (y2 - y1 + 1) * 3), width: x2 - x1 + 1, height: y2 - y1 + 1};
  const left = Math.max(x1, 1), right = Math.min(x2, width);
  if (left > right) return crop;
  for (let y = Math.max(y1, 1); y <= Math.min(y2, height); y++) {
    const row = data.subarray(((y - 1) * width + left - 1) * 3, ((y - 1) * width + right) * 3);
    crop.data.set(row, ((y - y1) * crop.width + left - x1) * 3);
  }
  return crop;
}

/** The similarity transform {a, b}, q = a p + b in complex numbers, that brings landmarks nearest to the reference. */
export function arcfaceTransform(landmarks, size) {
  const scale = size / ARCFACE_SIZE;
  const mean = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const target = ARCFACE_LANDMARKS.map(([x, y]) => [x * scale, y * scale]);
  const [px, py] = mean(landmarks), [qx, qy] = mean(target);
  let real = 0, imaginary = 0, length = 0;
  landmarks.forEach(([x, y], i) => {
    const dx = x - px, dy = y - py, [u, v] = target[i];
    real += dx * u + dy * v;
    imaginary += dx * v - dy * u;
    length += dx * dx + dy * dy;
  });
  real /= length;
  imaginary /= length;
  return {a: [real, imaginary], b: [qx - real * px + imaginary * py, qy - imaginary * px - real * py]};
}

/** The crop of a face by its landmarks: bytes, size x size, black beyond the image. */
export function alignFace(image, landmarks, size) {
  const {a: [real, imaginary], b: [shiftX, shiftY]} = arcfaceTransform(landmarks, size);
  const norm = real * real + imaginary * imaginary;
  const inverse = (x, y) => [
    (real * (x - shiftX) + imaginary * (y - shiftY)) / norm,
    (real * (y - shiftY) - imaginary * (x - shiftX)) / norm,
  ];
  // Bilinear weights span two pixels: what shrinks by more is averaged first.
  const step = Math.floor(1 / Math.sqrt(norm)) || 1;
  const corners = [inverse(0, 0), inverse(size, 0), inverse(0, size), inverse(size, size)];
  const low = [0, 1].map((axis) => Math.floor(Math.min(...corners.map((corner) => corner[axis]))) - 2 * step);
  const high = [0, 1].map((axis) => Math.ceil(Math.max(...corners.map((corner) => corner[axis]))) + 2 * step);
  const window = cut(image, [low[0] + 1, low[1] + 1, high[0], high[1]]);
  const source = meanOfSquares(window, step);
  const crop = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      let [sx, sy] = inverse(x, y);
      sx = (sx + 0.5 - low[0]) / step - 0.5; // Pixel i covers i to i + 1 while the squares are counted.
      sy = (sy + 0.5 - low[1]) / step - 0.5;
      const left = Math.floor(sx), top = Math.floor(sy), right = sx - left, lower = sy - top;
      const corner = (top * source.width + left) * 3, below = corner + source.width * 3;
      for (let channel = 0; channel < 3; channel++) {
        const up = mix(source.data[corner + channel], source.data[corner + 3 + channel], right);
        const down = mix(source.data[below + channel], source.data[below + 3 + channel], right);
        crop[(y * size + x) * 3 + channel] = mix(up, down, lower) + 0.5;
      }
    }
  }
  return {data: crop, width: size, height: size};
}

/** The crop of a face by its box with a margin, clipped to the image, as the reference aligner cuts it. */
export function marginFace(image, [x1, y1, x2, y2], margin, size) {
  const left = Math.min(Math.trunc(Math.max(x1 - margin / 2, 0)), image.width - 1);
  const top = Math.min(Math.trunc(Math.max(y1 - margin / 2, 0)), image.height - 1);
  const right = Math.max(Math.trunc(Math.min(x2 + margin / 2, image.width)), left + 1);
  const bottom = Math.max(Math.trunc(Math.min(y2 + margin / 2, image.height)), top + 1);
  return resizeArea(cut(image, [left + 1, top + 1, right, bottom]), size, size);
}

/** Means of squares of step x step pixels; what is left over right and below goes. */
function meanOfSquares({data, width, height}, step) {
  if (step === 1) return {data: Float32Array.from(data), width, height};
  const columns = Math.floor(width / step), rows = Math.floor(height / step);
  const means = new Float32Array(columns * rows * 3);
  for (let y = 0; y < rows * step; y++) {
    for (let x = 0; x < columns * step; x++) {
      const to = (Math.floor(y / step) * columns + Math.floor(x / step)) * 3, from = (y * width + x) * 3;
      for (let channel = 0; channel < 3; channel++) means[to + channel] += data[from + channel] / (step * step);
    }
  }
  return {data: means, width: columns, height: rows};
}

const mix = (first, second, share) => first + (second - first) * share;
