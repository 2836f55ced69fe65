"""Threads that do the work of all others, however many those are.

A thread that allocates keeps memory for good: the C library has a heap for each, and engines have buffers for each. If
a few threads do the work of many, memory does not grow with the threads that ask for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Some threads, which are started when they are first needed, and the one that asked first: it works itself.

    number  of threads
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._lock = threading.Lock()
        self._here = threading.local()
        self._first: int | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._process: int | None = None

    def do(self, work: Callable[[], T]) -> T:
        """What the work gives, or raises."""
        return work() if self._works_itself() else self._started().submit(work).result()

    def map(self, work: Callable[[S], T], items: Sequence[S], threads: int) -> list[T]:
        """As map, by so many threads at once; raises what is raised first, when the others have come to a halt."""
        takers, mine = min(threads, len(items), self._number), self._works_itself()
        if mine and (takers < 2 or self._is_worker()):  # which must not wait for the others, who may be waiting for it
            return [work(item) for item in items]
        waiting, done = deque(enumerate(items)), dict[int, T]()

        def take() -> None:
            try:
                while (following := _first_of(waiting)) is not None:
                    place, item = following
                    done[place] = work(item)
            finally:
                waiting.clear()  # it is empty, or this one was stopped and so are the others

        pool = self._started()
        taken = [pool.submit(take) for _ in range(takers - mine)]
        try:
            if mine:
                take()
            wait(taken)
        finally:
            waiting.clear()
            wait(taken)
        for one in taken:
            one.result()
        return [done[place] for place in range(len(items))]

    def _is_worker(self) -> bool:
        return getattr(self._here, "works", False)

    def _works_itself(self) -> bool:
        me = threading.get_ident()
        if self._first is None:
            with self._lock:
                self._first = self._first or me
        return me == self._first or self._is_worker()

    def _started(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._process != os.getpid():  # a process's fork has none of its threads
                # Not a method of this object, which the threads would hold, and which holds them.
                self._pool = ThreadPoolExecutor(self._number, "captioner", _begin, (self._here,))
                self._process = os.getpid()
            return self._pool


def _begin(here: threading.local) -> None:
    here.works = True


def _first_of(waiting: deque[T]) -> T | None:
    """Taken off; None if there is none."""
    with contextlib.suppress(IndexError):
        return waiting.popleft()
    return None
