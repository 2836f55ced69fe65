/** What the runtime makes of a photo. */

import { CaptionError } from "./errors.js";

/**
 * A caption's word: its text ("[END]" at last), token, log_probability under the model's own distribution, and where the
 * model looked for it, cross_attention: Float32Array (layers * heads * h * w), each map sums to 1.
 */
export class Word {
  constructor(fields) {
    Object.assign(this, fields);
  }

  /** The mean of cross_attention over layers and heads: Float32Array (h * w), sums to 1. */
  get attention() {
    return this.attentionOf();
  }

  /** One layer's or head's attention, counted from 0, or the mean over all of them (null): Float32Array (h * w). */
  attentionOf(layer = null, head = null) {
    const { layers, heads, cross_attention: all } = this, cells = all.length / (layers * heads);
    const pick = (chosen, count, kind) => {
      if (chosen === null) return Array.from({ length: count }, (_, i) => i);
      if (!(chosen in Array.from({ length: count }))) throw new CaptionError(`There is no ${kind} ${chosen}.`);
      return [Number(chosen)];
    };
    const maps = pick(layer, layers, "layer").flatMap(l => pick(head, heads, "head").map(h => (l * heads + h) * cells));
    return Float32Array.from({ length: cells }, (_, i) => maps.reduce((sum, at) => sum + all[at + i], 0) / maps.length);
  }
}

/**
 * text, its words ([END] included), and from both: tokens, log_probabilities and confidence, as in Python; alternatives,
 * the photo's other captions where several were asked for, the best first, or as drawn.
 */
export class Caption {
  alternatives = [];

  constructor(words, end) {
    this.words = words;
    this.text = words.filter(word => word.token !== end).map(word => word.text).join(" ");
  }

  get tokens() {
    return this.words.map(word => word.token);
  }

  get log_probabilities() {
    return this.words.map(word => word.log_probability);
  }

  /** The geometric mean of the tokens' probabilities, from 0 to 1. */
  get confidence() {
    return Math.exp(this.log_probabilities.reduce((a, b) => a + b, 0) / this.words.length);
  }
}
