"""Backends for several threads at once, each of which has a part of a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .backend import Backend


class Crowd:
    """Lends a backend to each thread that asks: one of its own, or the same one where the engine lets several in.

    open_one  opens a backend that runs in the calling thread alone
    shared    whether several threads may use one at once; there are as many as threads at the same time otherwise
    part      photos at most that it is best asked for together
    """

    def __init__(self, open_one: Callable[[], Backend], shared: bool, part: int) -> None:
        self.part = part
        self._open_one = open_one
        self._shared = shared
        self._idle: list[Backend] = []
        self._lock = threading.Lock()

    @contextmanager
    def backend(self) -> Iterator[Backend]:
        """A backend for as long as the context lasts; raises what opening one raises."""
        with self._lock:
            lent = self._idle.pop() if self._idle else self._open_one()
            if self._shared:
                self._idle.append(lent)
        try:
            yield lent
        finally:
            if not self._shared:
                with self._lock:
                    self._idle.append(lent)
