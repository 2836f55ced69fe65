/** libjpeg's inverse DCTs of 8x8 coefficients to 8x8, 4x4, 2x2 samples or 1: jidctint.c's and jidctred.c's arithmetic. */

const BITS = 13, FIRST = 2; // of the constants' fraction, and of the first pass' results
const work = new Int32Array(64), { imul } = Math;

/** A block (Int16Array, 64, dequantised, row after row) into its place of a component's plane. */
export function inverse(block, { plane, stride, size }, column, row) {
  WAYS[size](block, plane, row * size * stride + column * size, stride);
}

const clamped = value => value < 0 ? 0 : value > 255 ? 255 : value;

/** Eight numbers, `step` apart, times the DCT: eight numbers, rounded by `shift` bits and moved by `add`. */
function eight(from, at, step, to, out, next, shift, add, limit) {
  const half = 1 << shift - 1;
  let z2 = from[at + 2 * step], z3 = from[at + 6 * step];
  let z1 = imul(z2 + z3, 4433);
  const even2 = z1 - imul(z3, 15137), even3 = z1 + imul(z2, 6270);
  const even0 = from[at] + from[at + 4 * step] << BITS, even1 = from[at] - from[at + 4 * step] << BITS;
  const a = even0 + even3, d = even0 - even3, b = even1 + even2, c = even1 - even2;
  let t0 = from[at + 7 * step], t1 = from[at + 5 * step], t2 = from[at + 3 * step], t3 = from[at + step];
  z1 = t0 + t3;
  z2 = t1 + t2;
  z3 = t0 + t2;
  let z4 = t1 + t3;
  const z5 = imul(z3 + z4, 9633);
  t0 = imul(t0, 2446);
  t1 = imul(t1, 16819);
  t2 = imul(t2, 25172);
  t3 = imul(t3, 12299);
  z1 = imul(z1, -7373);
  z2 = imul(z2, -20995);
  z3 = imul(z3, -16069) + z5;
  z4 = imul(z4, -3196) + z5;
  t0 += z1 + z3;
  t1 += z2 + z4;
  t2 += z2 + z3;
  t3 += z1 + z4;
  to[out] = limit((a + t3 + half >> shift) + add);
  to[out + 7 * next] = limit((a - t3 + half >> shift) + add);
  to[out + next] = limit((b + t2 + half >> shift) + add);
  to[out + 6 * next] = limit((b - t2 + half >> shift) + add);
  to[out + 2 * next] = limit((c + t1 + half >> shift) + add);
  to[out + 5 * next] = limit((c - t1 + half >> shift) + add);
  to[out + 3 * next] = limit((d + t0 + half >> shift) + add);
  to[out + 4 * next] = limit((d - t0 + half >> shift) + add);
}

/** Eight numbers to four. */
function four(from, at, step, to, out, next, shift, add, limit) {
  const half = 1 << shift - 1, first = from[at] << BITS + 1;
  const turn = imul(from[at + 2 * step], 15137) - imul(from[at + 6 * step], 6270);
  const z1 = from[at + 7 * step], z2 = from[at + 5 * step], z3 = from[at + 3 * step], z4 = from[at + step];
  const inner = imul(z1, -1730) + imul(z2, 11893) + imul(z3, -17799) + imul(z4, 8697);
  const outer = imul(z1, -4176) + imul(z2, -4926) + imul(z3, 7373) + imul(z4, 20995);
  to[out] = limit((first + turn + outer + half >> shift) + add);
  to[out + 3 * next] = limit((first + turn - outer + half >> shift) + add);
  to[out + next] = limit((first - turn + inner + half >> shift) + add);
  to[out + 2 * next] = limit((first - turn - inner + half >> shift) + add);
}

/** Eight numbers to two. */
function two(from, at, step, to, out, next, shift, add, limit) {
  const half = 1 << shift - 1, first = from[at] << BITS + 2;
  const odd = imul(from[at + 7 * step], -5906) + imul(from[at + 5 * step], 6967)
    + imul(from[at + 3 * step], -10426) + imul(from[at + step], 29692);
  to[out] = limit((first + odd + half >> shift) + add);
  to[out + next] = limit((first - odd + half >> shift) + add);
}

const whole = value => value;

/** Columns first, then rows, with as many bits more to round as halving the sides twice or once adds. */
const passes = (pass, count, halvings) => (block, plane, at, stride) => {
  for (let x = 0; x < 8; x++) pass(block, x, 8, work, x, 8, BITS - FIRST + halvings, 0, whole);
  for (let y = 0; y < count; y++) {
    pass(work, 8 * y, 1, plane, at + y * stride, 1, BITS + FIRST + 3 + halvings, 128, clamped);
  }
};

const WAYS = {
  8: passes(eight, 8, 0),
  4: passes(four, 4, 1),
  2: passes(two, 2, 2),
  1: (block, plane, at) => { plane[at] = clamped((block[0] + 4 >> 3) + 128); },
};
