// Arithmetic on boxes as in facetpu/mtcnn/boxes.py: they count pixels from 1 and include both ends.

export const STRIDE = 2, CELL = 12; // pixels between two cells of P-Net, and pixels that a cell sees

/** What P-Net's cell in column x and row y sees at a scale, in pixels of the image. */
export function cellBox(x, y, scale) {
  return [STRIDE * x + 1, STRIDE * y + 1, STRIDE * x + CELL, STRIDE * y + CELL].map((side) => Math.trunc(side / scale));
}

/** Move each side by its offset, a share of the box's width or height. */
export function regress([x1, y1, x2, y2], offsets, inclusive = 1) {
  const width = x2 - x1 + inclusive, height = y2 - y1 + inclusive;
  return [x1 + offsets[0] * width, y1 + offsets[1] * height, x2 + offsets[2] * width, y2 + offsets[3] * height];
}

/** The square around the same centre with the longer side, in whole pixels. */
export function square([x1, y1, x2, y2]) {
  const side = Math.max(x2 - x1, y2 - y1);
  const left = x1 + (x2 - x1) / 2 - side / 2, top = y1 + (y2 - y1) / 2 - side / 2;
  return [left, top, left + side, top + side].map(Math.trunc);
}

/** How much two boxes overlap, by their union or by the smaller one. */
export function overlap(one, other, ofSmaller = false) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]) + 1;
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]) + 1;
  if (width <= 0 || height <= 0) return 0;
  const common = width * height;
  const area = (box) => (box[2] - box[0] + 1) * (box[3] - box[1] + 1);
  return common / (ofSmaller ? Math.min(area(one), area(other)) : area(one) + area(other) - common);
}

/** Non-maximum suppression: of candidates {box, score} those to keep, best first; of equal scores the later. */
export function suppress(candidates, threshold, ofSmaller = false) {
  const ranked = candidates.map((candidate, index) => ({candidate, index}));
  ranked.sort((one, other) => other.candidate.score - one.candidate.score || other.index - one.index);
  const kept = [];
  for (const {candidate} of ranked) {
    if (kept.every((better) => overlap(better.box, candidate.box, ofSmaller) <= threshold)) kept.push(candidate);
  }
  return kept;
}
