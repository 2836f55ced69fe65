/**
 * The ways to choose among the words that may come: the likeliest, a draw, or a beam search, as search.py has them.
 *
 * A search's `start` gives its first rows, at which `total` is the log-probability so far; `choose` takes rows and their
 * scores, and gives the choices {parent, token, total, ...} that `ended` and those that are `going` on as the next rows;
 * `best` gives the choices at which the captions end. `streams`: whether a word that was chosen stays.
 */

import { CaptionError } from "./errors.js";
import { searched } from "./options.js";
import { Random } from "./random.js";
import { FORBIDDEN } from "./rules.js";

/** The search that checked options ask for. */
export const startSearch = (options, vocabulary) =>
  searched(options) ? new BeamSearch(options, vocabulary) : new Draw(options, vocabulary);

/**
 * Each row by itself: its likeliest word, or one drawn. A draw takes the likeliest after adding Gumbel noise, which is
 * exact sampling and moves with an engine's rounding only in near-ties.
 */
class Draw {
  done = []; // the last choice of each caption

  constructor(options, { end }) {
    Object.assign(this, { options, end, streams: options.captions === 1 });
  }

  start() {
    const { captions, seed, temperature } = this.options;
    const seeds = k => seed === null ? [...crypto.getRandomValues(new Uint32Array(4))] : [seed, k];
    const random = k => temperature > 0 ? new Random(seeds(k)) : null;
    return Array.from({ length: captions }, (_, k) => ({ total: 0, k, random: random(k) }));
  }

  choose(rows, scores, position) {
    const choices = rows.map(({ k, random }, parent) => {
      const token = this.one(scores[parent], random, position);
      return this.done[k] = { parent, token, total: 0, k, random };
    });
    return { ended: choices.filter(one => one.token === this.end), going: choices.filter(one => one.token !== this.end) };
  }

  one(scores, random, position) {
    if (!scores.some(value => value > FORBIDDEN)) throw noWord(position);
    if (random) {
      const best = scores.reduce((a, b) => Math.max(a, b));
      scores = narrow(scores.map(value => (value - best) / this.options.temperature), this.options);
      scores = scores.map(value => value + gumbel(random.next()));
    }
    return scores.reduce((best, value, i) => value > scores[best] ? i : best, 0);
  }

  best() {
    return this.done;
  }
}

const noWord = position => new CaptionError(`The options leave no word to say at position ${position + 1}.`);

const gumbel = uniform => -Math.log(-Math.log(Math.max(uniform, 2 ** -54)));

/** Scores (V) with -Infinity for all but the k likeliest words, then for all outside the nucleus of mass p. */
export function narrow(scores, { top_k: k, top_p: p }) {
  const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
  const narrowed = scores.slice();
  if (k !== null && k < scores.length) {
    const least = scores[order[Number(k) - 1]];
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
 * The captions with the highest scores, log-probability / tokens ** length_penalty, as far as beams see. It is done when
 * `beams` are finished and no live one has, at its present length, a better score than the worst of them. With forced
 * words there are `beams` for each number of them that was said (the grid of Hokamp and Liu, 2017); only who has said
 * all may end.
 */
class BeamSearch {
  streams = false;
  finished = []; // {score, choice}, the best first

  constructor(options, vocabulary) {
    const forced = new Set(options.forced_words.map(word => vocabulary.id(word)));
    Object.assign(this, { options, forced, end: vocabulary.end });
  }

  start() {
    return [{ total: 0, met: [] }];
  }

  choose(rows, scores, position) {
    const { beams, length_penalty: penalty, max_length } = this.options;
    const score = choice => choice.total / (position + 1) ** penalty, ended = [], going = [];
    for (let count = 0; count <= this.forced.size; count++) {
      const ranked = largest(rows, scores, 2 * beams, (row, token) => {
        const said = row.met.length + this.adds(row, token), missing = this.forced.size - said;
        const left = token === this.end ? 0 : Math.max(0, max_length - position - 2); // the last token is [END]
        return said === count && missing <= left;
      });
      ended.push(...ranked.slice(0, beams).filter(choice => choice.token === this.end));
      going.push(...ranked.filter(choice => choice.token !== this.end).slice(0, beams));
    }
    if (!ended.length && !going.length && !this.finished.length) throw noWord(position);
    for (const choice of going) {
      const row = rows[choice.parent];
      choice.met = this.adds(row, choice.token) ? [...row.met, choice.token] : row.met;
    }
    this.finished.push(...ended.map(choice => ({ score: score(choice), choice })));
    this.finished = this.finished.sort((a, b) => b.score - a.score).slice(0, beams);
    const hope = going.reduce((most, choice) => Math.max(most, score(choice)), -Infinity);
    const done = this.finished.length === beams && hope <= this.finished.at(-1).score;
    return { ended, going: done ? [] : going };
  }

  /** How many more forced words are said with this token: 1 or 0. */
  adds(row, token) {
    return Number(this.forced.has(token) && !row.met.includes(token));
  }

  best() {
    if (!this.finished.length) throw new CaptionError("The options leave no caption to say; try more beams.");
    return this.finished.slice(0, this.options.captions).map(({ choice }) => choice);
  }
}

/** The `count` largest totals that are above -Infinity and fit, the largest first; of equals, the first. */
function largest(rows, scores, count, fits) {
  const kept = []; // sorted
  rows.forEach((row, parent) => scores[parent].forEach((score, token) => {
    const total = row.total + score;
    if (total === -Infinity || (kept.length === count && total <= kept.at(-1).total) || !fits(row, token)) return;
    const after = kept.findIndex(other => other.total < total);
    kept.splice(after < 0 ? kept.length : after, 0, { parent, token, total });
    kept.length = Math.min(kept.length, count);
  }));
  return kept;
}
