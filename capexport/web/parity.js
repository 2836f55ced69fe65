/**
 * Whether captions are those that Keras left in the bundle: in a page by checkParity, in Node by
 *
 *     node parity.js
 *
 * in the folder that `capexport web` made (or with that folder's path). It prints a line a photo and what is allowed;
 * the exit code is 1 where something does not hold.
 */

import { load } from "./captioner.js";

/**
 * Captions the vectors of parity.json: {holds, identical, least, rows}, a row for each photo with `photo`, `same` (its
 * tokens), the largest `log_probability_error` and the share `same_cell` of words whose most attended cell is the same,
 * both over the words up to where the captions part.
 */
export async function checkParity(captioner, { vectors, bounds }) {
  const rows = [];
  for (const vector of vectors) {
    const pixels = Uint8Array.from(atob(vector.pixels), sign => sign.charCodeAt(0));
    const words = [];
    for await (const word of captioner.streamFeatures(await captioner.encode(pixels))) words.push(word);
    const parting = vector.tokens.findIndex((token, i) => token !== words[i]?.token);
    const alike = words.slice(0, parting < 0 ? words.length : parting);
    const errors = alike.map((word, i) => Math.abs(word.log_probability - vector.log_probabilities[i]));
    const cells = alike.filter((word, i) => peak(word.attention) === peak(vector.attention[i]));
    rows.push({
      photo: vector.photo,
      text: words.map(word => word.text).join(" "),
      tokens: words.map(word => word.token),
      same: parting < 0 && words.length === vector.tokens.length,
      log_probability_error: Math.max(0, ...errors),
      same_cell: alike.length ? cells.length / alike.length : 1,
    });
  }
  const identical = rows.filter(row => row.same).length;
  const least = rows.length - Math.ceil(rows.length * (1 - bounds.identical));
  const holds = identical >= least && rows.every(row =>
    row.log_probability_error <= bounds.log_probability_error && row.same_cell >= bounds.same_cell);
  return { holds, identical, least, rows };
}

const peak = map => map.reduce((best, value, i) => value > map[best] ? i : best, 0);

async function main(folder) {
  const { readFile, readdir } = await import("node:fs/promises");
  const { join } = await import("node:path");
  const { pathToFileURL } = await import("node:url");
  const site = JSON.parse(await readFile(join(folder, "site.json"), "utf-8"));
  const ort = await import(pathToFileURL(join(folder, site.runtime.script)));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await readFile(join(folder, site.runtime.wasm.file));
  const names = await readdir(join(folder, "bundle"));
  const read = async name => [name, await readFile(join(folder, "bundle", name))];
  const captioner = await load(Object.fromEntries(await Promise.all(names.map(read))), ort);
  const parity = JSON.parse(await readFile(join(folder, "parity.json"), "utf-8"));
  const result = await checkParity(captioner, parity);
  for (const row of result.rows) {
    console.log(`${row.same ? "same words" : "other words"}, log-probabilities within `
      + `${row.log_probability_error.toPrecision(2)}, same cell ${Math.round(100 * row.same_cell)}%: ${row.text}`);
  }
  const { bounds } = parity;
  console.log(`allowed: ${result.least} of ${result.rows.length} the same, within ${bounds.log_probability_error}, `
    + `same cell ${100 * bounds.same_cell}%: ${result.holds ? "it holds" : "it does not hold"}`);
  return result.holds ? 0 : 1;
}

if (typeof process !== "undefined" && process.argv[1] && import.meta.url.endsWith("/parity.js")) {
  const { basename, dirname } = await import("node:path");
  if (basename(process.argv[1]) === "parity.js") process.exitCode = await main(process.argv[2] ?? dirname(process.argv[1]));
}
