"""The tiny captioner's page, a browser that visits it, and Python's captioner beside it."""

import json

import pytest
from PIL import Image

import capexport
from capexport.web.page import write_page
from tests.browser import WebDriverWait, start_browser
from tests.javascript import RUNTIME
from tests.page.pages import READY, SECONDS, Site, emulate


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
