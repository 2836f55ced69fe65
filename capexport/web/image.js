/**
 * From a photo to the encoder's pixels, to the last bit as in Python: JPEG files decoded by jpeg.js, others by the browser
 * (PNG alike, others nearly so); transparency over white; then the captioner's size by image.py's resizers: Pillow's
 * integer arithmetic, or TensorFlow's in float32, before which the browser decodes JPEG files, too.
 */

import { CaptionError } from "./errors.js";
import { decodeJpeg, isJpeg } from "./jpeg.js";

const MIN_SIDE = 8;
const MAX_PIXELS = 178_956_970; // as in Python
const SMALL = 2 ** 24; // pixels that any file may have
const DENSEST = 100; // pixels a byte of a file that has more
const SPARE = 3; // how many times larger than the target a JPEG file stays until it is resized
const BITS = 22; // of a weight's fraction: 8 bits of colour, 22 of weight and a sign fill 32
const BAND = 2 ** 22; // pixels that are decoded at a time: phones have no room for a canvas of a large photo

/**
 * A photo's pixels, uint8 RGB: Uint8Array (height * width * 3).
 *
 * photo   a file: a Blob, or its bytes (Uint8Array), in Node of JPEG files alone; or {data, width, height} with RGB or
 *         RGBA data, such as ImageData; in a browser anything that a canvas draws, too, such as an image, a video's frame
 *         or a canvas
 * size    [height, width]
 * resize  one of RESIZERS
 *
 * Throws CaptionError for what is not a photo.
 */
export async function preprocess(photo, size, resize = "bilinear-antialias") {
  const isBlob = typeof Blob !== "undefined" && photo instanceof Blob;
  if (!isBlob && !(photo instanceof Uint8Array)) return resized(photo, size, resize);
  const jpeg = resize === "bilinear-antialias" ? await jpegOf(photo, isBlob, size) : null;
  if (jpeg) return resized(jpeg, size, resize);
  const bitmap = await decoded(isBlob ? photo : new Blob([photo]));
  try {
    return resized(bitmap, size, resize);
  } finally {
    bitmap.close();
  }
}

/** A JPEG file's pixels, or null for another file and for one that jpeg.js leaves to the browser. */
async function jpegOf(photo, isBlob, size) {
  if (!isJpeg(isBlob ? new Uint8Array(await photo.slice(0, 3).arrayBuffer()) : photo)) return null;
  const bytes = isBlob ? new Uint8Array(await photo.arrayBuffer()) : photo;
  return decodeJpeg(bytes, SPARE * Math.max(...size), (width, height) => {
    checkSize(width, height);
    if (width * height > Math.max(SMALL, DENSEST * bytes.length)) {
      throw new CaptionError(`The file is too large for a photo: ${width}x${height} pixels in ${bytes.length} bytes.`);
    }
  });
}

function resized(source, [height, width], resize) {
  const [columns, rows] = [source.videoWidth ?? source.naturalWidth ?? source.width,
    source.videoHeight ?? source.naturalHeight ?? source.height];
  checkSize(columns, rows);
  const bands = source.data ? [{ top: 0, rows, data: rgb(source) }] : canvasBands(source, columns, rows);
  return RESIZERS[resize](bands, [rows, columns], [height, width]);
}

function checkSize(width, height) {
  if (!(width > 0 && height > 0)) throw new CaptionError("The photo has no pixels.");
  if (width * height > MAX_PIXELS) {
    throw new CaptionError("The photo is too large: more than 178 million pixels; shrink it first.");
  }
  if (Math.min(width, height) < MIN_SIDE) {
    throw new CaptionError(`The photo is too small to caption: ${width}x${height} pixels, at least ${MIN_SIDE} a side.`);
  }
}

/** A file as a bitmap, upright, and without conversion to another colour space, as Pillow decodes it. */
export async function decoded(blob) {
  const kind = blob.type && !blob.type.startsWith("image/") ? `it is ${blob.type}` : "it is broken or of an unknown kind";
  if (typeof createImageBitmap === "undefined") {
    throw new CaptionError("Here is no browser to decode this file: give a JPEG file, or RGB or RGBA pixels.");
  }
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  try {
    return await createImageBitmap(blob, options);
  } catch (cause) {
    throw new CaptionError(`${blob.name ?? "This"} cannot be read as a photo: ${kind}.`, { cause });
  }
}

function* canvasBands(source, width, height) {
  const most = Math.min(height, Math.max(1, Math.floor(BAND / width)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height: most });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new CaptionError("The browser cannot draw a photo of this size; shrink it first.");
  for (let top = 0; top < height; top += most) {
    const rows = Math.min(most, height - top);
    context.clearRect(0, 0, width, most);
    context.drawImage(source, 0, top, width, rows, 0, 0, width, rows);
    yield { top, rows, data: rgb(context.getImageData(0, 0, width, rows)) };
  }
}

/** Each takes the bands of a photo's RGB rows, its [rows, columns] and the [height, width] that it becomes. */
export const RESIZERS = { "bilinear-antialias": bilinearAntialias, bilinear };

