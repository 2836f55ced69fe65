"""How the page of `capexport web` comes to a browser: whole, packed, offline, and with the check that it holds."""

import json
import os
import shutil

import pytest

from capexport.cli.main import main
from capexport.web.page import write_page
from capexport.web.serve import Handler
from tests.browser import By, WebDriverWait, start_browser
from tests.javascript import RUNTIME, needs_runtime
from tests.page.pages import READY, SECONDS, Site, choose, complaint

pytestmark = needs_runtime
NEAR = 1e-3  # of log-probabilities
ADAPTER = "Promise.resolve(navigator.gpu?.requestAdapter()).then(found => arguments[0](Boolean(found)))"


@pytest.mark.parametrize("name", ["bundle/decoder.onnx", "runtime/ort-wasm-simd-threaded.wasm.gz"])
def test_a_file_with_a_changed_byte(name, visit, folder, tmp_path, lossless, python):
    """The page says so, and captions once the file is mended."""
    shutil.copytree(folder, tmp_path / "page")
    path = tmp_path / "page" / name
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    damaged = Site(tmp_path / "page")
    browser = visit(damaged.url, ready=False)
    complaint(browser, f"{name.removeprefix('bundle/')} is damaged")
    browser.find_element(By.ID, "file").send_keys(str(lossless[0]))
    WebDriverWait(browser, SECONDS).until(lambda driver: driver.find_element(By.ID, "photo").is_displayed())
    complaint(browser, f"{name.removeprefix('bundle/')} is damaged")
    changed = path.stat().st_mtime
    data[1000] ^= 1
    path.write_bytes(data)
    os.utime(path, (changed, changed))  # the server would say that what the browser has is still good
    assert choose(browser, lossless[0]) == python.caption(lossless[0]).text
    damaged.close()


class Unpacking(Handler):
    """Says of packed files that the browser is to unpack them, as some servers do."""

    def end_headers(self):
        if self.path.endswith(".gz"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()


def test_a_server_that_has_the_browser_unpack(visit, folder, lossless, python):
    unpacking = Site(folder, Unpacking)
    assert choose(visit(unpacking.url), lossless[0]) == python.caption(lossless[0]).text
    unpacking.close()


def test_a_browser_that_unpacks_nothing(visit, browser, lossless, python):
    script = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete globalThis.DecompressionStream;"}
    )
    assert choose(visit(), lossless[0]) == python.caption(lossless[0]).text
    assert "14.2 MB" in browser.find_element(By.ID, "model").text
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_browser_without_simd(visit, browser):
    script = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "WebAssembly.validate = () => false;"}
    )
    complaint(visit(ready=False), "no WebAssembly with SIMD")
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_offline_after_the_first_visit(visit, site, lossless, python):
    browser = visit()
    script = "const done = arguments[0]; navigator.serviceWorker.ready.then(() => done(true))"
    assert browser.execute_async_script(script)
    site.close()
    browser = visit()
    assert choose(browser, lossless[1]) == python.caption(lossless[1]).text


def test_a_file_that_was_damaged_where_it_is_kept(visit, lossless, python):
    """Is fetched anew, and kept."""
    browser = visit()
    damage = """
        const done = arguments[0];
        const replace = async () => {
            const [name] = await caches.keys(), cache = await caches.open(name);
            const [request] = (await cache.keys()).filter(({ url }) => url.endsWith("decoder.onnx"));
            const bytes = new Uint8Array(await (await cache.match(request)).arrayBuffer());
            bytes[1000] ^= 1;
            await cache.put(request, new Response(bytes));
        };
        replace().then(() => done("replaced"), done);
    """
    kept = """
        const done = arguments[0];
        const first = async () => (await (await caches.match("bundle/decoder.onnx")).arrayBuffer()).slice(1000, 1001);
        first().then(buffer => done(new Uint8Array(buffer)[0]));
    """
    browser.execute_async_script("const [done] = arguments; navigator.serviceWorker.ready.then(() => done())")
    byte = browser.execute_async_script(kept)
    assert browser.execute_async_script(damage) == "replaced"
    assert browser.execute_async_script(kept) == byte ^ 1
    browser = visit()
    assert choose(browser, lossless[1]) == python.caption(lossless[1]).text
    assert browser.execute_async_script(kept) == byte


