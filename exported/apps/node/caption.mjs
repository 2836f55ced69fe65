// A photo's caption by an ONNX bundle in Node, with the JavaScript runtime of `capexport web` (its folder is PAGE).
//
//     npm install onnxruntime-node            (or onnxruntime-web, which is WebAssembly, and smaller)
//     node caption.mjs PAGE BUNDLE PHOTO.jpg [onnxruntime-web]
import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [page, bundle, photo, engine = "onnxruntime-node"] = process.argv.slice(2);
const { load } = await import(pathToFileURL(resolve(page, "captioner.js")));
const module = await import(engine), ort = module.default ?? module;
// Load. In a server, once.
const names = (await readdir(bundle)).filter(name => !name.endsWith(".npz"));
const files = Object.fromEntries(await Promise.all(names.map(async name => [name, await readFile(join(bundle, name))])));
const captioner = await load(files, ort, { providers: [engine === "onnxruntime-node" ? "cpu" : "wasm"] });
// Pixels, encode, loop, words: a JPEG file's bytes, or {data, width, height} of RGB or RGBA.
for await (const word of captioner.stream(await readFile(photo))) {
  if (word.text !== "[END]") process.stdout.write(`${word.text} `);
}
process.stdout.write("\n");