function bilinearAntialias(bands, [rows, columns], [height, width]) {
  const across = triangles(columns, width), down = triangles(rows, height);
  // Pillow's order, which decides where a level is rounded: usually across first, but down first if that saves more.
  if (rows > height && 2 * (columns - width) < rows - height) {
    const whole = joined(bands, rows * columns * 3, band => band.data, columns * 3);
    return resizeRows(resizeColumns(whole, columns, down), columns, height, across);
  }
  const narrow = band => resizeRows(band.data, columns, band.rows, across);
  return resizeColumns(joined(bands, rows * width * 3, narrow, width * 3), width, down);
}

/** The tutorial's: two neighbours each way, down first, nothing rounded to a whole level before the end. */
function bilinear(bands, [rows, columns], [height, width]) {
  const pixels = joined(bands, rows * columns * 3, band => band.data, columns * 3);
  const out = new Uint8Array(height * width * 3), { fround } = Math;
  const mixed = (first, second, weight) => fround(first + fround(fround(second - first) * weight));
  const across = neighbours(columns, width);
  let to = 0;
  for (const [top, bottom, lower] of neighbours(rows, height)) {
    const level = (column, channel) => {
      const at = column * 3 + channel, line = columns * 3;
      return mixed(pixels[top * line + at], pixels[bottom * line + at], lower);
    };
    for (const [left, right, weight] of across) {
      for (let channel = 0; channel < 3; channel++) {
        out[to++] = Math.trunc(fround(mixed(level(left, channel), level(right, channel), weight) + 0.5));
      }
    }
  }
  return out;
}

/** For each target position its two source positions and the weight of the second. */
function neighbours(source, target) {
  const { fround } = Math, scale = fround(source / target), inside = i => Math.min(Math.max(i, 0), source - 1);
  return Array.from({ length: target }, (_, i) => {
    const centre = fround(fround((i + 0.5) * scale) - 0.5), floor = Math.floor(centre);
    return [inside(floor), inside(Math.ceil(centre)), fround(centre - floor)];
  });
}

/** What `part` makes of each band, one after the other: `length` levels, `line` of them a row. */
function joined(bands, length, part, line) {
  const all = new Uint8Array(length);
  for (const band of bands) all.set(part(band), band.top * line);
  return all;
}

/** RGB of RGB, or of RGBA laid over white. */
export function rgb({ data, width, height }) {
  const count = width * height;
  if (data.length === 3 * count) return data;
  if (data.length !== 4 * count) throw new CaptionError("A photo's data must be RGB or RGBA, width * height times.");
  const pixels = new Uint8Array(3 * count);
  for (let i = 0, from = 0; i < pixels.length; from += 4) {
    const cover = data[from + 3];
    for (let channel = 0; channel < 3; channel++) pixels[i++] = overWhite(data[from + channel], cover);
  }
  return pixels;
}

/** A level laid over white, divided by 255 with shifts and so rounded as Pillow's alpha_composite does. */
function overWhite(level, cover) {
  const sum = (level * cover + 255 * (255 - cover)) * 128 + (128 << 7);
  return (sum >> 8) + sum >> 8 >> 7;
}

/** Each target position's source positions and their whole-number weights: a triangle as wide as the scale. */
function triangles(source, target) {
  const scale = source / target, reach = Math.max(scale, 1), faded = 1 / reach;
  return Array.from({ length: target }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(source, Math.trunc(centre + reach + 0.5));
    const weights = Array.from({ length: end - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((k + first - centre + 0.5) * faded)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: Int32Array.from(weights, weight => Math.trunc(0.5 + weight / sum * 2 ** BITS)) };
  });
}

/** RGB rows of `width` pixels, narrowed: (rows, taps, 3). */
function resizeRows(pixels, width, rows, taps) {
  const out = new Uint8Array(rows * taps.length * 3);
  for (let row = 0, to = 0; row < rows; row++) {
    for (const { first, weights } of taps) {
      let red = 1 << BITS - 1, green = red, blue = red;
      for (let k = 0, from = (row * width + first) * 3; k < weights.length; k++, from += 3) {
        red += pixels[from] * weights[k];
        green += pixels[from + 1] * weights[k];
        blue += pixels[from + 2] * weights[k];
      }
      out[to++] = level(red);
      out[to++] = level(green);
      out[to++] = level(blue);
    }
  }
  return out;
}

/** RGB rows of `width` pixels, as many as there are taps: (taps, width, 3). */
function resizeColumns(pixels, width, taps) {
  const line = width * 3, out = new Uint8Array(taps.length * line);
  taps.forEach(({ first, weights }, row) => {
    for (let x = 0; x < line; x++) {
      let sum = 1 << BITS - 1;
      for (let k = 0; k < weights.length; k++) sum += pixels[(first + k) * line + x] * weights[k];
      out[row * line + x] = level(sum);
    }
  });
  return out;
}

const level = sum => Math.min(255, sum >> BITS);
