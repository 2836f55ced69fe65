/** A JPEG file's markers and its Huffman-coded coefficients, sequential or progressive (ITU T.81). */

import { CaptionError } from "./errors.js";

const ORDER = [
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55,
  62, 63,
]; // the places, row after row, of coefficients as they come
const DAMAGED = Symbol("damaged");
const MOST_SEGMENTS = 5000, MOST_SCANS = 100; // of files that Python reads: each scan may be of the whole picture
const LONG = 4; // EXIF's type of numbers of 32 bits

/**
 * The frame {width, height, components, orientation, rgb, truncated, ...}, after `place` was called with every block.
 *
 * check  called with (width, height)
 * place  called with (frame, block, component, column, row): block is Int16Array (64), dequantised
 * plan   called with the frame before any block; false ends it
 *
 * null for files that are not read here: arithmetic coding, other than 8 bits, other than 1 or 3 components, damage.
 * Throws CaptionError for more segments or scans than photos have.
 */
export function readScans(bytes, check, place, plan) {
  const file = { bytes, at: 2, quantization: [], dc: [], ac: [], interval: 0, frame: null, jfif: false, adobe: null };
  let segments = 0, scans = 0;
  try {
    while (file.at < bytes.length) {
      const marker = nextMarker(file);
      checkCount(++segments, MOST_SEGMENTS, "segments");
      if (marker === 0xD9) return file.frame && finished(file, place);
      if (marker === null) break;
      const length = bytes[file.at] << 8 | bytes[file.at + 1], segment = bytes.subarray(file.at + 2, file.at + length);
      if (length < 2) return null;
      if (segment.length < length - 2) break;
      file.at += length;
      if (marker === 0xC0 || marker === 0xC1 || marker === 0xC2) {
        if (file.frame || !startFrame(file, segment, marker === 0xC2, check, plan)) return null;
      } else if (marker > 0xC2 && marker < 0xD0 && marker !== 0xC4 && marker !== 0xC8 && marker !== 0xCC) {
        return null;
      } else if (READERS[marker]) {
        READERS[marker](file, segment);
      } else if (marker === 0xDA) {
        if (!file.frame) return null;
        checkCount(++scans, MOST_SCANS, "scans");
        readScan(file, segment, place);
      }
    }
  } catch (error) {
    if (error === DAMAGED || error instanceof RangeError) return null;
    throw error;
  }
  return file.frame && { ...file.frame, truncated: true };
}

function checkCount(count, most, what) {
  if (count > most) throw new CaptionError(`The photo cannot be read: it has more than ${most} ${what}.`);
}

const READERS = {
  0xDB: readQuantization,
  0xC4: readHuffman,
  0xDD: (file, segment) => { file.interval = segment[0] << 8 | segment[1]; },
  0xE0: (file, segment) => { file.jfif ||= ascii(segment, 0, 4) === "JFIF"; },
  0xE1: (file, segment) => { file.orientation ??= orientationOf(segment); },
  0xEE: (file, segment) => { if (ascii(segment, 0, 5) === "Adobe") file.adobe = segment[11]; },
};

const ascii = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));

function nextMarker(file) {
  const { bytes } = file;
  while (file.at < bytes.length && bytes[file.at] !== 0xFF) file.at++;
  while (file.at < bytes.length && bytes[file.at] === 0xFF) file.at++;
  return file.at < bytes.length ? bytes[file.at++] : null;
}

/** EXIF's orientation, or undefined. */
function orientationOf(segment) {
  if (ascii(segment, 0, 4) !== "Exif" || segment.length < 20) return undefined;
  const view = new DataView(segment.buffer, segment.byteOffset + 6, segment.length - 6);
  const little = view.getUint16(0) === 0x4949, from = view.getUint32(4, little);
  if (from + 2 > view.byteLength) return undefined;
  for (let i = 0, at = from + 2; i < view.getUint16(from, little) && at + 12 <= view.byteLength; i++, at += 12) {
    if (view.getUint16(at, little) !== 0x0112) continue;
    return view.getUint16(at + 2, little) === LONG ? view.getUint32(at + 8, little) : view.getUint16(at + 8, little);
  }
  return undefined;
}

function readQuantization(file, segment) {
  for (let at = 0; at < segment.length;) {
    const wide = segment[at] >> 4, table = file.quantization[segment[at++] & 15] = new Uint16Array(64);
    for (let i = 0; i < 64; i++, at += wide ? 2 : 1) table[ORDER[i]] = wide ? segment[at] << 8 | segment[at + 1] : segment[at];
  }
}