def test_parity_in_the_browser(visit, site):
    """On its own page; photos of files that a decoder of ours reads have Python's pixels."""
    browser = visit(f"{site.url}parity.html", ready=False)
    text = WebDriverWait(browser, SECONDS).until(
        lambda driver: "holds" in (text := driver.find_element(By.ID, "result").text) and text
    )
    assert text.count("same words, same pixels, ") == 3
    assert text.endswith(": it holds")


def test_verify_in_a_browser(tiny_bundles, capsys):
    arguments = ["verify", str(tiny_bundles["onnx", "fp32"].directory), "--runtime", str(RUNTIME)]
    assert main([*arguments, "--browser", "--json"]) == 0
    checks = {check["name"]: check["found"] for check in json.loads(capsys.readouterr().out)["checks"]}
    for where in ("Node", "chromium"):
        assert checks[f"{where}: identical captions"] == "3 of 3"
        assert checks[f"{where}: pixels"] == "3 photos' files: pixels differ by 0 at most"
        assert float(checks[f"{where}: largest error of a log-probability"]) < NEAR
        assert checks[f"{where}: most attended cell the same"] == "100.0%"
    assert main([*arguments, "--browser", "no-such-browser"]) == 2
    assert "There is no browser no-such-browser" in capsys.readouterr().err


def test_without_a_gpu_the_page_says_so_and_works(visit, tiny_bundles, tmp_path, lossless, python):
    write_page(tiny_bundles["onnx", "fp32"], tmp_path / "page", RUNTIME, webgpu=True)
    served = Site(tmp_path / "page")
    browser = visit(served.url)
    assert choose(browser, lossless[0]) == python.caption(lossless[0]).text
    assert "WebAssembly" in browser.find_element(By.ID, "model").text
    assert "WebGPU is not used: " in browser.find_element(By.ID, "model").text
    assert all("adapter" in entry["message"] for entry in browser.get_log("browser"))  # of which Chromium itself warns
    served.close()


@pytest.fixture(scope="module")
def with_adapter(tmp_path_factory):
    """A browser that offers WebGPU in software."""
    flags = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    driver = start_browser(tmp_path_factory.mktemp("adapter"), *flags)
    yield driver
    driver.quit()


@pytest.mark.parametrize("decodes", [True, False])
def test_with_webgpu_the_words_are_the_same(decodes, with_adapter, tiny_bundles, tmp_path, lossless, python):
    """Where the first step fails, though the photo was encoded, WebAssembly takes over."""
    folder = tmp_path / "page"
    write_page(tiny_bundles["onnx", "fp32"], folder, RUNTIME, webgpu=True)
    if not decodes:
        script = (folder / "captioner.js").read_text()
        start = "  step(tokens, position, features, cache) {\n"
        assert start in script
        refusal = '    if (!globalThis.refused) { globalThis.refused = true; throw new Error("no Attention"); }\n'
        (folder / "captioner.js").write_text(script.replace(start, start + refusal))
    served = Site(folder)
    with_adapter.get(f"{served.url}?engine=webgpu")
    WebDriverWait(with_adapter, SECONDS).until(lambda driver: driver.execute_script(READY))
    if not with_adapter.execute_async_script(ADAPTER):
        pytest.skip("this Chromium has no WebGPU in software")
    said = with_adapter.find_element(By.ID, "model").text
    assert ("WebGPU)" in said) == decodes
    assert ("WebGPU is not used: no Attention" in said) == (not decodes)
    assert choose(with_adapter, lossless[0]) == python.caption(lossless[0]).text
    served.close()
