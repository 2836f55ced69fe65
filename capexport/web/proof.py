"""A page's bundle held against what Keras left in it, in JavaScript: in Node, and in a browser without a window."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OptionError, OutputError
from ..manifest import Check
from .serve import Handler, page_server

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "microsoft-edge")
FLAGS = ("--headless=new", "--no-first-run", "--disable-background-networking", "--disable-component-update")
SECONDS = 300  # until a browser must have answered


def prove_in_node(page: Path) -> list[Check]:
    """The checks of a page's folder in Node. Raises OptionError without Node, OutputError if it fails."""
    node = shutil.which("node")
    if node is None:
        raise OptionError("Node is needed to run JavaScript here: install it (apt-get install nodejs).")
    command = [node, str(page / "parity.js"), str(page), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return _checks("Node", json.loads(done.stdout))
    except ValueError as error:
        raise OutputError(f"JavaScript failed in Node: {done.stderr.strip()[-300:]}") from error


def prove_in_browser(page: Path, browser: str | None = None) -> list[Check]:
    """The checks of a page's folder in Chromium or one of its kind, which asks nobody but this machine.

    browser  its command; None: the first of BROWSERS that is installed

    Raises OptionError without a browser, OutputError if it does not answer.
    """
    command = next(filter(None, map(shutil.which, (browser,) if browser else BROWSERS)), None)
    if command is None:
        raise OptionError(f"There is no browser {browser or 'here'}: install Chromium, or name one's command.")
    answers: queue.Queue[bytes] = queue.Queue()

    class Receiver(Handler):
        def do_POST(self) -> None:  # noqa: N802 (as http.server names it)
            answers.put(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(204)
            self.end_headers()

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        page_server(page, handler=Receiver) as server,
    ):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        flags = [*FLAGS, f"--user-data-dir={profile}"] + ["--no-sandbox"] * _is_root()
        url = f"http://localhost:{server.server_port}/parity.html?report"
        process = subprocess.Popen([command, *flags, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            answer = json.loads(answers.get(timeout=SECONDS))
        except queue.Empty as error:
            raise OutputError(f"{command} has not answered within {SECONDS} s.") from error
        finally:
            process.terminate()
            process.wait(timeout=30)
            server.shutdown()
    return _checks(Path(command).name, answer)


def _is_root() -> bool:
    """Whether Chromium's sandbox refuses this user."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _checks(where: str, result: Mapping[str, Any]) -> list[Check]:
    """What checkParity of parity.js has found, as checks."""
    if "error" in result:
        return [Check(f"{where}: it runs", str(result["error"]), "yes", False)]
    rows, bounds = result["rows"], result["bounds"]
    identical, ties = result["identical"], sum(row["nearTie"] for row in rows)
    error = max(row["log_probability_error"] for row in rows)
    cell = result["same_cell"]
    levels = [row["levels"] for row in rows if row["levels"] is not None]
    checks = [
        Check(
            f"{where}: identical captions",
            f"{identical} of {len(rows)}",
            f"{result['least']} or more, near-ties counted in",
            identical + ties >= result["least"],
        ),
        Check(
            f"{where}: largest error of a log-probability",
            f"{error:.2g}",
            f"up to {bounds['log_probability_error']:g}",
            error <= bounds["log_probability_error"],
        ),
        Check(
            f"{where}: most attended cell the same",
            f"{cell:.1%}",
            f"{bounds['same_cell']:.0%} or more",
            cell >= bounds["same_cell"],
        ),
    ]
    if levels:
        found = f"{len(levels)} photos' files: pixels differ by {max(levels)} at most"
        most = bounds["levels"]
        allowed = "" if most is None else f"by {most} at most"
        checks.insert(0, Check(f"{where}: pixels", found, allowed, most is None or max(levels) <= most))
    return checks
