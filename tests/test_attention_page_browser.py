"""The page of attention in a browser: what pointing, keys and choices show, and that no request leaves it."""

import base64
import io
import json
import socket

import numpy as np
import pytest
from PIL import Image

from capexport.attention_page import write_attention_page
from capexport.heat import PALETTE, light, light_range, shares
from tests.browser import ActionChains, By, Keys, Select, start_browser
from tests.conftest import made_caption

CAPTION = made_caption(["a", "dog", "runs", "[END]"], (3, 2, 6, 9))
HOSTILE = [
    "</script><script>hacked=1</script>",
    "<img/src=x/onerror=hacked=1>",
    "\"'&quot;",
    "{{data}}",
    "كلب",
    "[END]",
]
SIZE = (320, 240)
LEFT = "return [...document.querySelectorAll('.words label')].map(label => label.getBoundingClientRect().left)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = start_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a caption's page, animations off; afterwards: no error was logged, and nothing but the file was loaded."""

    def opened(caption=CAPTION, width=1200, motion="reduce", **options):
        path = tmp_path / "page.html"
        write_attention_page(Image.new("RGB", SIZE, "grey"), caption, path, force=True, **options)
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-reduced-motion", "value": motion}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get("about:blank")  # the mouse lets go of the page before
        ActionChains(browser).move_by_offset(0, 0).perform()
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(path.as_uri())
        return browser

    yield opened
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert (tmp_path / "page.html").as_uri() in asked
    assert all(url.startswith(("file:", "data:")) for url in asked)


def labels(browser):
    return browser.find_elements(By.CSS_SELECTOR, ".words label")


def overlay(browser) -> np.ndarray | None:
    """The light over the photo, RGBA (h, w, 4); None where the photo is shown alone."""
    script = """
        const canvas = document.querySelector("#photo canvas");
        return getComputedStyle(canvas).opacity === "0" ? null : canvas.toDataURL().split(",")[1];
    """
    png = browser.execute_script(script)
    return png and np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def expected(caption, word: int, size: tuple[int, int], **which) -> np.ndarray:
    fields = shares(caption.attention_of(**which), size)
    lights = light(fields[word], light_range(fields))
    stops, *colour, cover = np.transpose(PALETTE)
    return np.stack([np.interp(lights, stops, values) for values in (*colour, 255 * cover)], axis=-1)


def check_shown(browser, caption, word: int, **which) -> None:
    found = overlay(browser)
    assert found is not None
    # One of 256 lights is at most 3 shades of a colour; the canvas keeps colours multiplied by their cover: 1 more.
    np.testing.assert_allclose(found, expected(caption, word, found.shape[:2], **which), atol=4)


def test_pointing_at_a_word_shows_its_attention(show):
    browser = show()
    assert [label.text.split() for label in labels(browser)] == [
        [word, f"{np.exp(value):.0%}"] for word, value in zip(CAPTION.words, CAPTION.log_probabilities, strict=True)
    ]
    assert overlay(browser) is None
    before = browser.get_screenshot_as_png()
    for word in (1, 2):
        ActionChains(browser).move_to_element(labels(browser)[word]).perform()
        check_shown(browser, CAPTION, word)
    assert browser.get_screenshot_as_png() != before
    ActionChains(browser).move_to_element(browser.find_element(By.TAG_NAME, "h1")).perform()
    assert overlay(browser) is None


def test_a_click_keeps_a_word_and_a_click_on_the_photo_lets_it_go(show):
    browser = show()
    labels(browser)[1].click()
    ActionChains(browser).move_to_element(labels(browser)[3]).perform()
    check_shown(browser, CAPTION, 3)
    ActionChains(browser).move_to_element(browser.find_element(By.TAG_NAME, "h1")).perform()
    check_shown(browser, CAPTION, 1)
    browser.find_element(By.ID, "photo").click()
    assert overlay(browser) is None


