/**
 * How words are chosen: the options of Python's DecodingOptions that one caption of a photo can use, under the same
 * names, and the searches. A word is chosen from its log-probability as in capexport/runtime; V vocabulary.
 */

import { CaptionError } from "./errors.js";
import { Random } from "./random.js";

const FORBIDDEN = -1e8; // log-probability: below it, the model itself bans a word

/** Every option and its default; null: none, or for max_length what the captioner was made for. */
export const DEFAULTS = Object.freeze({
  temperature: 0, // 0 takes the likeliest word, or searches with beams; above, words are drawn
  top_k: null, // draw among the k likeliest words only
  top_p: null, // draw among the fewest words whose probabilities add up to p
  beams: 1, // hypotheses kept at each step of a beam search; 1 is greedy
  length_penalty: 0.7, // a beam's score is its log-probability / tokens ** length_penalty
  banned_words: Object.freeze([]), // never said
  min_length: 1, // the least tokens of a caption, [END] included
  max_length: null, // the most tokens, [END] included
  seed: null, // of the draws; the same seed draws the same words as in Python
});

/** The options with their defaults. Throws CaptionError for values that make no sense or contradict each other. */
export function checkOptions(given, vocabulary, longest) {
  const unknown = Object.keys(given).find(name => !Object.hasOwn(DEFAULTS, name));
  if (unknown) throw new CaptionError(`There is no option ${unknown}; there are: ${Object.keys(DEFAULTS).join(", ")}.`);
  const present = Object.entries(given).filter(([, value]) => value !== undefined);
  const options = { ...DEFAULTS, ...Object.fromEntries(present) };
  for (const [name, least] of [["top_k", 1], ["beams", 1], ["min_length", 1], ["max_length", 1], ["seed", 0]]) {
    const value = options[name], absent = value === null && DEFAULTS[name] === null;
    const whole = Number.isSafeInteger(value) || typeof value === "bigint";
    if (!absent && !(whole && value >= least)) {
      throw new CaptionError(`${name} must be a whole number from ${least} up, not ${value}.`);
    }
  }
  checkNumber("temperature", options.temperature, value => value >= 0, "from 0 up");
  checkNumber("length_penalty", options.length_penalty, () => true, "of any sign");
  if (options.top_p !== null) checkNumber("top_p", options.top_p, value => value > 0 && value <= 1, "above 0, up to 1");
  if (!Array.isArray(options.banned_words)) throw new CaptionError("banned_words must be a list of words.");
  for (const word of options.banned_words) {
    if (!vocabulary.ordinary(word)) throw new CaptionError(`The captioner has no word '${word}'.`);
  }
  if (options.temperature > 0 && options.beams > 1) {
    throw new CaptionError("Beams search for the best caption: they take no temperature above 0.");
  }
  if (!options.temperature && (options.top_k !== null || options.top_p !== null)) {
    throw new CaptionError("top_k and top_p narrow down random draws: give a temperature above 0, too.");
  }
  options.max_length ??= longest;
  if (Math.max(options.max_length, options.min_length) > longest) {
    throw new CaptionError(`This captioner was made for ${longest} tokens, and more are asked for.`);
  }
  if (options.min_length > options.max_length) {
    throw new CaptionError(`min_length is ${options.min_length}, more than max_length, ${options.max_length}.`);
  }
  const allowed = vocabulary.words.length - 3 - new Set(options.banned_words).size;
  if (options.beams > allowed) {
    throw new CaptionError(`${options.beams} beams are more than the ${allowed} words there are to choose from.`);
  }
  return options;
}

function checkNumber(name, value, fits, bounds) {
  if (!(Number.isFinite(value) && fits(value))) throw new CaptionError(`${name} must be a number ${bounds}, not ${value}.`);
}

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

/** Which words may come next: gives scores, -Infinity where a word may not come, of log-probabilities (V). */
export function rules(options, vocabulary) {
  const never = new Set([...vocabulary.banned, ...options.banned_words.map(word => vocabulary.id(word))]);
  return (logProbabilities, position) => {
    const scores = logProbabilities.map((value, i) => value < FORBIDDEN || never.has(i) ? -Infinity : value);
    if (position === options.max_length - 1) {
      return scores.map((value, i) => i === vocabulary.end ? value : -Infinity); // the last token is [END]
    }
    if (position + 1 < options.min_length) scores[vocabulary.end] = -Infinity;
    return scores;
  };
}

