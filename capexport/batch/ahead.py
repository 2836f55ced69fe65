"""Batches of photos read and captioned by several threads at once, a bounded number of batches ahead."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ..errors import ImageError
from ..image import Held, Photo, Pixels
from ..runtime.caption import Caption
from ..runtime.captioner import Captioner
from ..runtime.options import DecodingOptions
from .rows import Row, photo_row
from .storage import Remote, Source

AHEAD = 3  # groups a thread: one that it works at, one that waits for it, and one whose rows are being written
FETCHERS = 16  # photos that are fetched from storage at once: that is waiting, not work
S = TypeVar("S")
T = TypeVar("T")


def rows_ahead(
    captioner: Captioner,
    batches: Iterable[Sequence[Source]],
    options: DecodingOptions,
    min_confidence: float,
    run: str,
    together: int = 1,
) -> Iterator[list[Row]]:
    """The rows of the batches, in order, a row a photo, some batches' at a time: see rows.photo_row.

    Each of the captioner's threads takes whole batches, reads their photos and captions them, so that some read while
    others caption. No more than (AHEAD + 1) * together batches a thread are taken from `batches` beyond those yielded.

    together  batches whose photos a thread reads before it captions them: to read and to run graphs in turn empties a
              core's caches each time; of photos that are held in memory, so many more are

    Raises what the captioner raises for its options and its graphs.
    """

    room = _Room()

    def rows(group: Sequence[Sequence[Source]]) -> list[Row]:
        read = _read(captioner, group, room)
        results = itertools.chain.from_iterable(_caption(captioner, *batch, options) for batch in read)
        photos = itertools.chain.from_iterable(group)
        return [photo_row(str(photo), one, min_confidence, run) for photo, one in zip(photos, results, strict=True)]

    return map_ahead(rows, _groups(batches, captioner.threads, together), captioner.threads)


def _groups(batches: Iterable[S], threads: int, size: int) -> Iterator[list[S]]:
    """So many batches at a time, but one at first and in the end, so that all threads have work while there is any."""
    waiting, least = iter(batches), threads * (size - 1) + 1
    yield from batched(itertools.islice(waiting, threads), 1)
    known = deque(itertools.islice(waiting, least))
    while known:
        yield [known.popleft() for _ in range(size if len(known) == least else 1)]
        known.extend(itertools.islice(waiting, least - len(known)))


def batched(items: Iterable[S], size: int) -> Iterator[list[S]]:
    """The items, so many at a time."""
    waiting = iter(items)
    return iter(lambda: list(itertools.islice(waiting, size)), [])


def fetch_ahead(batches: Iterable[Sequence[Source]], size: int) -> Iterator[Sequence[Source]]:
    """The batches, of no more than `size` photos; those in storage are fetched, many at once, and Held."""
    most = max(1, AHEAD * FETCHERS // size)
    with ThreadPoolExecutor(FETCHERS, "photos") as pool:
        yield from map_ahead(lambda photos: list(pool.map(_fetched, photos)), batches, most, ahead=1)


def map_ahead(work: Callable[[S], T], items: Iterable[S], threads: int, ahead: int = AHEAD) -> Iterator[T]:
    """As map, in order, by several threads; no more than `ahead` items a thread are taken beyond those yielded."""
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads, "captions")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == ahead * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _fetched(photo: Source) -> Source:
    if not isinstance(photo, Remote):
        return photo
    try:
        return Held(photo.name, photo.read())
    except Exception as error:  # as in read_photo
        return Held(photo.name, ImageError(f"{photo} cannot be read: {error}."))


class _Room(threading.local):
    """A thread's memory for the pixels of a group, kept: what is new for each group the system clears for each."""

    pixels: Pixels | None = None  # (photos, height, width, 3)


Read = tuple[Pixels, list[ImageError | None]]  # a batch: the pixels of its photos, and what is wrong with the others


def _read(captioner: Captioner, group: Sequence[Sequence[Source]], room: _Room) -> list[Read]:
    most = sum(map(len, group))
    if room.pixels is None or len(room.pixels) < most:
        room.pixels = np.empty((most, *captioner.bundle.manifest.preprocessing.size, 3), np.uint8)
    read: list[Read] = []
    end = 0
    for photos in group:
        begin, errors = end, list[ImageError | None]()
        for photo in photos:
            one = read_photo(captioner, photo)
            if isinstance(one, ImageError):
                errors.append(one)
            else:
                room.pixels[end] = one
                errors.append(None)
                end += 1
        read.append((room.pixels[begin:end], errors))
    return read


def _caption(
    captioner: Captioner, pixels: Pixels, errors: Sequence[ImageError | None], options: DecodingOptions
) -> list[Caption | ImageError]:
    captions = iter(captioner.caption_part(pixels, options) if len(pixels) else [])
    return [error or next(captions) for error in errors]


def read_photo(captioner: Captioner, photo: Photo) -> Pixels | ImageError:
    """Its pixels, or what is wrong with it."""
    try:
        return captioner.preprocess(photo)
    except ImageError as error:
        return error
    except Exception as error:  # of thousands of photos, no one may end the run, whatever its decoder trips over
        return ImageError(f"{photo!s} cannot be read: {type(error).__name__}: {error}.")