function readHuffman(file, segment) {
  for (let at = 0; at < segment.length;) {
    const head = segment[at], counts = segment.subarray(at + 1, at + 17), total = counts.reduce((a, b) => a + b, 0);
    (head >> 4 ? file.ac : file.dc)[head & 15] = huffman(counts, segment.subarray(at + 17, at + 17 + total));
    at += 17 + total;
  }
}

/** What 16 bits begin with: code length << 8 | symbol, 0 where nothing is coded so. */
function huffman(counts, symbols) {
  const table = new Uint16Array(1 << 16);
  let code = 0, k = 0;
  for (let length = 1; length <= 16; length++, code <<= 1) {
    for (let i = 0; i < counts[length - 1]; i++, code++, k++) {
      const from = code << 16 - length;
      if (from >= 1 << 16) throw DAMAGED;
      table.fill(length << 8 | symbols[k], from, from + (1 << 16 - length));
    }
  }
  return table;
}

function startFrame(file, segment, progressive, check, plan) {
  const height = segment[1] << 8 | segment[2], width = segment[3] << 8 | segment[4], count = segment[5];
  if (segment[0] !== 8 || !height || ![1, 3].includes(count)) return false;
  check(width, height);
  const components = Array.from({ length: count }, (_, i) => {
    const [id, factors, table] = segment.subarray(6 + 3 * i, 9 + 3 * i);
    return { id, h: factors >> 4, v: factors & 15, table };
  });
  if (components.some(({ h, v }) => !(h > 0 && h < 5 && v > 0 && v < 5))) return false;
  if (count === 1) Object.assign(components[0], { h: 1, v: 1 });
  const maxH = Math.max(...components.map(one => one.h)), maxV = Math.max(...components.map(one => one.v));
  const across = Math.ceil(width / (8 * maxH)), down = Math.ceil(height / (8 * maxV)); // MCUs
  for (const one of components) {
    Object.assign(one, { blocksAcross: across * one.h, blocksDown: down * one.v });
    one.ownAcross = Math.ceil(Math.ceil(width * one.h / maxH) / 8); // those that a scan of it alone has
    one.ownDown = Math.ceil(Math.ceil(height * one.v / maxV) / 8);
    if (progressive) one.coefficients = new Int16Array(64 * one.blocksAcross * one.blocksDown);
  }
  file.frame = { width, height, components, progressive, across, down };
  return plan(file.frame);
}

/** The frame as it is when all scans are read. */
function finished({ frame, jfif, adobe, orientation }, place) {
  if (frame.progressive) {
    for (const one of frame.components) {
      const table = one.quantization;
      if (!table) throw DAMAGED; // a component that no scan has
      for (let row = 0, at = 0; row < one.blocksDown; row++) {
        for (let column = 0; column < one.blocksAcross; column++, at += 64) {
          const block = one.coefficients.subarray(at, at + 64);
          for (let i = 0; i < 64; i++) block[i] *= table[i];
          place(frame, block, one, column, row);
        }
      }
    }
  }
  const ids = frame.components.map(one => one.id).join();
  frame.rgb = frame.components.length === 3 && !jfif && (adobe === null ? ids === "82,71,66" : adobe === 0);
  return { ...frame, orientation, truncated: false };
}

function readScan(file, segment, place) {
  const { frame, interval } = file, count = segment[0];
  const components = Array.from({ length: count }, (_, i) => {
    const one = frame.components.find(({ id }) => id === segment[1 + 2 * i]);
    if (!one) throw DAMAGED;
    one.quantization ??= file.quantization[one.table];
    if (!one.quantization) throw DAMAGED;
    one.dcTable = file.dc[segment[2 + 2 * i] >> 4];
    one.acTable = file.ac[segment[2 + 2 * i] & 15];
    one.before = 0; // the DC coefficient before this one
    return one;
  });
  const [first, last, bits] = segment.subarray(1 + 2 * count, 4 + 2 * count);
  const reader = new Bits(file), spectral = { first, last, high: bits >> 4, low: bits & 15, skip: 0 };
  const decode = frame.progressive ? (first ? (bits >> 4 ? refineAc : firstAc) : (bits >> 4 ? refineDc : firstDc)) : sequential;
  const spare = new Int16Array(64);
  const one = (component, column, row) => {
    const at = 64 * (row * component.blocksAcross + column);
    const block = frame.progressive ? component.coefficients.subarray(at, at + 64) : spare.fill(0);
    decode(reader, component, block, spectral);
    if (!frame.progressive) place(frame, block, component, column, row);
  };
  const alone = count === 1 ? components[0] : null;
  const across = alone ? alone.ownAcross : frame.across, total = across * (alone ? alone.ownDown : frame.down);
  for (let unit = 0; unit < total; unit++) {
    if (interval && unit && unit % interval === 0) {
      reader.restart();
      spectral.skip = 0;
      for (const component of components) component.before = 0;
    }
    const column = unit % across, row = Math.floor(unit / across);
    if (alone) one(alone, column, row);
    else for (const component of components) {
      for (let v = 0; v < component.v; v++) {
        for (let h = 0; h < component.h; h++) one(component, column * component.h + h, row * component.v + v);
      }
    }
  }
  reader.finish();
}

