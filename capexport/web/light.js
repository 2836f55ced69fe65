/** Attention as light over a photo; the light is that of heat.py, which says how it is meant. */

/** Where a word's attention is drawn: shares of an even share at each of width * height places, row after row. */
export function smooth(attention, [rows, columns], width, height) {
  const cells = rows * columns;
  const mean = (taps, value) => taps.reduce((sum, [cell, weight]) => sum + weight * value(cell), 0);
  const across = spline(width, columns), wide = Array.from({ length: rows }, (_, y) =>
    across.map(taps => mean(taps, x => cells * attention[y * columns + x])));
  return spline(height, rows).flatMap(taps => across.map((_, x) => mean(taps, y => wide[y][x])));
}

/** Quadratic B-spline weights: for each of `length` places [cell, weight] three times. */
function spline(length, cells) {
  return Array.from({ length }, (_, i) => {
    const place = (i + 0.5) * cells / length - 0.5, nearest = Math.floor(place + 0.5), offset = place - nearest;
    const weights = [(0.5 - offset) ** 2 / 2, 0.75 - offset ** 2, (0.5 + offset) ** 2 / 2];
    return weights.map((weight, k) => [Math.min(Math.max(nearest + k - 1, 0), cells - 1), weight]);
  });
}

/** The largest share of all fields that are shown together, at least `least`. */
export const rangeOf = (fields, least) => fields.flat().reduce((a, b) => Math.max(a, b), least);

/** The light, -1 to 1, of a share in a range of 1 / range to range. */
export const light = (share, range) => Math.log(Math.max(share, 1 / range)) / Math.log(range);

/** Where on a canvas of as many pixels a word's field is largest, as a sentence's end. */
export function looked(field, { width, height }) {
  const share = field.reduce((a, b) => Math.max(a, b)), peak = field.indexOf(share);
  const third = (names, part) => names[Math.floor(3 * part)];
  const place = third(["top ", "", "bottom "], Math.floor(peak / width) / height)
    + third(["left", "centre", "right"], peak % width / width);
  return share < 1.2 ? "looked nearly everywhere alike."
    : `looked most at the ${place}: ${share.toPrecision(2)} times an even share.`;
}

/** A function that paints lights, -1 to 1, on a canvas of as many pixels, by a palette as in heat.py. */
export function painter(palette) {
  const colours = Array.from({ length: 256 }, (_, i) => colour(palette, i / 127.5 - 1));
  return (canvas, lights) => {
    const pixels = new ImageData(canvas.width, canvas.height);
    lights.forEach((value, i) => pixels.data.set(colours[Math.round(127.5 * (value + 1))], 4 * i));
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  };
}

function colour(palette, value) { // red, green, blue, alpha: 0 to 255
  const next = palette.findIndex(stop => stop[0] >= value) || 1;
  const [low, high] = [palette[next - 1], palette[next]], part = (value - low[0]) / (high[0] - low[0]);
  const [, red, green, blue, cover] = low.map((from, i) => from + part * (high[i] - from));
  return [red, green, blue, 255 * cover];
}
