"""What the page of `capexport web` does with photos: Python's words and pixels, attention, keys, errors, the camera."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from capexport.image import load_image
from capexport.shipped import sample_photos
from tests.browser import ActionChains, By, Keys, WebDriverWait
from tests.javascript import needs_runtime
from tests.page.pages import SECONDS, captioned, choose, complaint, emulate

pytestmark = needs_runtime
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
