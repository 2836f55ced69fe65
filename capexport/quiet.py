"""What C++ libraries need around them: silence, where they write to standard error, and rest from Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

_lock = threading.Lock()
_silent = 0  # who asks for silence now, in any thread: the file descriptor is all threads' own
_saved = -1


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    """Nothing reaches file descriptor 2 meanwhile, where that is standard error; exceptions pass."""
    if sys.stderr is None:  # closed, as daemons have it: the descriptor may be any file's
        yield
        return
    _begin()
    try:
        yield
    finally:
        _end()


def _begin() -> None:
    global _silent, _saved
    with _lock:
        if not _silent:
            sys.stderr.flush()
            _saved = os.dup(2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        _silent += 1


def _end() -> None:
    global _silent
    with _lock:
        _silent -= 1
        if not _silent:
            sys.stderr.flush()
            os.dup2(_saved, 2)
            os.close(_saved)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Have Ctrl-C wait for the end: while native code is loaded, it may end the process without a word."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    came: list[Any] = []
    signal.signal(signal.SIGINT, lambda *_: came.append(None))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(signal.SIGINT, None)