/** The bits of a scan; after its end come zeros. */
class Bits {
  constructor(file) {
    Object.assign(this, { file, bytes: file.bytes, at: file.at, buffer: 0, count: 0 });
  }

  /** See to it that 16 bits are there. */
  fill() {
    while (this.count < 16) {
      let byte = this.bytes[this.at] ?? 0;
      if (byte === 0xFF) {
        if (this.bytes[this.at + 1] === 0) this.at += 2;
        else byte = 0; // a marker: it stays
      } else if (this.at < this.bytes.length) this.at++;
      this.buffer = (this.buffer << 8 | byte) & 0xFFFFFF;
      this.count += 8;
    }
  }

  take(count) {
    if (!count) return 0;
    this.fill();
    this.count -= count;
    return this.buffer >> this.count & (1 << count) - 1;
  }

  symbol(table) {
    this.fill();
    const found = table?.[this.buffer >> this.count - 16 & 0xFFFF];
    if (!found) throw DAMAGED;
    this.count -= found >> 8;
    return found & 255;
  }

  /** A number of so many bits with its sign. */
  signed(count) {
    const value = this.take(count);
    return count && value < 1 << count - 1 ? value - (1 << count) + 1 : value;
  }

  restart() {
    this.finish();
    const marker = nextMarker(this.file);
    if (marker !== null && (marker < 0xD0 || marker > 0xD7)) throw DAMAGED;
    Object.assign(this, { at: this.file.at, buffer: 0, count: 0 });
  }

  /** The file goes on with the next marker. */
  finish() {
    this.file.at = this.at;
  }
}

function sequential(bits, component, block) {
  const { quantization: table } = component;
  component.before += bits.signed(bits.symbol(component.dcTable));
  block[0] = component.before * table[0];
  for (let k = 1; k < 64; k++) {
    const symbol = bits.symbol(component.acTable), size = symbol & 15;
    k += symbol >> 4;
    if (!size && symbol !== 0xF0) break;
    if (size && k < 64) block[ORDER[k]] = bits.signed(size) * table[ORDER[k]];
  }
}

function firstDc(bits, component, block, { low }) {
  component.before += bits.signed(bits.symbol(component.dcTable));
  block[0] = component.before << low;
}

function refineDc(bits, component, block, { low }) {
  if (bits.take(1)) block[0] |= 1 << low;
}

function firstAc(bits, component, block, scan) {
  if (scan.skip) {
    scan.skip--;
    return;
  }
  for (let k = scan.first; k <= scan.last; k++) {
    const symbol = bits.symbol(component.acTable), run = symbol >> 4, size = symbol & 15;
    if (!size && run < 15) {
      scan.skip = (1 << run) + bits.take(run) - 1;
      return;
    }
    k += run;
    if (size && k < 64) block[ORDER[k]] = bits.signed(size) * (1 << scan.low);
  }
}

function refineAc(bits, component, block, scan) {
  const unit = 1 << scan.low;
  let k = scan.first;
  const refine = place => {
    if (bits.take(1) && !(Math.abs(block[place]) & unit)) block[place] += block[place] < 0 ? -unit : unit;
  };
  for (; !scan.skip && k <= scan.last; k++) {
    const symbol = bits.symbol(component.acTable), size = symbol & 15;
    let run = symbol >> 4, value = 0;
    if (size) value = bits.take(1) ? unit : -unit;
    else if (run < 15) {
      scan.skip = (1 << run) + bits.take(run);
      break;
    }
    for (; k <= scan.last; k++) {
      const place = ORDER[k];
      if (block[place]) refine(place);
      else if (!run--) {
        if (value) block[place] = value;
        break;
      }
    }
  }
  if (!scan.skip) return;
  for (; k <= scan.last; k++) if (block[ORDER[k]]) refine(ORDER[k]);
  scan.skip--;
}
