/**
 * Whether captions are those that Keras left in the bundle: in a page by checkParity, in Node by
 *
 *     node parity.js
 *
 * in the folder that `capexport web` made (or with that folder's path). It prints a line a photo and what is allowed;
 * the exit code is 1 where something does not hold. With --json it prints checkParity's result.
 */

import { load } from "./captioner.js";

/**
 * Captions the vectors of parity.json: {holds, identical, least, same_cell, bounds, rows}, a row for each photo with `photo`,
 * `levels` (by how much its pixels differ from Python's, from the file's own bytes; null where it is not at hand),
 * `same` (its tokens), `nearTie` (they part where Keras' two best words are nearly alike), the largest
 * `log_probability_error` and the share `same_cell` of words whose most attended cell is the same, both over the words up
 * to where the captions part.
 *
 * read   gives the bytes of a sample photo by its name (Uint8Array), or null
 */
export async function checkParity(captioner, { vectors, bounds }, read = async () => null) {
  const rows = [];
  for (const vector of vectors) {
    const pixels = Uint8Array.from(atob(vector.pixels), sign => sign.charCodeAt(0));
    const file = vector.photo ? await read(vector.photo) : null;
    const words = [];
    for await (const word of captioner.streamFeatures(await captioner.encode(pixels))) words.push(word);
    const parting = vector.tokens.findIndex((token, i) => token !== words[i]?.token);
    const alike = words.slice(0, parting < 0 ? words.length : parting);
    const errors = alike.map((word, i) => Math.abs(word.log_probability - vector.log_probabilities[i]));
    const cells = alike.filter((word, i) => peak(word.attention) === peak(vector.attention[i]));
    rows.push({
      photo: vector.photo,
      levels: file && difference(await captioner.preprocess(file), pixels),
      text: words.map(word => word.text).join(" "),
      tokens: words.map(word => word.token),
      same: parting < 0 && words.length === vector.tokens.length,
      nearTie: parting >= 0 && vector.margins[parting] < bounds.near_tie,
      log_probability_error: Math.max(0, ...errors),
      same_cell: alike.length ? cells.length / alike.length : 1,
    });
  }
  const identical = rows.filter(row => row.same).length;
  const least = rows.length - Math.ceil(rows.length * (1 - bounds.identical));
  const same_cell = rows.reduce((sum, row) => sum + row.same_cell, 0) / rows.length; // over photos, as in Python
  const holds = identical + rows.filter(row => row.nearTie).length >= least && same_cell >= bounds.same_cell
    && rows.every(row => row.log_probability_error <= bounds.log_probability_error
      && (row.levels === null || bounds.levels === null || row.levels <= bounds.levels));
  return { holds, identical, least, same_cell, bounds, rows };
}

const peak = map => map.reduce((best, value, i) => value > map[best] ? i : best, 0);

const difference = (ours, theirs) => ours.reduce((most, level, i) => Math.max(most, Math.abs(level - theirs[i])), 0);

async function inNode(folder) {
  const { readFile, readdir } = await import("node:fs/promises");
  const { join } = await import("node:path");
  const { pathToFileURL } = await import("node:url");
  const json = async name => JSON.parse(await readFile(join(folder, name), "utf-8"));
  const site = await json("site.json");
  const { script, wasm } = site.runtime.builds.wasm, ort = await import(pathToFileURL(join(folder, script)));
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: await readFile(join(folder, wasm.file)) });
  const names = await readdir(join(folder, "bundle"));
  const bytes = async name => [name, await readFile(join(folder, "bundle", name))];
  const captioner = await load(Object.fromEntries(await Promise.all(names.map(bytes))), ort);
  const photo = async name => site.photos.includes(`photos/${name}`) ? readFile(join(folder, "photos", name)) : null;
  return checkParity(captioner, await json("parity.json"), photo);
}

/** The result as lines for people. */
export function described({ holds, least, same_cell, bounds, rows }) {
  const lines = rows.map(row => `${row.same ? "same words" : "other words"}, `
    + `${row.levels === null ? "" : row.levels ? `pixels differ by ${row.levels}, ` : "same pixels, "}log-probabilities within `
    + `${row.log_probability_error.toPrecision(2)}, same cell ${Math.round(100 * row.same_cell)}%: ${row.text}`);
  return [...lines, `allowed: ${least} of ${rows.length} the same, within ${bounds.log_probability_error}, `
    + `same cell ${100 * bounds.same_cell}% over all (${Math.round(1000 * same_cell) / 10}%): ${holds ? "it holds" : "it does not hold"}`].join("\n");
}

if (typeof process !== "undefined" && process.argv[1] && import.meta.url.endsWith("/parity.js")) {
  const { basename, dirname } = await import("node:path");
  if (basename(process.argv[1]) === "parity.js") {
    const [folder] = process.argv.slice(2).filter(word => word !== "--json"), asJson = process.argv.includes("--json");
    const result = await inNode(folder ?? dirname(process.argv[1]));
    console.log(asJson ? JSON.stringify(result) : described(result));
    process.exitCode = result.holds ? 0 : 1;
  }
}
