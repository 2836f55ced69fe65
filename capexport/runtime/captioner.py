"""The runtime captioner: photos in, captions out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, read_bundle
from ..image import Photo, load_image
from .backend import Backend
from .decoding import Caption, DecodingOptions, decode
from .engines import open_backend


def load(bundle: str | os.PathLike[str] | Bundle, threads: int | None = None) -> Captioner:
    """Load a bundle into the engine of its format.

    bundle   its directory, or one already read
    threads  of the engine; None leaves the choice to it

    Raises BundleError for a bundle that is damaged or of another version, MissingExtraError without the engine.
    """
    checked = bundle if isinstance(bundle, Bundle) else read_bundle(Path(bundle))
    return Captioner(checked, open_backend(checked, threads))


class Captioner:
    """Captions photos; safe to share between threads."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend

    @overload
    def caption(self, photo: Photo, **options: Any) -> Caption: ...
    @overload
    def caption(self, photo: Sequence[Photo], **options: Any) -> list[Caption]: ...
    def caption(self, photo: Photo | Sequence[Photo], **options: Any) -> Caption | list[Caption]:
        """Caption a photo, or each of a list of them.

        photo    whatever load_image reads: a path, bytes, a PIL image or a uint8 array
        options  the fields of DecodingOptions

        Raises ImageError for a photo that cannot be read, OptionError for options that make no sense.
        """
        if isinstance(photo, list | tuple):
            return [self.caption(one, **options) for one in photo]
        chosen = DecodingOptions(**options)
        return self.caption_pixels(self.preprocess(photo), chosen)  # type: ignore[arg-type]

    def preprocess(self, photo: Photo) -> NDArray[np.uint8]:
        """The photo as the encoder wants it: uint8 RGB (height, width, 3)."""
        preprocessing = self.bundle.manifest.preprocessing
        return load_image(photo, preprocessing.size, preprocessing.resize)

    def caption_pixels(self, pixels: NDArray[np.uint8], options: DecodingOptions) -> Caption:
        """Caption pixels that are preprocessed already."""
        shape = self.bundle.manifest.shape
        features = self.backend.encode(pixels[np.newaxis])
        return decode(self.backend, features, self.bundle.vocabulary, shape.feature_map, shape.max_length, options)
