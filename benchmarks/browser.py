"""The page of `capexport web` in Chromium beside Python: the same words of JPEG files, and how long a visitor waits.

    python benchmarks/browser.py BUNDLE PHOTO... [--runtime DIR]

PHOTO are photos, folders of them, or the folder of Flickr8k, which stands for the first 100 photos of its dev split.
Prints what is loaded, the time to a first caption in a browser without a cache, over loopback and over 6 Mbit/s, and of
how many photos pixels and words are Python's own. Needs chromium, chromedriver and selenium.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import capexport
from capexport.progress import track
from capexport.web.page import write_page
from capexport.web.serve import page_server

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.parity import photos_of
from tests.browser import start_browser

FIRST = """
    const done = arguments[0];
    (async () => {
        const failed = () => !document.getElementById("error").hidden;
        const until = async holds => { while (!holds() && !failed()) await new Promise(go => setTimeout(go, 2)); };
        await until(() => document.querySelector("#samples button"));
        const ready = performance.now();
        document.querySelector("#samples button")?.click();
        await until(() => "caption" in document.documentElement.dataset);
        const sizes = performance.getEntriesByType("resource").map(one => one.encodedBodySize);
        const found = [ready, performance.now(), sizes.reduce((a, b) => a + b, 0)];
        done(failed() ? document.getElementById("error").textContent : found);
    })();
"""
READY = """
    const done = arguments[0], wait = () => document.querySelector("#samples button") ? done() : setTimeout(wait, 20);
    wait();
"""
SAY = """
    const [file, done] = arguments;
    (async () => {
        const { openPage } = await import("./engine.js");
        const { captioner } = window.opened ??= await openPage();
        const bytes = Uint8Array.from(atob(file), sign => sign.charCodeAt(0));
        const pixels = await captioner.preprocess(bytes), { tokens } = await captioner.caption(bytes);
        done([btoa(String.fromCharCode(...new Uint8Array(await crypto.subtle.digest("SHA-256", pixels)))), tokens]);
    })().catch(error => done(["", String(error)]));
"""


def first_caption(url: str, profile: Path, bits: int | None) -> Any:
    """Milliseconds to a page that is ready and to a caption, and bytes: in a new browser, at most `bits` a second."""
    browser = start_browser(profile)
    try:
        browser.set_script_timeout(300)
        if bits:
            limits = {"offline": False, "latency": 40, "downloadThroughput": bits / 8, "uploadThroughput": bits / 8}
            browser.execute_cdp_cmd("Network.enable", {})
            browser.execute_cdp_cmd("Network.emulateNetworkConditions", limits)
        browser.get(url)
        found = browser.execute_async_script(FIRST)
        if isinstance(found, str):
            raise SystemExit(found)
        return found
    finally:
        browser.quit()


def compare(url: str, profile: Path, captioner: Any, photos: list[Path]) -> tuple[int, int, list[Path]]:
    """Of how many photos the pixels and the words are Python's, and the photos of other words."""
    browser, same_pixels, other = start_browser(profile), 0, []
    try:
        browser.set_script_timeout(120)
        browser.get(url)
        browser.execute_async_script(READY)
        for photo in track(photos, len(photos), "Chromium"):
            data = photo.read_bytes()
            digest, tokens = browser.execute_async_script(SAY, base64.b64encode(data).decode())
            if not digest:
                raise SystemExit(f"{photo}: {tokens}")
            pixels = hashlib.sha256(captioner.preprocess(data).tobytes()).digest()
            same_pixels += base64.b64decode(digest) == pixels
            if tuple(tokens) != captioner.caption(data).tokens:
                other.append(photo)
    finally:
        browser.quit()
    return same_pixels, len(photos) - len(other), other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", nargs="*")
    parser.add_argument("--runtime", type=Path, help="the npm package onnxruntime-web")
    parsed = parser.parse_args()
    photos = photos_of(parsed.photos)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        write_page(parsed.bundle, folder / "page", parsed.runtime)
        with page_server(folder / "page") as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://localhost:{server.server_port}/"
            for k, (name, bits) in enumerate((("loopback", None), ("6 Mbit/s", 6_000_000))):
                ready, caption, size = first_caption(url, folder / f"profile{k}", bits)
                print(
                    f"{name}: {size / 1e6:.1f} MB, ready after {ready / 1e3:.2f} s, caption after {caption / 1e3:.2f} s"
                )
            if photos:
                pixels, words, other = compare(url, folder / "profile", capexport.load(parsed.bundle), photos)
                print(f"pixels: {pixels} of {len(photos)} the same; words: {words} of {len(photos)} the same")
                for photo in other:
                    print(f"other words: {photo}")
            server.shutdown()


if __name__ == "__main__":
    main()