def test_the_keyboard_is_enough(show):
    browser = show(layer=2)
    for keys, word in ((Keys.TAB, 0), (Keys.ARROW_RIGHT, 1), (Keys.ARROW_DOWN, 2), (Keys.ARROW_LEFT, 1)):
        ActionChains(browser).send_keys(keys).perform()
        check_shown(browser, CAPTION, word, layer=2)
        assert browser.find_element(By.ID, "report").text.startswith(f"{CAPTION.words[word]}, ")
    outline = "return getComputedStyle(document.activeElement.parentElement).outlineStyle"
    assert browser.execute_script(outline) == "solid"
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert overlay(browser) is None
    assert browser.execute_script("return document.activeElement === document.body")


def test_layers_and_heads(show):
    browser = show(layer=1, head=0)
    labels(browser)[2].click()
    check_shown(browser, CAPTION, 2, layer=1, head=0)
    layer, head = (Select(browser.find_element(By.ID, kind)) for kind in ("layer", "head"))
    assert [[option.text for option in select.options] for select in (layer, head)] == [
        ["mean of 3", "0", "1", "2"],
        ["mean of 2", "0", "1"],
    ]
    head.select_by_visible_text("mean of 2")
    check_shown(browser, CAPTION, 2, layer=1)
    layer.select_by_visible_text("mean of 3")
    check_shown(browser, CAPTION, 2)
    head.select_by_visible_text("1")
    check_shown(browser, CAPTION, 2, head=1)


def test_one_layer_and_head_are_no_choice(show):
    browser = show(made_caption(["a"], (1, 1, 7, 7)))
    assert not browser.find_element(By.ID, "layer").is_displayed()
    assert not browser.find_element(By.ID, "head").is_displayed()


def test_the_light_glides_unless_motion_is_unwanted(show):
    browser = show(motion="no-preference")
    script = """
        const [first, second] = document.querySelectorAll(".words input"), done = arguments[0];
        const canvas = document.querySelector("#photo canvas"), seen = new Set();
        first.click();
        second.click();
        const look = () => {
            seen.add(canvas.toDataURL());
            if (performance.now() < end) requestAnimationFrame(look); else done(seen.size);
        };
        const end = performance.now() + 600;
        look();
    """
    assert browser.execute_async_script(script) > 3
    check_shown(browser, CAPTION, 1)
    browser = show()
    assert browser.execute_async_script(script) == 1
    check_shown(browser, CAPTION, 1)


def test_hostile_words_are_text(show):
    browser = show(made_caption(HOSTILE))
    assert [label.find_element(By.CLASS_NAME, "word").text for label in labels(browser)] == HOSTILE
    labels(browser)[1].click()
    assert browser.find_element(By.ID, "report").text.startswith(HOSTILE[1])
    assert browser.execute_script("return window.hacked") is None
    assert len(browser.find_elements(By.TAG_NAME, "img")) == 1


def test_words_run_in_their_own_direction(show):
    left = show(made_caption(["כלב", "רץ", "[END]"])).execute_script(LEFT)
    assert left == sorted(left, reverse=True)
    left = show(made_caption(["dog", "runs", "[END]"])).execute_script(LEFT)
    assert left == sorted(left)


@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_it_fits_every_screen(show, width):
    browser = show(made_caption(["skateboarding"] * 48 + ["x" * 90, "[END]"]), width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    photo, (*_, last) = browser.find_element(By.ID, "photo"), labels(browser)
    assert photo.size["width"] / photo.size["height"] == pytest.approx(SIZE[0] / SIZE[1], rel=0.02)
    ActionChains(browser).send_keys(Keys.TAB, *[Keys.ARROW_RIGHT] * 49).perform()
    in_sight = """
        const { left, top, width, height } = arguments[0].getBoundingClientRect();
        return arguments[0].contains(document.elementFromPoint(left + width / 2, top + height / 2));
    """
    assert browser.execute_script(in_sight, photo)  # while the last word has the focus
    assert browser.execute_script(in_sight, last)
    assert browser.execute_script("return arguments[0].contains(document.activeElement)", last)


def test_the_policy_holds_back_a_request(show):
    script = """
        const done = arguments[1];
        document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
        fetch(arguments[0]).then(() => done("it went through"), () => {});
    """
    browser = show()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert browser.execute_async_script(script, url) == "connect-src"
        with pytest.raises(TimeoutError):
            server.accept()
    logged = browser.get_log("browser")
    assert logged
    assert all("Content Security Policy" in entry["message"] for entry in logged)
