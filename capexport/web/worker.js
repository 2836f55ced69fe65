// Keeps the page's files, so that it works offline after the first visit. `capexport web` fills in which they are.
const WITHOUT = new URL(location).searchParams.get("without") ?? ""; // files of an engine that this browser does not use
const CACHE = `capexport ${"{{version}}"} ${WITHOUT}`;
const FILES = "{{files}}".filter(file => !WITHOUT.split(",").includes(file));

self.addEventListener("install", event => event.waitUntil(caches.open(CACHE).then(cache => cache.addAll(FILES))));

self.addEventListener("activate", event => event.waitUntil(caches.keys().then(names =>
  Promise.all(names.filter(name => name.startsWith("capexport ") && name !== CACHE).map(name => caches.delete(name))))));

self.addEventListener("fetch", event => event.respondWith(answer(event.request)));

/** What was kept, unless that is no good and it is to be had anew, and then kept. */
async function answer(request) {
  const cache = await caches.open(CACHE), kept = await cache.match(request, { ignoreSearch: true });
  if (request.cache !== "reload") return kept ?? fetch(request);
  const response = await fetch(request);
  if (kept && response.ok) await cache.put(request, response.clone());
  return response;
}
