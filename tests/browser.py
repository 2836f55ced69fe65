"""A browser that tests drive. Importing this skips a module of tests, with the reason, where there is none."""

import shutil
from pathlib import Path

import pytest

NEEDS = "needs selenium (pip install 'capexport[dev]'), Chromium and chromedriver (apt-get install chromium-driver)"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")

selenium = pytest.importorskip("selenium", reason=NEEDS)
if not (CHROMIUM and CHROMEDRIVER):
    pytest.skip(NEEDS, allow_module_level=True)

from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

__all__ = ["ActionChains", "By", "Keys", "Select", "WebDriverWait", "start_browser"]

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)


def start_browser(profile: Path, *flags: str) -> Chrome:
    """Chromium with these flags, too; it logs what the console says and what is requested. Quit it in the end."""
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options=options, service=Service(CHROMEDRIVER))