/**
 * One row by itself: its likeliest word, or one drawn. A draw takes the likeliest after adding Gumbel noise, which is
 * exact sampling and moves with an engine's rounding only in near-ties.
 *
 * A search's `choose` takes rows {total} and their scores, and gives the choices {parent, token, total} that `ended`
 * and those that are `going` on; `best` gives the choice at which the caption ends.
 */
class Draw {
  streams = true; // a word that was chosen stays

  constructor(options, end) {
    Object.assign(this, { options, end });
    const seeds = options.seed === null ? [...crypto.getRandomValues(new Uint32Array(4))] : [options.seed, 0];
    this.random = options.temperature > 0 ? new Random(seeds) : null;
  }

  choose(rows, [scores], position) {
    if (!scores.some(value => value > FORBIDDEN)) throw noWord(position);
    if (this.random) scores = narrow(scores.map(value => value / this.options.temperature), this.options);
    if (this.random) scores = scores.map(value => value + gumbel(this.random.next()));
    const token = scores.reduce((best, value, i) => value > scores[best] ? i : best, 0);
    this.last = { parent: 0, token, total: 0 };
    return token === this.end ? { ended: [this.last], going: [] } : { ended: [], going: [this.last] };
  }

  best() {
    return this.last;
  }
}

const noWord = position => new CaptionError(`The options leave no word to say at position ${position + 1}.`);

const gumbel = uniform => -Math.log(-Math.log(Math.max(uniform, 2 ** -54)));

/** Scores (V) with -Infinity for all but the k likeliest words, then for all outside the nucleus of mass p. */
export function narrow(scores, { top_k: k, top_p: p }) {
  const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
  const narrowed = scores.slice();
  if (k !== null && k < scores.length) {
    const least = scores[order[k - 1]];
    scores.forEach((value, i) => { if (value < least) narrowed[i] = -Infinity; });
  }
  if (p !== null && p < 1) {
    const mass = order.map(i => Math.exp(narrowed[i] - narrowed[order[0]]));
    const limit = p * mass.reduce((a, b) => a + b, 0);
    let before = 0; // what the likelier words have, unnormalised
    order.forEach((i, rank) => {
      if (before >= limit) narrowed[i] = -Infinity;
      before += mass[rank];
    });
  }
  return narrowed;
}

/**
 * The caption with the highest score, log-probability / tokens ** length_penalty, as far as beams see. It is done when
 * `beams` are finished and no live one has, at its present length, a better score than the worst of them.
 */
class BeamSearch {
  streams = false;
  finished = []; // {score, choice}, the best first

  constructor(options, end) {
    Object.assign(this, { options, end });
  }

  choose(rows, scores, position) {
    const { beams, length_penalty: penalty } = this.options;
    const ranked = largest(rows, scores, 2 * beams);
    if (!ranked.length && !this.finished.length) throw noWord(position);
    const score = choice => choice.total / (position + 1) ** penalty;
    const ended = ranked.slice(0, beams).filter(choice => choice.token === this.end);
    const going = ranked.filter(choice => choice.token !== this.end).slice(0, beams);
    this.finished.push(...ended.map(choice => ({ score: score(choice), choice })));
    this.finished = this.finished.sort((a, b) => b.score - a.score).slice(0, beams);
    const hope = going.reduce((most, choice) => Math.max(most, score(choice)), -Infinity);
    const done = this.finished.length === beams && hope <= this.finished.at(-1).score;
    return { ended, going: done ? [] : going };
  }

  best() {
    if (!this.finished.length) throw new CaptionError("The options leave no caption to say; try more beams.");
    return this.finished[0].choice;
  }
}

/** The `count` largest totals that are above -Infinity, the largest first; of equals, the first. */
function largest(rows, scores, count) {
  const kept = []; // sorted
  rows.forEach((row, parent) => scores[parent].forEach((score, token) => {
    const total = row.total + score;
    if (total === -Infinity || (kept.length === count && total <= kept.at(-1).total)) return;
    const after = kept.findIndex(other => other.total < total);
    kept.splice(after < 0 ? kept.length : after, 0, { parent, token, total });
    kept.length = Math.min(kept.length, count);
  }));
  return kept;
}

/** The search that checked options ask for. */
export function startSearch(options, end) {
  return options.beams > 1 ? new BeamSearch(options, end) : new Draw(options, end);
}
