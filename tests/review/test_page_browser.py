"""The review in a browser: what a person sees and does there is what the file says afterwards."""

import json

import pytest

from capexport.review.server import PAGE
from tests.browser import ActionChains, By, Keys, WebDriverWait, start_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = start_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, server):
    """Opens the review; afterwards: no error was logged, and nobody but the server was asked."""

    def opened(width=1200):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get("about:blank")
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(server.url)
        wait(browser, lambda _: len(cards(browser)) == PAGE)
        return browser

    yield opened
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert server.url in asked
    assert all(url.startswith((f"http://127.0.0.1:{server.server_port}/", "data:")) for url in asked)


def wait(browser, until):
    return WebDriverWait(browser, 60).until(until)


def cards(browser):
    return browser.find_elements(By.CSS_SELECTOR, ".card")


def press(card, text):
    next(button for button in card.find_elements(By.CSS_SELECTOR, ".acts button") if button.text == text).click()


def states(server):
    return {state: count for state, count in server.captions.counts().items() if count}


def test_a_person_looks_through_captions(show, server):
    browser = show()
    numbers = server.captions.find("open", "doubtful", None, 5)
    first, second, third, fourth, fifth = cards(browser)[:5]
    assert server.captions.row(numbers[0])["text"].split() == first.find_element(By.CLASS_NAME, "words").text.split()
    press(first, "Accept")
    wait(browser, lambda _: server.captions.state(numbers[0]) == "accepted")
    wait(browser, lambda _: browser.switch_to.active_element == second)
    press(second, "Leave empty")
    wait(browser, lambda _: server.captions.state(numbers[1]) == "emptied")
    press(third, "Edit")
    ActionChains(browser).send_keys("a red  wall", Keys.ENTER).perform()
    wait(browser, lambda _: server.captions.row(numbers[2])["text"] == "a red wall")
    wait(browser, lambda _: browser.switch_to.active_element == fourth)
    ActionChains(browser).send_keys(Keys.ENTER).perform()  # accepts
    wait(browser, lambda _: browser.switch_to.active_element == fifth)
    ActionChains(browser).send_keys("x").perform()
    wait(browser, lambda _: states(server) == {"open": 23, "accepted": 2, "edited": 1, "emptied": 2, "unreadable": 2})
    wait(browser, lambda _: "5 of 28 looked through" in browser.find_element(By.ID, "tally").text)
    press(first, "Undo")
    wait(browser, lambda _: server.captions.state(numbers[0]) == "open")
    for label, count in (("Edited", 1), ("Unreadable", 2), ("Left empty", 2), ("All", PAGE)):
        next(one for one in browser.find_elements(By.CSS_SELECTOR, "#states label") if label in one.text).click()
        wait(browser, lambda _, count=count: len(cards(browser)) == count)
    browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    wait(browser, lambda _: len(cards(browser)) == 30)


def test_pointing_at_a_word_lights_the_photo(show):
    browser = show()
    [photo, *_], [one, other, *_] = (
        browser.find_elements(By.CSS_SELECTOR, selector) for selector in (".photo", ".card:first-child .words button")
    )
    light = photo.find_element(By.CLASS_NAME, "light")
    seen = set()
    for word in (one, other):
        ActionChains(browser).move_to_element(word).perform()
        wait(browser, lambda _: "lit" in photo.get_attribute("class") and light.get_property("naturalWidth"))
        wait(browser, lambda _, word=word: word.get_attribute("aria-pressed") == "true")
        wait(browser, lambda _: light.get_attribute("src") not in seen)
        seen.add(light.get_attribute("src"))
    ActionChains(browser).move_to_element(browser.find_element(By.ID, "name")).perform()
    wait(browser, lambda _: "lit" not in photo.get_attribute("class"))


@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_it_fits_every_screen(show, width):
    browser = show(width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for card in cards(browser)[:2]:
        assert card.rect["x"] >= 0
        assert card.rect["x"] + card.rect["width"] <= width


def test_hostile_captions_are_text(show, server):
    hostile = "<img src=x onerror=document.title='hacked'> & </script>"
    number = server.captions.find("open", "doubtful", None, 1)[0]
    browser = show()
    press(cards(browser)[0], "Edit")
    ActionChains(browser).send_keys(hostile, Keys.ENTER).perform()
    wait(browser, lambda _: server.captions.row(number)["text"] == hostile)
    wait(browser, lambda _: "onerror" in cards(browser)[0].text)
    assert "hacked" not in browser.title
