/** A bundle's files: fetched or handed over, held against their manifest, and what they say. */

import { CaptionError } from "./errors.js";
import { RESIZERS } from "./image.js";

const SCHEMA = 3;
const FORMATS = ["onnx", "ort"];
const MANIFEST = "manifest.json", VOCABULARY = "vocabulary.txt";

/** fetch's options for what says how other files are: what a browser kept is used if the server says that it still holds. */
export const FRESH = { cache: "no-cache" };

/**
 * {manifest, vocabulary, encoder, decoder} of a bundle, the latter two the bytes of the graphs; see captioner.js' load.
 */
export async function readBundle(bundle, progress) {
  const read = typeof bundle === "string" || bundle instanceof URL ? fromUrl(bundle) : fromBytes(bundle);
  const manifest = parseManifest(text(await read(MANIFEST, () => {}, FRESH)));
  const names = [VOCABULARY, manifest.graphs.encoder.file, manifest.graphs.decoder.file];
  const sizes = names.map(name => manifest.files[name].bytes), loaded = names.map(() => 0);
  const total = sizes.reduce((a, b) => a + b, 0);
  const [words, encoder, decoder] = await Promise.all(names.map((name, i) =>
    checkedFile(name, manifest.files[name], options => read(name, count => {
      loaded[i] = Math.min(count, sizes[i]);
      progress(loaded.reduce((a, b) => a + b, 0), total);
    }, options))));
  return { manifest, vocabulary: new Vocabulary(text(words), manifest), encoder, decoder };
}

/** The bytes at a URL; `progress` is called with how many have come. Throws CaptionError if they do not come. */
export async function fetchBytes(url, progress = () => {}, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (cause) {
    throw new CaptionError(`${url} cannot be fetched: is the connection gone?`, { cause });
  }
  if (!response.ok) throw new CaptionError(`${url} cannot be fetched: the server says ${response.status}.`);
  const parts = [];
  let count = 0;
  try {
    for (const reader = response.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      progress(count += value.length);
    }
  } catch (cause) {
    throw new CaptionError(`${url} was cut off; load the page again.`, { cause });
  }
  const bytes = new Uint8Array(count);
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
  return bytes;
}

/**
 * What `read` gives, which {bytes, sha256} describes. A browser may have kept what is damaged or of an earlier version:
 * read is called with fetch's options, the second time past every cache. Throws CaptionError if that is damaged, too.
 */
export async function checkedFile(name, expected, read) {
  for (const options of [{}, { cache: "reload" }]) {
    const bytes = await read(options);
    if (await isFile(bytes, expected)) return bytes;
  }
  throw new CaptionError(`${name} is damaged: it is not the file that belongs here; copy it again.`);
}

async function isFile(bytes, expected) {
  if (bytes?.length !== expected.bytes) return false;
  return !globalThis.crypto?.subtle || hex(await crypto.subtle.digest("SHA-256", bytes)) === expected.sha256;
}

const hex = buffer => Array.from(new Uint8Array(buffer), byte => byte.toString(16).padStart(2, "0")).join("");

const text = bytes => new TextDecoder().decode(bytes);

function fromUrl(folder) {
  const base = String(folder).replace(/\/*$/, "/");
  return (name, progress, options) => fetchBytes(base + name, progress, options);
}

function fromBytes(files) {
  return async (name, progress) => {
    if (!files[name]) throw new CaptionError(`The bundle lacks the file ${name}.`);
    progress(files[name].length);
    return files[name];
  };
}

function parseManifest(json) {
  let manifest;
  try {
    manifest = JSON.parse(json);
  } catch (cause) {
    throw new CaptionError("The bundle's manifest is not JSON.", { cause });
  }
  if (manifest?.schema !== SCHEMA) {
    throw new CaptionError(`The bundle is of schema version ${manifest?.schema}; this page reads ${SCHEMA}.`);
  }
  if (!FORMATS.includes(manifest.format)) {
    throw new CaptionError(`onnxruntime-web runs bundles of ${FORMATS.join(" and ")}, not of ${manifest.format}.`);
  }
  const { files, graphs, preprocessing, shape, special_tokens: special } = manifest;
  const needed = [VOCABULARY, graphs?.encoder?.file, graphs?.decoder?.file];
  if (!preprocessing || !shape || !special || !needed.every(name => files?.[name])) {
    throw new CaptionError("The bundle's manifest lacks something; copy it again.");
  }
  const { resize } = preprocessing;
  if (!Object.hasOwn(RESIZERS, resize)) throw new CaptionError(`The resizer ${resize} has no twin in JavaScript.`);
  return manifest;
}

/** The words of a captioner by their ids, and its special tokens. */
class Vocabulary {
  constructor(lines, manifest) {
    this.words = lines.replace(/\n$/, "").split("\n");
    const { pad, unknown, start, end } = manifest.special_tokens;
    Object.assign(this, { start, end, banned: [pad, unknown, start] });
    this.ids = new Map(this.words.map((word, i) => [word, i]));
    if (this.words.length !== manifest.shape.vocabulary) {
      throw new CaptionError("The bundle's vocabulary is not the one that its manifest describes.");
    }
  }

  id(word) {
    return this.ids.get(word);
  }

  /** Whether a caption may be asked for or denied this word: it is there, and no special token. */
  ordinary(word) {
    return this.ids.has(word) && ![...this.banned, this.end].includes(this.id(word));
  }
}
