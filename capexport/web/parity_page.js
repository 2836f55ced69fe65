/** parity.html: checkParity in this browser; with ?report, its result goes to the server, which `verify` reads. */

import { fetchBytes } from "./bundle.js";
import { openPage } from "./engine.js";
import { checkParity, described } from "./parity.js";

const $ = id => document.getElementById(id);
const report = result => new URL(location).searchParams.has("report")
  && fetch("report", { method: "POST", body: JSON.stringify(result) });

async function check() {
  const { captioner, site, build, notice } = await openPage();
  const parity = JSON.parse(new TextDecoder().decode(await fetchBytes("parity.json")));
  const photo = name => site.photos.includes(`photos/${name}`) ? fetchBytes(`photos/${name}`) : null;
  const result = await checkParity(captioner, parity, photo);
  $("result").textContent = [notice, described(result)].filter(Boolean).join("\n");
  await report({ ...result, build, notice, agent: navigator.userAgent });
}

check().catch(async error => {
  $("result").hidden = true;
  $("error").hidden = false;
  $("error").textContent = error.message;
  await report({ error: error.message });
});
