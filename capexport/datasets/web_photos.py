"""Photos given by their addresses: fetched many at a time, each at most once, and kept."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path

from ..atomic import clear_partials, new_file
from ..download import fetch
from ..errors import DataError, DownloadError, ImageError
from ..image import load_image
from ..progress import bar, console
from ..reach import PRIVATE_HOST
from .base import CaptionedPhoto

CONNECTIONS = 64  # most of them wait for hosts that are gone
TIMEOUT = 10.0  # seconds
FAILURES = "failures.tsv"


class WebPhotos:
    """A folder of photos, named by hashes of their addresses, and the list of those that cannot be had.

    What fails for good is remembered at once. What may yet succeed is remembered when the pass is over: one that was
    cut off asks again, one that ended gives the same photos from then on. Without failures.tsv all are asked again.

    private  whether photos may be on this machine or on private networks
    """

    def __init__(self, folder: Path, private: bool = False) -> None:
        self._folder = folder
        self._private = private
        folder.mkdir(parents=True, exist_ok=True)
        clear_partials(folder)
        self._failures = self._read_failures()  # reasons by name
        self._unsettled: list[str] = []  # names
        self._lock = threading.Lock()

    def take(self, listed: Iterable[tuple[str, str]], limit: int | None, source: str) -> list[CaptionedPhoto]:
        """The first `limit` photos of (caption, URL) that can be had; raises DataError if none can.

        source  of the list, for the line on standard error that says how many cannot be had, and why

        No more are asked for at a time than are still needed, so that what is taken depends on no speed.
        """
        captions: dict[Path, list[str]] = {}
        pending: dict[Future[str | None], Path] = {}
        found: set[Path] = set()
        reasons: Counter[str] = Counter()
        records = iter(listed)

        def room() -> int:
            return min(CONNECTIONS, CONNECTIONS if limit is None else limit - len(found)) - len(pending)

        with bar() as progress, ThreadPoolExecutor(CONNECTIONS) as pool:
            task = progress.add_task("fetching photos", total=limit, status="")
            while (batch := list(islice(records, room()))) or pending:
                for caption, url in batch:
                    path = self._folder / hashlib.sha256(url.encode()).hexdigest()[:32]
                    if path not in captions:
                        pending[pool.submit(self._failure, url, path)] = path
                    captions.setdefault(path, []).append(caption)
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    path, reason = pending.pop(future), future.result()
                    if reason is None:
                        found.add(path)
                    else:
                        reasons[reason] += 1
                progress.update(task, completed=len(found), status=f"{reasons.total()} cannot be had")
        if reasons:
            self._report(source, len(found), reasons)
        return [CaptionedPhoto(path, tuple(texts)) for path, texts in captions.items() if path in found]

    def _failure(self, url: str, path: Path) -> str | None:
        """Why the photo cannot be had; None if it is there now."""
        if path.exists():
            return None
        if path.name not in self._failures:
            try:
                body = fetch(url, timeout=TIMEOUT, private=self._private)
                with self._lock:  # one at a time: many large photos' pixels would fill the memory
                    load_image(body)
                with new_file(path) as partial:
                    partial.write_bytes(body)
                return None
            except DownloadError as error:
                self._remember(path.name, error.reason, settled=not error.transient)
            except ImageError:
                self._remember(path.name, "it is not a photo that can be read", settled=True)
        return self._failures[path.name]

    def _remember(self, name: str, reason: str, settled: bool) -> None:
        with self._lock:
            self._failures[name] = reason
            if settled:
                self._write_failure(name)
            else:
                self._unsettled.append(name)

    def _report(self, source: str, found: int, reasons: Counter[str]) -> None:
        """Say what happened and settle it; raise DataError if nothing was found."""
        why = "; ".join(f"{reason}: {reasons[reason]}" for reason in sorted(reasons))
        if not found:
            raise DataError(f"{source}: not one of {reasons.total()} photos can be had ({why}).")
        console.print(
            f"{source}: {found} photos, {reasons.total()} cannot be had ({why}).", markup=False, soft_wrap=True
        )
        while self._unsettled:
            self._write_failure(self._unsettled.pop())

    def _write_failure(self, name: str) -> None:
        with (self._folder / FAILURES).open("a", encoding="utf-8") as file:
            file.write(f"{name}\t{self._failures[name]}\n")

    def _read_failures(self) -> dict[str, str]:
        path = self._folder / FAILURES
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        failures = [line.split("\t", 1) for line in lines if "\t" in line]  # a killed run can leave half a line
        return {name: reason for name, reason in failures if not (self._private and reason == PRIVATE_HOST)}
