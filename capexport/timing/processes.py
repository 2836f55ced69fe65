"""The processes of a bench: one a row, so that none has another's memory, threads or caches of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..progress import track

PROCESS = """
import time
started = time.perf_counter()
import json, sys
from capexport.timing.worker import main
main(json.loads(sys.argv[1]), started)
"""
# Rows are all loaded before the first is timed, and TensorFlow and XLA would each take a GPU's whole memory.
SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
ENDING = 10  # seconds that a process has to remove its temporary files


class RowError(Exception):
    """A row's process ended, or said that it cannot go on."""


class Worker:
    """A process of worker.py, ready to caption; `start` is what it said of its start.

    program  the Python program, which serves as worker.serve does; its first argument is the spec, as JSON
    """

    def __init__(self, spec: Mapping[str, Any], program: str = PROCESS) -> None:
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115, closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=Path(__file__).parents[2],  # where this very capexport is imported from
            env=os.environ | SHARED_GPU,
        )
        try:
            self.start = self._answer()
        except RowError:
            self.close()
            raise

    def ask(self, **order: Any) -> Any:
        """The worker's answer to an order; raises RowError if it has none."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer that does not come says why
            print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._said.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            said = self._said.read().strip().splitlines()
            raise RowError(f"its process ended with exit code {code}" + (f": {said[-1]}" if said else ""))
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise RowError(answer["error"])
        return answer


@contextlib.contextmanager
def started(
    specs: Mapping[str, Mapping[str, Any]], program: str = PROCESS
) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """A process for each, and the errors of those that failed to start; all end with the context."""
    workers: dict[str, Worker] = {}
    errors: dict[str, str] = {}
    try:
        for name, spec in track(specs.items(), len(specs), "loading"):
            try:
                workers[name] = Worker(spec, program)
            except RowError as failure:
                errors[name] = str(failure)
        yield workers, errors
    finally:
        for worker in workers.values():
            worker.close()


def ask(workers: dict[str, Worker], errors: dict[str, str], name: str, **order: Any) -> Any:
    """The worker's answer; None from one that fails, which is a worker no more."""
    try:
        return workers[name].ask(**order)
    except RowError as failure:
        errors[name] = str(failure)
        workers.pop(name).close()
    except KeyError:
        pass
    return None
