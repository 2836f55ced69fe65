"""The process of one row: it loads a subject and captions as it is told, a line of JSON for each line on its input.

Started by processes.py; the first line that it says is of its start.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CapexportError
from .memory import peak_bytes
from .subjects import EAGER, FUNCTION, BundleSubject, KerasSubject, Subject

Answer = Callable[[dict[str, Any]], Any]


def main(spec: dict[str, Any], started: float) -> None:
    """Serve a subject.

    started  time.perf_counter() of the process' first line
    """

    def begin() -> tuple[Any, Answer]:
        before = time.perf_counter()
        subject = _open(spec)
        loaded = time.perf_counter()
        subject.caption(spec["photo"])
        start = {"load": loaded - before, "cold_start": time.perf_counter() - started}
        device = getattr(subject, "device", spec["device"])
        return start | {"device": device}, lambda order: _answer(subject, order)

    serve(begin)


def serve(begin: Callable[[], tuple[Any, Answer]]) -> None:
    """Answer orders until the input ends; what libraries print goes to standard error.

    begin  gives what is said of the start, and what answers an order; a CapexportError in it is said instead
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        start, answer = begin()
    except CapexportError as error:
        print(json.dumps({"error": str(error)}), file=answers)
        return
    print(json.dumps(start), file=answers)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers)


def _open(spec: dict[str, Any]) -> Subject:
    path = Path(spec["path"]) if spec["path"] else None
    if spec["row"] in (EAGER, FUNCTION):
        return KerasSubject(path, spec["threads"], graph=spec["row"] == FUNCTION)
    assert path is not None
    return BundleSubject(path, spec["threads"], spec["device"])


def _answer(subject: Subject, order: dict[str, Any]) -> Any:
    if "photos" in order and "batch" in order:
        return subject.throughput(order["photos"], order["batch"])
    if "photos" in order:
        subject.caption(order["photos"][0])  # the row before has left its weights in the processor's caches
        return [dataclasses.asdict(subject.caption(photo)) for photo in order["photos"]]
    return peak_bytes()
