"""The process of one row: it loads a subject and captions as it is told, a line of JSON for each line on its input.

Started as `python -m capexport.bench.worker SPEC`, SPEC being JSON; the first line that it says is of its start.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before anything else is imported

import dataclasses  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ..errors import CapexportError  # noqa: E402
from .memory import peak_bytes  # noqa: E402
from .subjects import EAGER, FUNCTION, BundleSubject, KerasSubject, Subject  # noqa: E402


def main(spec: dict[str, Any]) -> None:
    """Serve until the input ends; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    before = time.perf_counter()
    try:
        subject = _open(spec)
        loaded = time.perf_counter()
        subject.caption(spec["photo"])
    except CapexportError as error:
        print(json.dumps({"error": str(error)}), file=answers)
        return
    start = {"load": loaded - before, "cold_start": time.perf_counter() - STARTED}
    print(json.dumps(start | {"device": getattr(subject, "device", spec["device"])}), file=answers)
    for line in sys.stdin:
        print(json.dumps(_answer(subject, json.loads(line))), file=answers)


def _open(spec: dict[str, Any]) -> Subject:
    path = Path(spec["path"]) if spec["path"] else None
    if spec["row"] in (EAGER, FUNCTION):
        return KerasSubject(path, spec["threads"], graph=spec["row"] == FUNCTION)
    assert path is not None
    return BundleSubject(path, spec["threads"], spec["device"])


def _answer(subject: Subject, order: dict[str, Any]) -> Any:
    if "photos" in order and "batch" in order:
        try:
            return subject.throughput(order["photos"], order["batch"])
        except NotImplementedError:
            return None
    if "photos" in order:
        subject.caption(order["photos"][0])  # the row before has left its weights in the processor's caches
        return [dataclasses.asdict(subject.caption(photo)) for photo in order["photos"]]
    return peak_bytes()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
