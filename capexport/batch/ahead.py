"""Batches of photos read and captioned by several threads at once, a bounded number of batches ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..errors import ImageError
from ..image import Pixels
from ..runtime.caption import Caption
from ..runtime.captioner import Captioner
from ..runtime.options import DecodingOptions

AHEAD = 2  # batches a thread: one that it works at, and one that waits for it
Results = list[Caption | ImageError]


def caption_ahead(
    captioner: Captioner, batches: Iterable[Sequence[Path]], options: DecodingOptions
) -> Iterator[Results]:
    """The captions of each batch, in order, with an ImageError in the place of a photo that cannot be read.

    Each of the captioner's threads takes a whole batch, reads its photos and captions them, so that some read while
    others caption. No more than AHEAD batches a thread are taken from `batches` beyond those that were yielded.

    Raises what the captioner raises for its options and its graphs.
    """
    most = AHEAD * captioner.threads
    waiting: deque[Future[Results]] = deque()
    pool = ThreadPoolExecutor(captioner.threads, "captions")
    try:
        for photos in batches:
            waiting.append(pool.submit(_caption, captioner, photos, options))
            if len(waiting) == most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _caption(captioner: Captioner, photos: Sequence[Path], options: DecodingOptions) -> Results:
    read = [_read(captioner, photo) for photo in photos]
    pixels = [one for one in read if not isinstance(one, ImageError)]
    captions = iter(captioner.caption_part(np.stack(pixels), options) if pixels else [])
    return [one if isinstance(one, ImageError) else next(captions) for one in read]


def _read(captioner: Captioner, photo: Path) -> Pixels | ImageError:
    try:
        return captioner.preprocess(photo)
    except ImageError as error:
        return error
    except Exception as error:  # of thousands of photos, no one may end the run, whatever its decoder trips over
        return ImageError(f"{photo} cannot be read: {type(error).__name__}: {error}.")
