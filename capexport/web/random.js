/**
 * numpy's default_rng(seeds) in JavaScript, so that a seed draws the same words as in Python: the seeds mixed by
 * SeedSequence (O'Neill's seed_seq_fe), then PCG64, the 128-bit generator XSL-RR (O'Neill, 2014).
 */

const MASK_64 = (1n << 64n) - 1n;
const MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645n;
const POOL = 4; // 32-bit words

export class Random {
  /** seeds  whole numbers from 0, as in numpy.random.default_rng([1, 0]) */
  constructor(seeds) {
    const words = stateWords(mixedPool(seeds.flatMap(wordsOf)), 8).map(BigInt);
    const pair = i => words[i] | words[i + 1] << 32n; // (64 bits), the low word first
    this.increment = BigInt.asUintN(128, (pair(4) << 64n | pair(6)) << 1n | 1n);
    this.state = BigInt.asUintN(128, this.increment + (pair(0) << 64n | pair(2)));
    this.step();
  }

  step() {
    this.state = BigInt.asUintN(128, this.state * MULTIPLIER + this.increment);
  }

  /** The next number, evenly distributed in [0, 1). */
  next() {
    this.step();
    const folded = (this.state >> 64n) ^ (this.state & MASK_64), turn = this.state >> 122n;
    const turned = (folded >> turn | folded << (64n - turn)) & MASK_64;
    return Number(turned >> 11n) / 2 ** 53;
  }
}

/** A whole number as 32-bit words, the low one first; 0 is one word. */
function wordsOf(seed) {
  const words = [];
  for (let rest = BigInt(seed); rest > 0n || !words.length; rest >>= 32n) words.push(Number(rest & 0xFFFFFFFFn));
  return words;
}

/** A hash of 32-bit words whose constant moves on with every word. */
function hasher(constant, factor) {
  return word => {
    word ^= constant;
    constant = Math.imul(constant, factor);
    word = Math.imul(word, constant);
    return (word ^ word >>> 16) >>> 0;
  };
}

function mixedPool(entropy) {
  const hash = hasher(0x43B0D7E5, 0x931E8875);
  const mix = (x, y) => {
    const mixed = Math.imul(0xCA01F9DD, x) - Math.imul(0x4973F715, y) | 0;
    return (mixed ^ mixed >>> 16) >>> 0;
  };
  const pool = Array.from({ length: POOL }, (_, i) => hash(entropy[i] ?? 0));
  for (let from = 0; from < POOL; from++) {
    for (let to = 0; to < POOL; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  }
  for (const word of entropy.slice(POOL)) for (let to = 0; to < POOL; to++) pool[to] = mix(pool[to], hash(word));
  return pool;
}

function stateWords(pool, count) {
  const hash = hasher(0x8B51F9DD, 0x58F38DED);
  return Array.from({ length: count }, (_, i) => hash(pool[i % POOL]));
}
