"""A served page of `capexport web`, and what a test does to it in a browser."""

import threading

from capexport.web.serve import Handler, page_server
from tests.browser import By, WebDriverWait

SECONDS = 30
READY = "return 'ready' in document.documentElement.dataset"


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
