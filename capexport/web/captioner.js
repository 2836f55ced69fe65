/**
 * Captions photos in a browser or in Node with a bundle of capexport and onnxruntime-web (or onnxruntime-node).
 *
 *     import * as ort from "./runtime/ort.wasm.bundle.min.mjs";
 *     import { load } from "./captioner.js";
 *
 *     const captioner = await load("bundle/", ort);
 *     const caption = await captioner.caption(file, { beams: 3 });
 *     caption.text; // "a dog runs through the grass"
 *     for await (const word of captioner.stream(file)) console.log(word.text, word.attention);
 *
 * The options are those of options.js, named and meant as in Python; photos are those of image.js.
 */

import { readBundle } from "./bundle.js";
import { Caption, Word } from "./caption.js";
import { CaptionError } from "./errors.js";
import { preprocess } from "./image.js";
import { checkOptions } from "./options.js";
import { logSoftmax, rules } from "./rules.js";
import { startSearch } from "./search.js";

export { CaptionError } from "./errors.js";
export { DEFAULTS } from "./options.js";

/**
 * A Captioner of a bundle.
 *
 * bundle    the URL of its folder, or its files' bytes by name: {"manifest.json": Uint8Array, ...}
 * ort       the module onnxruntime-web or onnxruntime-node
 * progress  called with the bytes that were loaded and those that there are
 * providers onnxruntime's execution providers: ["wasm"], or ["webgpu"] with the module's build for it; ["cpu"] in Node
 *           with the module onnxruntime-node
 *
 * Every file is held against its SHA-256 in the manifest; on a page of plain http, which has no cryptography, against
 * its length alone. Throws CaptionError for a bundle that is damaged, of another version or of a format that
 * onnxruntime does not run.
 */
export async function load(bundle, ort, { progress = () => {}, providers = ["wasm"] } = {}) {
  const { manifest, vocabulary, encoder, decoder } = await readBundle(bundle, progress);
  const session = async (bytes, name) => {
    try {
      return await ort.InferenceSession.create(bytes, { executionProviders: providers });
    } catch (cause) {
      throw new CaptionError(`onnxruntime cannot load the ${name}: ${cause.message}`, { cause });
    }
  };
  const encoding = await session(encoder, "encoder");
  return new Captioner(ort, manifest, vocabulary, encoding, await session(decoder, "decoder"));
}

/** Captions photos; `load` makes it. R rows (hypotheses), L layers, H heads, N image positions, V vocabulary. */
class Captioner {
  constructor(ort, manifest, vocabulary, encoder, decoder) {
    Object.assign(this, { ort, manifest, vocabulary, encoder, decoder });
  }

  /** The encoder's input of a photo: Uint8Array (height * width * 3). */
  preprocess(photo) {
    const { size, resize } = this.manifest.preprocessing;
    return preprocess(photo, size, resize);
  }

  /** What the decoder needs of such pixels, which captionFeatures takes: tensors by name. */
  encode(pixels) {
    const [height, width] = this.manifest.preprocessing.size;
    return this.encoder.run({ image: new this.ort.Tensor("uint8", pixels, [1, height, width, 3]) });
  }

  /** A photo's Caption. Throws CaptionError for what is not a photo and for options that make no sense. */
  async caption(photo, options = {}) {
    return last(this.stream(photo, options));
  }

  /**
   * The words ([END] included) as they are chosen; after a search, and of several captions the first one's, all at once.
   * Returns the Caption.
   */
  async* stream(photo, options = {}) {
    const checked = this.checked(options);
    return yield* this.decode(await this.encode(await this.preprocess(photo)), checked);
  }

  /** As stream, of what encode gives, so that another caption of a photo need not look at it again. */
  async* streamFeatures(features, options = {}) {
    return yield* this.decode(features, this.checked(options));
  }

  checked(options) {
    return checkOptions(options, this.vocabulary, this.manifest.shape.max_length);
  }

  async* decode(features, options) {
    const { vocabulary } = this, apply = rules(options, vocabulary), search = startSearch(options, vocabulary);
    let rows = search.start().map(row => ({ ...row, token: vocabulary.start, words: [] })), cache = this.emptyCache(rows.length);
    for (let position = 0; rows.length && position < options.max_length; position++) {
      const out = await this.step(rows.map(row => row.token), position, repeated(this.ort, features, rows.length), cache);
      const likelihoods = rows.map((_, row) => logSoftmax(rowOf(out.logits, row)));
      const scores = rows.map(({ words }, row) => apply(likelihoods[row], words.map(word => word.token)));
      const { ended, going } = search.choose(rows, scores, position);
      for (const choice of [...ended, ...going]) {
        const word = this.word(choice.token, likelihoods[choice.parent][choice.token], out.attention, choice.parent);
        choice.words = [...rows[choice.parent].words, word];
        if (search.streams) yield word;
      }
      cache = Object.fromEntries(Object.keys(cache).map(name =>
        [name, taken(this.ort, out[name.replace("self_", "next_")], going.map(choice => choice.parent))]));
      rows = going;
    }
    const [best, ...others] = search.best().map(({ words }) => new Caption(words, vocabulary.end));
    if (!search.streams) yield* best.words;
    best.alternatives = others;
    return best;
  }

  /** One step of the decoder: tokens, a list of R, at a position counted from 0. */
  step(tokens, position, features, cache) {
    const { Tensor } = this.ort;
    return this.decoder.run({
      tokens: new Tensor("int32", Int32Array.from(tokens), [tokens.length]),
      position: new Tensor("int32", Int32Array.of(position), []),
      ...features,
      ...cache,
    });
  }

  emptyCache(rows) {
    const fill = { B: rows, P: 0 }, inputs = this.manifest.graphs.decoder.inputs;
    return Object.fromEntries(inputs.filter(({ name }) => name.startsWith("self_")).map(({ name, shape }) =>
      [name, new this.ort.Tensor("float32", new Float32Array(0), shape.map(length => fill[length] ?? length))]));
  }

  word(token, likelihood, attention, row) {
    const [layers, rows, heads, positions] = attention.dims; // (L, R, H, N)
    const each = heads * positions, cross = new Float32Array(layers * each);
    for (let layer = 0; layer < layers; layer++) {
      const from = (layer * rows + row) * each;
      cross.set(attention.data.subarray(from, from + each), layer * each);
    }
    const text = this.vocabulary.words[token];
    return new Word({ text, token, log_probability: likelihood, cross_attention: cross, layers, heads });
  }
}

async function last(stream) {
  for (;;) {
    const { done, value } = await stream.next();
    if (done) return value;
  }
}

function rowOf(tensor, row) {
  const length = tensor.data.length / tensor.dims[0];
  return tensor.data.subarray(row * length, (row + 1) * length);
}

/** These rows of a tensor; itself if that is all of them in order. */
function taken(ort, tensor, rows) {
  if (rows.length === tensor.dims[0] && rows.every((row, i) => row === i)) return tensor;
  const length = tensor.data.length / tensor.dims[0], data = new Float32Array(rows.length * length);
  rows.forEach((row, i) => data.set(rowOf(tensor, row), i * length));
  return new ort.Tensor("float32", data, [rows.length, ...tensor.dims.slice(1)]);
}

/** A photo's features, once for each hypothesis. */
function repeated(ort, features, count) {
  const rows = new Array(count).fill(0);
  return Object.fromEntries(Object.entries(features).map(([name, tensor]) => [name, taken(ort, tensor, rows)]));
}
