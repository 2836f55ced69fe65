/**
 * JPEG files to the last bit as Pillow decodes them: libjpeg-turbo's slow integer DCT, whole or to a half, a quarter or
 * an eighth of the sides, "fancy" upsampling and fixed-point colours (Independent JPEG Group). Browsers' decoders differ
 * by a level here and there, which is enough for another word, and Node has none.
 */

import { CaptionError } from "./errors.js";
import { readScans } from "./jpeg_scan.js";
import { inverse } from "./jpeg_dct.js";

/** Whether these are the first bytes of a JPEG file. */
export const isJpeg = bytes => bytes[0] === 0xFF && bytes[1] === 0xD8 && bytes[2] === 0xFF;

/**
 * The upright pixels of a JPEG file, {data, width, height} with data RGB, or null for a file that this does not decode:
 * arithmetic coding, 12 bits, CMYK, samples of odd ratios, or damage within.
 *
 * least   sides that must remain: a photo of twice, four or eight times as much is decoded to that fraction, as
 *         Pillow's draft mode does; Infinity: never
 * check   called with (width, height) before anything is decoded; it may throw
 *
 * Throws CaptionError for a file that is cut off.
 */
export function decodeJpeg(bytes, least = Infinity, check = () => {}) {
  const image = readScans(bytes, check, (frame, block, component, column, row) =>
    inverse(block, component, column, row), frame => plan(frame, least));
  if (image === null) return null;
  if (image.truncated) throw new CaptionError("The photo is cut off: its file has no end; copy it again.");
  const planes = image.components.map(component => upsampled(component, image));
  return turned({ data: coloured(planes, image), width: image.outWidth, height: image.outHeight }, image.orientation);
}

/** How large the frame and its components become, with the planes to decode them into; false if that is not done here. */
function plan(frame, least) {
  const { width, height, components } = frame;
  const ratio = Math.min(Math.floor(width / least), Math.floor(height / least));
  const scale = [8, 4, 2].find(s => ratio >= s) ?? 1, smallest = 8 / scale;
  const maxH = Math.max(...components.map(one => one.h)), maxV = Math.max(...components.map(one => one.v));
  Object.assign(frame, { smallest, maxH, maxV, outWidth: Math.ceil(width / scale), outHeight: Math.ceil(height / scale) });
  for (const one of components) {
    let size = smallest; // chroma of fewer samples is reduced by less
    while (size < 8 && maxH * smallest % (one.h * size * 2) === 0 && maxV * smallest % (one.v * size * 2) === 0) size *= 2;
    one.size = size;
    one.width = Math.ceil(width * one.h * size / (maxH * 8));
    one.height = Math.ceil(height * one.v * size / (maxV * 8));
    one.across = maxH * smallest / (one.h * size); // how often a sample stands
    one.down = maxV * smallest / (one.v * size);
    if (![1, 2].includes(one.across) || ![1, 2].includes(one.down)) return false;
    one.stride = one.blocksAcross * size;
    one.plane = new Uint8Array(one.stride * one.blocksDown * size);
  }
  return true;
}

/** A component's samples at the image's own resolution, row after row. */
function upsampled({ plane, stride, width, height, across, down }, { outWidth, outHeight, smallest }) {
  if (across === 1 && down === 1) return { plane, stride };
  const fancy = smallest > 1, smooth = fancy && (across === 1 || width > 2);
  const out = new Uint8Array(outWidth * outHeight), sums = new Int32Array(width);
  for (let y = 0; y < outHeight; y++) {
    const near = down === 2 ? y >> 1 : y, far = y & 1 ? Math.min(near + 1, height - 1) : Math.max(near - 1, 0);
    const from = near * stride, other = far * stride, to = y * outWidth;
    if (!smooth) {
      for (let x = 0; x < outWidth; x++) out[to + x] = plane[from + (across === 2 ? x >> 1 : x)];
    } else if (across === 1) {
      const bias = y & 1 ? 2 : 1;
      for (let x = 0; x < outWidth; x++) out[to + x] = 3 * plane[from + x] + plane[other + x] + bias >> 2;
    } else {
      const both = down === 2, shift = both ? 4 : 2, even = both ? 8 : 1, odd = both ? 7 : 2;
      for (let x = 0; x < width; x++) sums[x] = both ? 3 * plane[from + x] + plane[other + x] : plane[from + x];
      for (let x = 0; x < outWidth; x++) {
        const i = x >> 1, beside = x & 1 ? Math.min(i + 1, width - 1) : Math.max(i - 1, 0);
        out[to + x] = 3 * sums[i] + sums[beside] + (x & 1 ? odd : even) >> shift;
      }
    }
  }
  return { plane: out, stride: outWidth };
}

/** RGB of one plane (grey), or of three, which are luma and chroma unless the frame says that they are RGB. */
function coloured(planes, { outWidth, outHeight, rgb }) {
  const [first, second = first, third = first] = planes, grey = planes.length === 1;
  const data = new Uint8ClampedArray(outWidth * outHeight * 3);
  for (let y = 0, to = 0; y < outHeight; y++) {
    for (let x = 0; x < outWidth; x++, to += 3) {
      const a = first.plane[y * first.stride + x];
      if (grey || rgb) {
        data[to] = a;
        data[to + 1] = second.plane[y * second.stride + x];
        data[to + 2] = third.plane[y * third.stride + x];
      } else {
        const blue = second.plane[y * second.stride + x] - 128, red = third.plane[y * third.stride + x] - 128;
        data[to] = a + (91881 * red + 32768 >> 16);
        data[to + 1] = a + (-22554 * blue - 46802 * red + 32768 >> 16);
        data[to + 2] = a + (116130 * blue + 32768 >> 16);
      }
    }
  }
  return data;
}

/** The image as it is to be seen, by EXIF's orientation, 1 to 8. */
function turned(image, orientation) {
  const { data, width, height } = image;
  if (!(orientation > 1 && orientation < 9)) return image;
  const swapped = orientation > 4, [w, h] = swapped ? [height, width] : [width, height];
  const out = new Uint8ClampedArray(data.length);
  const mirrored = [2, 3, 7, 8].includes(orientation), upsideDown = [3, 4, 6, 7].includes(orientation);
  for (let y = 0, to = 0; y < h; y++) {
    for (let x = 0; x < w; x++, to += 3) {
      const column = swapped ? y : x, row = swapped ? x : y;
      const from = ((upsideDown ? height - 1 - row : row) * width + (mirrored ? width - 1 - column : column)) * 3;
      out[to] = data[from];
      out[to + 1] = data[from + 1];
      out[to + 2] = data[from + 2];
    }
  }
  return { data: out, width: w, height: h };
}
