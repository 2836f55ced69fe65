/** The options of decoding, checked: those of Python's DecodingOptions, under the same names and with its defaults. */

import { CaptionError } from "./errors.js";

/** Every option and its default; null: none, or for max_length what the captioner was made for. */
export const DEFAULTS = Object.freeze({
  temperature: 0, // 0 takes the likeliest word, or searches with beams; above, words are drawn
  top_k: null, // draw among the k likeliest words only
  top_p: null, // draw among the fewest words whose probabilities add up to p
  beams: 1, // hypotheses kept at each step of a beam search; 1 is greedy
  length_penalty: 0.7, // a beam's score is its log-probability / tokens ** length_penalty
  captions: 1, // captions a photo: the best of the beams, or so many draws
  repetition_penalty: 1, // a word said before has its log-probability multiplied by this
  no_repeat_ngram: null, // no run of so many words is said twice
  banned_words: Object.freeze([]), // never said
  forced_words: Object.freeze([]), // said in every caption, found by beam search
  prefix: "", // the words, separated by spaces, that every caption begins with
  min_length: 1, // the least tokens of a caption, [END] included
  max_length: null, // the most tokens, [END] included
  seed: null, // of the draws; the same seed draws the same words as in Python
});

const WHOLE = { top_k: 1, beams: 1, captions: 1, no_repeat_ngram: 1, min_length: 1, max_length: 1, seed: 0 };

/** The words of a prefix. */
export const prefixWords = prefix => prefix.split(/\s+/).filter(word => word);

/** Whether the words are known only after a search. */
export const searched = options => options.beams > 1 || options.forced_words.length > 0;

/** The options with their defaults. Throws CaptionError for values that make no sense or contradict each other. */
export function checkOptions(given, vocabulary, longest) {
  const unknown = Object.keys(given).find(name => !Object.hasOwn(DEFAULTS, name));
  if (unknown) throw new CaptionError(`There is no option ${unknown}; there are: ${Object.keys(DEFAULTS).join(", ")}.`);
  const present = Object.entries(given).filter(([, value]) => value !== undefined);
  const options = { ...DEFAULTS, ...Object.fromEntries(present) };
  for (const [name, least] of Object.entries(WHOLE)) {
    const value = options[name], absent = value === null && DEFAULTS[name] === null;
    const whole = Number.isSafeInteger(value) || typeof value === "bigint";
    if (!absent && !(whole && value >= least)) {
      throw new CaptionError(`${name} must be a whole number from ${least} up, not ${value}.`);
    }
    if (!absent && name !== "seed") options[name] = Number(value);
  }
  checkNumber("temperature", options.temperature, value => value >= 0, "from 0 up");
  checkNumber("length_penalty", options.length_penalty, value => Math.abs(value) <= 10, "from -10 to 10");
  checkNumber("repetition_penalty", options.repetition_penalty, value => value > 0, "above 0");
  if (options.top_p !== null) checkNumber("top_p", options.top_p, value => value > 0 && value <= 1, "above 0, up to 1");
  for (const name of ["banned_words", "forced_words"]) {
    if (!Array.isArray(options[name])) throw new CaptionError(`${name} must be a list of words.`);
    options[name] = [...new Set(options[name])];
  }
  if (typeof options.prefix !== "string") throw new CaptionError("prefix must be words separated by spaces.");
  options.max_length ??= longest;
  checkTogether(options);
  checkWords(options, vocabulary, longest);
  return options;
}

function checkTogether(options) {
  const drawn = options.temperature > 0;
  if (drawn && searched(options)) {
    throw new CaptionError("Beams and forced words search for the best caption: they take no temperature above 0.");
  }
  if (!drawn && (options.top_k !== null || options.top_p !== null)) {
    throw new CaptionError("top_k and top_p narrow down random draws: give a temperature above 0, too.");
  }
  if (!drawn && options.captions > options.beams) {
    throw new CaptionError(`${options.captions} captions a photo need as many beams, or a temperature above 0.`);
  }
  if (options.min_length > options.max_length) {
    throw new CaptionError(`min_length is ${options.min_length}, more than max_length, ${options.max_length}.`);
  }
  const asked = [...options.forced_words, ...prefixWords(options.prefix)];
  const both = options.banned_words.find(word => asked.includes(word));
  if (both !== undefined) throw new CaptionError(`The word '${both}' is banned and asked for at once.`);
}

function checkWords(options, vocabulary, longest) {
  const { banned_words: banned, forced_words: forced, max_length, min_length, beams } = options;
  const prefix = prefixWords(options.prefix);
  for (const word of [...banned, ...forced, ...prefix]) {
    if (!vocabulary.ordinary(word)) throw new CaptionError(`The captioner has no word '${word}'.`);
  }
  if (Math.max(max_length, min_length) > longest) {
    throw new CaptionError(`This captioner was made for ${longest} tokens, and more are asked for.`);
  }
  const allowed = vocabulary.words.length - vocabulary.banned.length - banned.length;
  if (beams > allowed) {
    throw new CaptionError(`${beams} beams are more than the ${allowed} words there are to choose from.`);
  }
  if (prefix.length + forced.filter(word => !prefix.includes(word)).length >= max_length) {
    throw new CaptionError(`The prefix and the forced words do not fit into ${max_length} tokens.`);
  }
}

function checkNumber(name, value, fits, bounds) {
  if (!(Number.isFinite(value) && fits(value))) throw new CaptionError(`${name} must be a number ${bounds}, not ${value}.`);
}
