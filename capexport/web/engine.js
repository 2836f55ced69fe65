/** onnxruntime-web as a page's site.json names it. */

import { FRESH, checkedFile, fetchBytes } from "./bundle.js";
import { load } from "./captioner.js";
import { CaptionError } from "./errors.js";

const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11];

/**
 * The page's captioner: {captioner, site, build, notice, used, bytes}: build is "wasm" or "webgpu", notice, or null, says
 * why WebGPU is not used though the page has it, used are the engine's files, and bytes what its WebAssembly took to load.
 *
 * progress  called with the bytes that were loaded and those that there are
 *
 * Throws CaptionError as `load` does, and for a browser without WebAssembly's SIMD.
 */
export async function openPage(progress = () => {}) {
  if (!globalThis.WebAssembly?.validate(Uint8Array.from(SIMD))) {
    throw new CaptionError("This browser has no WebAssembly with SIMD, which the model needs: try a newer one.");
  }
  const site = JSON.parse(new TextDecoder().decode(await fetchBytes("site.json", () => {}, FRESH)));
  if (!site.runtime.builds.webgpu) return { ...await open(site, "wasm", progress), notice: null };
  const lack = await lackOfWebGpu();
  if (lack) return { ...await open(site, "wasm", progress), notice: `WebGPU is not used: ${lack}.` };
  try {
    const opened = await open(site, "webgpu", progress);
    await tryOut(opened.captioner);
    return { ...opened, notice: null };
  } catch (error) {
    return { ...await open(site, "wasm", progress), notice: `WebGPU is not used: ${error.message}` };
  }
}

/** Two words of a black photo: some adapters, and engines that lack an operator, fail only when graphs run. */
async function tryOut(captioner) {
  const { size: [height, width] } = captioner.manifest.preprocessing;
  const words = captioner.streamFeatures(await captioner.encode(new Uint8Array(height * width * 3)), { max_length: 2 });
  while (!(await words.next()).done);
}

/** Why there is no WebGPU to use; null if there is. Software is slower than WebAssembly, and used with ?engine=webgpu alone. */
async function lackOfWebGpu() {
  if (!globalThis.navigator?.gpu) return "this browser has none, or not on a page without https";
  try {
    const adapter = await navigator.gpu.requestAdapter(), asked = new URL(location).searchParams.get("engine") === "webgpu";
    if (!adapter) return "the browser offers no adapter";
    return adapter.info.isFallbackAdapter && !asked ? "the browser's adapter is no GPU but software" : null;
  } catch (error) {
    return error.message;
  }
}

async function open(site, build, progress) {
  const { script, wasm: file } = site.runtime.builds[build];
  const [name, size] = globalThis.DecompressionStream ? [file.packed, file.packedBytes] : [file.file, file.bytes];
  const parts = [[0, size], [0, site.modelBytes]];
  const of = part => (loaded, total) => {
    parts[part] = [loaded, total];
    progress(parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]);
  };
  const read = async options => unpacked(await fetchBytes(name, count => of(0)(Math.min(count, size), size), options));
  const [ort, wasm] = await Promise.all([import(`./${script}`), checkedFile(name, file, read)]);
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: wasm.buffer });
  ort.env.logLevel = "error"; // that an operator is left to the processor is no news
  const captioner = await load("bundle/", ort, { progress: of(1), providers: [build] });
  return { site, build, captioner, used: [script, name], bytes: size };
}

/** The bytes, unpacked if they are packed still, for some servers have the browser unpack them; null if they cannot be. */
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer().then(buffer => new Uint8Array(buffer), () => null);
}
