/** Which words may come next, whatever the way they are chosen: rules.py in JavaScript. V vocabulary. */

import { CaptionError } from "./errors.js";
import { prefixWords } from "./options.js";

export const FORBIDDEN = -1e8; // log-probability: below it, the model itself bans a word

/** Log-probabilities (Float64Array, V) of logits (V). Throws CaptionError if they are not numbers. */
export function logSoftmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  // Rounded as Python's float32 arrays are, so that both runtimes differ by their engines alone.
  const shifted = Float64Array.from(logits, value => Math.fround(value - most));
  const normaliser = Math.log(shifted.reduce((sum, value) => sum + Math.fround(Math.exp(value)), 0));
  if (!Number.isFinite(normaliser)) {
    throw new CaptionError("The decoder's logits are not numbers: its graph is damaged or unfit.");
  }
  return shifted.map(value => value - normaliser);
}

/**
 * A function that gives the scores of the next words (V), -Infinity where a word may not come, of their
 * log-probabilities (V) and the tokens that were said.
 */
export function rules(options, vocabulary) {
  const ids = words => words.map(word => vocabulary.id(word));
  const never = new Set([...vocabulary.banned, ...ids(options.banned_words)]);
  const given = ids(prefixWords(options.prefix)); // tokens by position
  given[options.max_length - 1] = vocabulary.end;
  const { min_length, no_repeat_ngram: run, repetition_penalty: penalty } = options;
  return (logProbabilities, said) => {
    const position = said.length, only = given[position];
    const scores = logProbabilities.map((value, i) => value < FORBIDDEN || never.has(i) ? -Infinity : value);
    if (only !== undefined) return scores.map((value, i) => i === only ? value : -Infinity);
    if (position + 1 < min_length) scores[vocabulary.end] = -Infinity;
    if (penalty !== 1) for (const token of new Set(said)) scores[token] *= penalty;
    if (run !== null) for (const token of wouldRepeat(said, run)) scores[token] = -Infinity;
    return scores;
  };
}

/** The words that would complete a run of n that was said before. */
function wouldRepeat(said, n) {
  const start = said.length - n + 1, starts = Array.from({ length: Math.max(0, start) }, (_, i) => i);
  const alike = i => said.slice(start).every((token, k) => said[i + k] === token);
  return starts.filter(alike).map(i => said[i + n - 1]);
}
