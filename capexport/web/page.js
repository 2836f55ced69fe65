/** The page: what a visitor does, and what is shown of it. The captions come from captioner.js. */

import { fetchBytes } from "./bundle.js";
import { openPage } from "./engine.js";
import { CaptionError } from "./errors.js";
import { decoded } from "./image.js";
import { isJpeg } from "./jpeg.js";
import { light, looked, painter, rangeOf, smooth } from "./light.js";
import { openCamera } from "./camera.js";

const $ = id => document.getElementById(id);
const MEGABYTE = 1e6, LONGEST_SIDE = 1200, OVERLAY = 160; // pixels
const PACE = 70; // milliseconds between words, which are ready faster than one reads
const HINT = "Point at a word, tap it, or use the arrow keys: the photo shows where the model looked. Escape shows it alone.";
const still = matchMedia("(prefers-reduced-motion: reduce)");

let site, captioner, paint; // once they are loaded
let starting = false;
let photo = null; // {bitmap, source, features, read, encoded}
let words = [], shown = null;
let turn = 0, arrivals = 0; // count the captions and the photos asked for: who finds a later one gives up

const seconds = milliseconds => milliseconds < 1000 ? `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`
  : `${(milliseconds / 1000).toFixed(1)} s`;
const megabytes = bytes => `${(bytes / MEGABYTE).toFixed(1)} MB`;
const percent = probability => `${Math.round(100 * probability)}%`;

// Errors are sentences, and the page goes on working

function complain(error) {
  const known = error instanceof CaptionError;
  if (!known) console.error(error);
  $("error").textContent = known ? error.message : `Something went wrong: ${error.message ?? error}`;
  $("error").hidden = false;
}

const attempt = action => async (...given) => {
  $("error").hidden = true;
  try {
    await action(...given);
  } catch (error) {
    complain(error);
  }
};

// Loading

async function start() {
  const began = performance.now();
  const opened = await openPage((got, all) => {
    $("progress").value = got / all;
    $("progress-text").textContent = `Loading: ${megabytes(got)} of ${megabytes(all)}`;
  });
  ({ site, captioner } = opened);
  paint = painter(site.palette);
  drawScale();
  const { format, recipe } = captioner.manifest;
  const { version, builds } = site.runtime, engine = { wasm: "WebAssembly", webgpu: "WebGPU" }[opened.build];
  $("model").textContent = `Model ${megabytes(site.modelBytes)} (${format} ${recipe}), engine `
    + `${megabytes(opened.bytes)} (onnxruntime-web ${version}, ${engine}); loaded in `
    + `${seconds(performance.now() - began)}. ${opened.notice ?? ""}`;
  $("loading").hidden = true;
  site.photos.forEach(addSample);
  document.documentElement.dataset.ready = "";
  if (photo) await caption();
  // Only now, so that the worker's copies of the files do not compete with the page's.
  const engines = Object.values(builds).flatMap(({ script, wasm }) => [script, wasm.file, wasm.packed]);
  const spared = engines.filter(file => !opened.used.includes(file)).join();
  await navigator.serviceWorker?.register(`worker.js?without=${spared}`).catch(() => {}); // without one the page works, but not offline
}

/** Starts; whoever then brings a photo to a page that could not has it try again. */
async function begin() {
  $("error").hidden = true;
  $("loading").hidden = false;
  starting = true;
  try {
    await start();
  } catch (error) {
    starting = false;
    $("loading").hidden = true;
    complain(error);
  }
}

