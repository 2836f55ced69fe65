// node webassembly.mjs ROUNDS PAGE...: each page's captioner in turns, for webassembly.py. Prints a list of a page's
// milliseconds ({encode, token, beams}, one of each a turn) and by how much its log-probabilities are off.
import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [rounds, ...pages] = process.argv.slice(2).map((word, i) => i ? resolve(word) : Number(word));
const module = name => import(pathToFileURL(join(pages[0], name)));
const json = async (page, name) => JSON.parse(await readFile(join(page, name), "utf-8"));
const { load } = await module("captioner.js"), { checkParity } = await module("parity.js");
const { script, wasm } = (await json(pages[0], "site.json")).runtime.builds.wasm, ort = await module(script);
Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: await readFile(join(pages[0], wasm.file)) });

async function opened(page) {
  const folder = join(page, "bundle"), bytes = async name => [name, await readFile(join(folder, name))];
  const captioner = await load(Object.fromEntries(await Promise.all((await readdir(folder)).map(bytes))), ort);
  const parity = await json(page, "parity.json");
  const images = parity.vectors.map(vector => Uint8Array.from(atob(vector.pixels), sign => sign.charCodeAt(0)));
  const { holds, identical, rows } = await checkParity(captioner, parity); // which warms it up, too
  const off = Math.max(...rows.map(row => row.log_probability_error));
  return { captioner, images, holds, identical, photos: rows.length, off, times: { encode: [], token: [], beams: [] } };
}

async function turn({ captioner, images, times }, round) {
  const clock = () => performance.now(), started = clock();
  const features = await captioner.encode(images[round % images.length]), encoded = clock();
  let tokens = 0;
  for await (const _ of captioner.streamFeatures(features)) tokens++;
  const decoded = clock();
  for await (const _ of captioner.streamFeatures(features, { beams: 3 }));
  times.encode.push(encoded - started);
  times.token.push((decoded - encoded) / tokens);
  times.beams.push(encoded - started + clock() - decoded);
}

const rows = [];
for (const page of pages) rows.push(await opened(page));
for (let round = 0; round < rounds; round++) for (const row of rows) await turn(row, round);
console.log(JSON.stringify(rows.map(({ captioner, images, ...row }) => row)));
