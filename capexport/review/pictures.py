"""What a review shows of a photo: a thumbnail, and the same lit where the captioner looked for a word."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ..batch.shards import read_from_shard, split_shard
from ..batch.storage import Remote, is_uri
from ..errors import ImageError, OptionError
from ..heat import light, light_range, lit, shares
from ..image import Photo, read_photo
from ..runtime.caption import Caption
from ..runtime.captioner import Captioner
from ..runtime.options import DecodingOptions
from .captions import is_photo

SIDE = 640  # of a picture at most, in pixels
KEPT = 256  # photos whose thumbnails and attention stay in memory


class Pictures:
    """Thumbnails, as JPEG files; safe to share between threads.

    beside  the folder of the file of captions, in which photos are looked for that are not where their rows say
    load    loads the captioner, when attention is first asked for
    """

    def __init__(self, beside: Path, load: Callable[[], Captioner]) -> None:
        self._beside = beside
        self._load = load
        self._lock = threading.Lock()
        self._loaded: Captioner | None = None
        self.thumbnail = functools.lru_cache(KEPT)(self._thumbnail)
        self._caption = functools.lru_cache(KEPT)(self._captioned)

    def _thumbnail(self, path: str) -> bytes:
        """The photo of a row, made small; raises ImageError."""
        return _jpeg(self._small(path))

    def words(self, path: str, text: str) -> list[str]:
        """The words of a text as the captioner knows them; raises OptionError for one that it does not, or too many."""
        return [word for word in self._caption(path, text).words if word != "[END]"]

    def lit(self, path: str, text: str, word: int) -> bytes:
        """The photo, lit where the captioner looks for a word, counted from 0, when it says the text.

        Raises ImageError, and OptionError for a text that it cannot say, or a word that is not in it.
        """
        image = self._small(path)
        maps = self._caption(path, text).attention
        if not 0 <= word < len(maps):
            raise OptionError(f"There is no word {word}: the text has {len(maps)}.")
        fields = shares(maps, (image.height, image.width))
        lights = light(fields[word], light_range(fields))
        return _jpeg(Image.fromarray(lit(np.asarray(image.convert("L"), np.float64), lights)))

    def _captioned(self, path: str, text: str) -> Caption:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
        # Its own words, whatever the options were by which they were chosen; and then the end.
        options = DecodingOptions(prefix=text, max_length=len(text.split()) + 1)
        return self._loaded.caption(self._photo(path), options)

    def _small(self, path: str) -> Image.Image:
        def draft(image: Image.Image) -> Image.Image:
            image.draft("RGB", (SIDE, SIDE))  # of a JPEG file: decodes a fraction of it
            return image

        image = read_photo(self._photo(path), draft).copy()
        image.thumbnail((SIDE, SIDE))
        return image

    def _photo(self, path: str) -> Photo:
        inside = split_shard(path)
        if inside:
            return read_from_shard(inside[0], path)
        if is_uri(path):
            return Remote(path)
        found = next(filter(is_photo, (Path(path), self._beside / path)), None)
        if found is None:
            raise ImageError(f"There is no photo at {path}: review from the folder in which it was captioned.")
        return found


def _jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
