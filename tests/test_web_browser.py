"""The page of `capexport web` in a browser: words as in Python, attention, keys, errors, offline, nothing sent."""

import base64
import io
import json
import os
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

import capexport
from capexport.cli.main import main
from capexport.image import load_image
from capexport.shipped import sample_photos
from capexport.web.page import write_page
from capexport.web.serve import Handler, page_server
from tests.browser import ActionChains, By, Keys, WebDriverWait, start_browser
from tests.javascript import RUNTIME, needs_runtime

pytestmark = needs_runtime
SECONDS = 30
NEAR = 1e-3  # of log-probabilities
READY = "return 'ready' in document.documentElement.dataset"
WORDS = "return [...document.querySelectorAll('#words .word')].map(word => word.textContent)"
SET = """
    const control = document.getElementById(arguments[0]);
    delete document.documentElement.dataset.caption;
    control.value = arguments[1];
    for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind));
"""
DROP = """
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(arguments[0])], arguments[1], { type: arguments[2] }));
    const event = arguments[3] === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
        : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
"""
CUT = next(iter(sample_photos())).read_bytes()[:20_000]
LIGHT = "return document.getElementById('light').toDataURL().split(',')[1]"


class Site:
    """A served folder of a page, which can go away."""

    def __init__(self, folder, handler=Handler):
        self.folder = folder
        self.server = page_server(folder, handler=handler)
        self.url = f"http://localhost:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = start_browser(tmp_path_factory.mktemp("profile"), "--use-fake-device-for-media-stream")
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def folder(tiny_bundles, tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "page"
    write_page(tiny_bundles["onnx", "fp32"], out, RUNTIME)
    return out


@pytest.fixture
def site(folder):
    served = Site(folder)
    yield served
    served.close()


@pytest.fixture
def visit(browser, site):
    """Opens the page, which must have logged nothing in the end and asked nobody but its own server."""

    def visited(url=None, ready=True):
        browser.get(url or site.url)
        if ready:
            WebDriverWait(browser, SECONDS).until(lambda driver: driver.execute_script(READY))
        return browser

    emulate(browser, 1200)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    yield visited
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert asked
    assert all(url.startswith(("http://localhost:", "data:", "about:")) for url in asked), asked


def emulate(browser, width, motion="reduce"):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-reduced-motion", "value": motion}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def captioned(browser) -> str:
    script = "return document.documentElement.dataset.caption"
    return WebDriverWait(browser, SECONDS).until(lambda driver: driver.execute_script(script))


def choose(browser, path) -> str:
    browser.execute_script("delete document.documentElement.dataset.caption")
    browser.find_element(By.ID, "file").send_keys(str(path))
    return captioned(browser)


def complaint(browser, part) -> str:
    def found(driver):
        text = driver.find_element(By.ID, "error").text
        return text if part in text else None

    return WebDriverWait(browser, SECONDS).until(found, f"no complaint with {part!r}")


@pytest.fixture(scope="module")
def lossless(photos, tmp_path_factory):
    """The sample photos as PNG files, which every decoder reads alike."""
    out = tmp_path_factory.mktemp("lossless")
    for photo in photos:
        Image.open(photo).convert("RGB").save(out / f"{photo.stem}.png")
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def python(tiny_bundles):
    return capexport.load(tiny_bundles["onnx", "fp32"])


def test_photos_are_captioned_as_in_python(visit, lossless, python):
    browser = visit()
    for path in lossless[:4]:
        expected = python.caption(path)
        assert choose(browser, path) == expected.text
        assert browser.execute_script(WORDS) == list(expected.words)
        assert browser.find_element(By.ID, "picture").get_attribute("aria-label") == expected.text
        assert browser.find_element(By.ID, "status").get_attribute("textContent") == f"Caption: {expected.text}"
    assert "tokens in" in browser.find_element(By.ID, "timing").text
    assert "MB" in browser.find_element(By.ID, "model").text


def test_transparent_and_turned_photos(visit, python, tmp_path, photos):
    browser, image = visit(), Image.open(photos[0]).convert("RGB")
    cover = np.where(np.arange(image.width) < image.width // 2, 255, 0).astype(np.uint8)
    image.putalpha(Image.fromarray(np.tile(cover, (image.height, 1))))
    image.save(tmp_path / "transparent.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.convert("RGB").save(tmp_path / "turned.png", exif=exif)
    for name in ("transparent.png", "turned.png"):
        assert choose(browser, tmp_path / name) == python.caption(tmp_path / name).text


def test_pixels_of_files_are_pythons(visit, photos, tmp_path):
    """To the last bit: of JPEG files, of a PNG file that is decoded in several bands and of a tall one."""
    rng, script = (
        np.random.default_rng(0),
        """
        const [data, done] = arguments;
        (async () => {
            const { preprocess } = await import("./image.js");
            const bytes = Uint8Array.from(atob(data), sign => sign.charCodeAt(0));
            done(Array.from(await preprocess(new Blob([bytes]), [64, 64])));
        })().catch(error => done(String(error)));
    """,
    )
    for name, (width, height) in {"large.png": (2304, 2048), "tall.png": (40, 300)}.items():
        noise = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
        noise.resize((width, height)).save(tmp_path / name, compress_level=1)
    browser = visit()
    for path in (tmp_path / "large.png", tmp_path / "tall.png", photos[0], photos[3]):
        found = browser.execute_async_script(script, base64.b64encode(path.read_bytes()).decode())
        np.testing.assert_array_equal(np.array(found).reshape(64, 64, 3), load_image(path, (64, 64)))


def test_jpeg_files_are_captioned_as_in_python(visit, photos, python):
    browser = visit()
    for photo in photos:
        assert choose(browser, photo) == python.caption(photo).text


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_photos_that_are_dropped_or_pasted(visit, lossless, python, way):
    browser = visit()
    browser.execute_script(DROP, list(lossless[1].read_bytes()), "photo.png", "image/png", way)
    assert captioned(browser) == python.caption(lossless[1]).text


def test_samples_are_a_click_away(visit):
    browser = visit()
    samples = browser.find_elements(By.CSS_SELECTOR, "#samples button")
    assert len(samples) == 6
    samples[2].click()
    assert captioned(browser)


def test_controls(visit, lossless, python):
    browser = visit()
    choose(browser, lossless[0])
    for name, value, options in (
        ("beams", 4, {"beams": 4}),
        ("temperature", 1.5, {"temperature": 1.5, "seed": 1}),
        ("seed", 77, {"temperature": 1.5, "seed": 77}),
        ("beams", 2, {"beams": 2}),
    ):
        browser.execute_script(SET, name, value)
        assert captioned(browser) == python.caption(lossless[0], **options).text


def test_a_word_shows_where_the_model_looked(visit, lossless, python):
    browser = visit()
    choose(browser, lossless[3])
    maps = python.caption(lossless[3]).attention
    for word, label in enumerate(browser.find_elements(By.CSS_SELECTOR, "#words label")):
        ActionChains(browser).move_to_element(label).perform()
        assert "lit" in browser.find_element(By.ID, "photo").get_attribute("class")
        row, column = np.unravel_index(maps[word].argmax(), maps.shape[1:])
        lights = np.asarray(Image.open(io.BytesIO(base64.b64decode(browser.execute_script(LIGHT)))), float)  # (H, W, 4)
        places = np.unravel_index(lights[..., :2].sum(axis=-1).argmax(), lights.shape[:2])  # the brighter, the more
        found = [n * cells // length for n, cells, length in zip(places, maps.shape[1:], lights.shape, strict=False)]
        # The lights are smooth: between cells that are nearly alike, the brightest place is on either side.
        assert maps[word][found[0], found[1]] >= 0.9 * maps[word][row, column]
    ActionChains(browser).move_to_element(browser.find_element(By.TAG_NAME, "h1")).perform()
    assert browser.find_element(By.ID, "photo").get_attribute("class") == ""


def test_the_keyboard_is_enough(visit):
    browser = visit()
    for _ in range(12):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.execute_script("return document.activeElement.closest('#samples') !== null"):
            break
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    captioned(browser)
    browser.execute_script("document.activeElement.blur(); document.getElementById('stage').scrollIntoView()")
    ActionChains(browser).send_keys(Keys.TAB).perform()
    words = browser.execute_script(WORDS)
    for word in words[:3]:
        assert browser.find_element(By.ID, "report").text.startswith(f"{word}, ")
        ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert browser.find_element(By.ID, "photo").get_attribute("class") == ""


def test_words_come_one_by_one(visit, browser, lossless):
    emulate(browser, 1200, motion="no-preference")
    visit()
    browser.execute_script("""
        window.counts = new Set();
        new MutationObserver(() => window.counts.add(document.querySelectorAll("#words label").length))
            .observe(document.getElementById("words"), { childList: true });
    """)
    text = choose(browser, lossless[0])
    seen = browser.execute_script("return [...window.counts]")
    assert {*range(1, len(text.split()) + 1)} <= {*seen}


@pytest.mark.parametrize(
    ("data", "name", "kind", "part"),
    [
        (b"%PDF-1.4", "paper.pdf", "application/pdf", "paper.pdf cannot be read as a photo: it is application/pdf"),
        (b"\xff\xd8\xff\xe0 no more", "broken.jpg", "image/jpeg", "broken.jpg cannot be read as a photo: it is broken"),
        (None, "small.png", "image/png", "too small to caption: 5x5 pixels"),
        (CUT, "cut.jpg", "image/jpeg", "cut.jpg cannot be read as a photo: it is broken"),
    ],
)
def test_what_is_no_photo_is_a_sentence_and_the_page_goes_on(visit, lossless, python, data, name, kind, part):
    browser = visit()
    if data is None:
        stream = io.BytesIO()
        Image.new("RGB", (5, 5)).save(stream, "PNG")
        data = stream.getvalue()
    browser.execute_script(DROP, list(data), name, kind, "drop")
    complaint(browser, part)
    assert choose(browser, lossless[0]) == python.caption(lossless[0]).text
    assert not browser.find_element(By.ID, "error").is_displayed()


def test_the_camera(visit, site):
    browser = visit()

    def permit(setting):
        permission = {"permission": {"name": "camera"}, "setting": setting, "origin": site.url}
        browser.execute_cdp_cmd("Browser.setPermission", permission)

    permit("denied")
    browser.find_element(By.ID, "camera").click()
    complaint(browser, "The camera may not be used: allow it")
    permit("granted")
    browser.find_element(By.ID, "camera").click()
    playing = "return document.getElementById('video').videoWidth > 0"
    WebDriverWait(browser, SECONDS).until(lambda driver: driver.execute_script(playing))
    browser.find_element(By.ID, "shoot").click()
    assert captioned(browser)
    assert browser.execute_script("return document.getElementById('video').srcObject") is None


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


@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_it_fits_every_screen(visit, browser, lossless, width):
    emulate(browser, width)
    visit()
    choose(browser, lossless[2])
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    script = """
        return [...document.querySelectorAll(".button, #samples button, #words label")]
            .filter(one => one.offsetParent).map(one => one.getBoundingClientRect())
            .every(({ width, height }) => width >= 40 && height >= 40);
    """
    assert browser.execute_script(script)  # large enough for a finger