function addSample(path) {
  const name = path.replace(/.*\//, "").replace(/\.\w+$/, "");
  const image = element("img", { src: path, alt: `Sample: ${name}`, width: 44, height: 44 });
  const button = element("button", { type: "button" }, image);
  button.addEventListener("click", attempt(async () => take(new Blob([await fetchBytes(path)], { type: "image/jpeg" }))));
  $("samples").append(button);
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A photo comes

async function take(blob) {
  const mine = ++arrivals, bitmap = await decoded(blob), jpeg = isJpeg(new Uint8Array(await blob.slice(0, 3).arrayBuffer()));
  if (mine !== arrivals) return bitmap.close();
  turn++;
  photo?.bitmap.close();
  photo = { bitmap, source: jpeg ? blob : bitmap };
  display(bitmap);
  if (captioner) await caption();
  else if (!starting) await begin();
  return undefined;
}

function display(bitmap) {
  const { width, height } = bitmap, scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  const side = length => Math.max(1, Math.round(length * scale)), aspect = width / height;
  Object.assign($("picture"), { width: side(width), height: side(height) });
  $("picture").getContext("2d").drawImage(bitmap, 0, 0, side(width), side(height));
  $("light").width = Math.max(8, Math.round(OVERLAY * Math.min(1, aspect)));
  $("light").height = Math.max(8, Math.round(OVERLAY * Math.min(1, 1 / aspect)));
  $("photo").style.setProperty("--aspect", aspect);
  $("picture").setAttribute("aria-label", "Your photo, not captioned yet");
  $("invitation").hidden = true;
  $("photo").hidden = false;
  clearWords();
}

// A caption comes

function chosenOptions() {
  const temperature = Number($("temperature").value), beams = Number($("beams").value);
  if (!temperature) return { beams };
  if (!$("seed").validity.valid || !$("seed").value) throw new CaptionError("The seed is a whole number from 0 up.");
  return { temperature, seed: Number($("seed").value) };
}

async function caption() {
  const options = chosenOptions(), mine = ++turn, one = photo;
  if (!one.features) {
    const began = performance.now(), pixels = await captioner.preprocess(one.source), read = performance.now();
    one.features = await captioner.encode(pixels);
    Object.assign(one, { read: read - began, encoded: performance.now() - read });
  }
  if (mine !== turn) return;
  clearWords();
  $("caption").hidden = $("options").hidden = false;
  const stream = captioner.streamFeatures(one.features, options);
  let taken = 0, result;
  for (;;) {
    const began = performance.now(), { done, value } = await stream.next();
    taken += performance.now() - began;
    if (mine !== turn) return;
    if (done) {
      result = value;
      break;
    }
    addWord(value);
    if (!still.matches) await new Promise(go => setTimeout(go, PACE));
    if (mine !== turn) return;
  }
  finish(result);
  $("timing").textContent = `Photo read in ${seconds(one.read)}, looked at in ${seconds(one.encoded)}, `
    + `${result.words.length} tokens in ${seconds(taken)}, ${seconds(taken / result.words.length)} each.`;
}

function clearWords() {
  $("words").replaceChildren();
  words = [];
  show(null);
  $("report").textContent = "";
  $("scale").style.visibility = "hidden";
}

function addWord(word) {
  const entry = { ...word, attention: word.attention, probability: Math.exp(word.log_probability) };
  entry.field = smooth(entry.attention, captioner.manifest.shape.feature_map, $("light").width, $("light").height);
  entry.input = element("input", { type: "radio", name: "word" });
  entry.end = word.token === captioner.vocabulary.end;
  const label = element("label", { className: entry.end ? "end" : "" }, entry.input,
    element("span", { className: "word", textContent: word.text }),
    element("span", { className: "chance", textContent: percent(entry.probability) }));
  label.style.setProperty("--probability", entry.probability);
  label.addEventListener("pointerenter", event => { if (event.pointerType === "mouse") show(entry); });
  label.addEventListener("pointerleave", () => show(chosen()));
  entry.input.addEventListener("focus", () => { entry.input.checked = true; show(entry); });
  entry.input.addEventListener("change", () => show(entry)); // a tap gives the focus in some browsers only
  words.push(entry);
  $("words").append(label);
}

function finish(result) {
  document.documentElement.dataset.caption = result.text;
  $("picture").setAttribute("aria-label", result.text);
  $("status").textContent = `Caption: ${result.text}`;
  const range = rangeOf(words.map(word => word.field), site.leastRange);
  for (const word of words) word.lights = word.field.map(share => light(share, range));
  const [low, high] = $("scale").querySelectorAll("span");
  low.textContent = `an even share ÷ ${range.toPrecision(2)}`;
  high.textContent = `× ${range.toPrecision(2)}`;
  $("scale").style.visibility = "";
  shown = null;
  show(chosen());
  if (!shown) $("report").textContent = HINT;
}

// A word shows where the model looked

const chosen = () => words.find(word => word.input.checked) ?? null;

function show(word) {
  if (word && !word.lights) return; // all words share one scale, which is known when the caption is whole
  if (word) paint($("light"), word.lights);
  $("photo").classList.toggle("lit", word !== null);
  if (word !== shown) $("report").replaceChildren(...word ? describe(word) : words.length ? [HINT] : []);
  shown = word;
}

function describe(word) {
  return [element("bdi", { textContent: word.text }),
    `, ${percent(word.probability)} likely, ${looked(word.field, $("light"))}`];
}

function showPhotoAlone() {
  const input = chosen()?.input;
  if (input) {
    input.checked = false;
    input.blur();
  }
  show(null);
}

function drawScale() {
  const bar = $("scale").querySelector("canvas");
  paint(bar, Array.from({ length: bar.width }, (_, i) => 2 * i / (bar.width - 1) - 1));
}

// What a visitor does

function describeOptions() {
  const temperature = Number($("temperature").value), beams = Number($("beams").value);
  $("temperature-value").textContent = temperature ? temperature.toFixed(1) : "0, greedy";
  $("beams-value").textContent = beams > 1 ? String(beams) : "1, no search";
  $("seed").disabled = $("another").disabled = !temperature;
}

const again = attempt(async () => {
  if (photo && captioner) await caption();
});

/** Beams and a temperature contradict each other: the one that was moved last counts. */
for (const [moved, other, off] of [["temperature", "beams", 1], ["beams", "temperature", 0]]) {
  $(moved).addEventListener("input", () => {
    if (Number($(moved).value) > Number($(moved).min)) $(other).value = off;
    describeOptions();
  });
  $(moved).addEventListener("change", again);
}
$("seed").addEventListener("change", again);
$("another").addEventListener("click", () => {
  $("seed").value = (Number($("seed").value) || 0) + 1;
  again();
});
$("options").addEventListener("submit", event => event.preventDefault());
$("caption").addEventListener("submit", event => event.preventDefault());

const takeFirst = attempt(async (files, lack) => {
  if (!files.length) throw new CaptionError(lack);
  await take(files[0]);
});
$("file").addEventListener("change", () => {
  if ($("file").files.length) takeFirst([...$("file").files]);
  $("file").value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", event =>
  takeFirst([...event.clipboardData.files], "What was pasted is not a photo: copy an image, not its address or a text."));
document.addEventListener("dragover", event => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", event => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  takeFirst([...event.dataTransfer.files], "What was dropped is not a file: save the photo first, then drop its file.");
});
$("camera").addEventListener("click", attempt(async () => {
  const frame = await openCamera($("viewfinder"));
  if (frame) await take(frame);
}));
$("photo").addEventListener("click", showPhotoAlone);
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && !$("viewfinder").open) showPhotoAlone();
});

describeOptions();
begin();
