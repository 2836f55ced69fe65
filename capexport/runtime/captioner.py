"""The runtime captioner: photos in, captions out."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import NDArray

from ..bounds import check_whole
from ..bundle import Bundle, read_bundle
from ..errors import ImageError, OptionError
from ..image import Photo, Pixels, held, load_image
from .backend import Backend
from .caption import Caption, check_attention
from .crowd import Crowd
from .decoding import Decoding, decode
from .engines import open_bundle
from .greedy import GreedyGraph
from .options import DEFAULT, DecodingOptions, with_fields
from .workers import Workers, cores

MOST_THREADS = 1024
OnError = Literal["raise", "skip"]


def load(
    bundle: str | os.PathLike[str] | Bundle, threads: int | None = None, device: str = "cpu", verify: bool = False
) -> Captioner:
    """Load a bundle into the engine of its format.

    bundle   its directory, or one already read
    threads  of the encoder, and that share a list of photos; None: as many as the engine chooses, or as there are cores
    device   cpu, or cuda for ONNX bundles on an NVIDIA GPU
    verify   caption the bundle's own photos first, which takes a fraction of a second, and refuse the bundle unless its
             words, logits and attention are within the bounds of its recipe

    Raises BundleError for a bundle that is damaged or of another version, MissingExtraError without the engine,
    OptionError for a device that the engine cannot use here and for threads that are no number from 1 up.
    """
    check_whole("threads", threads, least=1, most=MOST_THREADS)
    checked = bundle if isinstance(bundle, Bundle) else read_bundle(Path(bundle))
    engines = open_bundle(checked, threads, device)
    captioner = Captioner(checked, engines.backend, engines.greedy, engines.crowd, threads or cores())
    if verify:
        from ..parity.own import check_itself  # which holds captioners against vectors, and so needs this module

        check_itself(captioner)
    return captioner


def _parts(pixels: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    return [pixels[k : k + size] for k in range(0, len(pixels), size)]


class Captioner:
    """Captions photos; safe to share between threads, all of which have it done by as many as there are cores.

    backend  its encoder and decoder
    greedy   its graph for whole captions, None without one: it captions a photo alone with default options
    crowd    backends for several threads at once, for parts of a batch; None: batches stay whole
    threads  that read photos, and caption parts of a batch
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        greedy: GreedyGraph | None = None,
        crowd: Crowd | None = None,
        threads: int = 1,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.greedy = greedy
        self.threads = threads
        self._crowd = crowd
        self._turn = threading.Lock()
        self._workers = Workers(max(threads, cores()))

    def __repr__(self) -> str:
        return f"<Captioner {self.bundle.label}>"

    @overload
    def caption(self, photo: Photo, options: DecodingOptions | None = None, **fields: Any) -> Caption: ...
    @overload
    def caption(
        self,
        photo: Sequence[Photo],
        options: DecodingOptions | None = None,
        *,
        batch: int = 16,
        on_error: Literal["raise"] = "raise",
        **fields: Any,
    ) -> list[Caption]: ...
    @overload
    def caption(
        self,
        photo: Sequence[Photo],
        options: DecodingOptions | None = None,
        *,
        batch: int = 16,
        on_error: Literal["skip"],
        **fields: Any,
    ) -> list[Caption | ImageError]: ...
    def caption(
        self,
        photo: Photo | Sequence[Photo],
        options: DecodingOptions | None = None,
        *,
        batch: int = 16,
        on_error: OnError = "raise",
        **fields: Any,
    ) -> Caption | Sequence[Caption | ImageError]:
        """Caption a photo, or each of a list of them.

        photo     whatever load_image reads: a path, bytes, a PIL image or a uint8 array; or a list of such
        options   how words are chosen; single fields of DecodingOptions can be given by name, too
        batch     photos of a list that go through the engine together; the words do not depend on it, but for near-ties
                  of recipes that compute in int8
        on_error  with "skip", a photo of a list that cannot be read has its ImageError in place of its caption

        Raises ImageError for a photo that cannot be read and for an empty list, OptionError for options that make
        no sense.
        """
        if isinstance(photo, list | tuple):
            if not photo:
                raise ImageError("There is no photo to caption: the list is empty.")
            return list(self.caption_each(photo, options, batch=batch, on_error=on_error, **fields))
        [caption] = self.caption_each([cast("Photo", photo)], options, **fields)
        return cast("Caption", caption)

    def caption_each(
        self,
        photos: Iterable[Photo],
        options: DecodingOptions | None = None,
        *,
        batch: int = 16,
        on_error: OnError = "raise",
        **fields: Any,
    ) -> Iterator[Caption | ImageError]:
        """As caption, for any number of photos, one batch read and captioned after the other as they are asked for."""
        chosen = with_fields(options, fields)
        check_whole("batch", batch, least=1)
        if on_error not in ("raise", "skip"):
            raise OptionError(f"on_error must be raise or skip, not {on_error!r}.")
        waiting = iter(photos)
        batches = iter(lambda: list(itertools.islice(waiting, batch)), [])
        return itertools.chain.from_iterable(self._caption_batch(one, chosen, on_error) for one in batches)

    def stream(self, photo: Photo, options: DecodingOptions | None = None, **fields: Any) -> Iterator[str]:
        """The words of one photo's caption as they are chosen, without [END].

        Options and errors as of caption; a search and several captions know their words only at the end, and are
        refused.
        """
        chosen = with_fields(options, fields)
        if chosen.searched or chosen.captions > 1:
            raise OptionError("Words can be streamed of one caption without beams and forced words.")
        vocabulary = self.bundle.vocabulary
        here = held(photo)
        features = self._workers.do(lambda: self.backend.encode(self.preprocess(here)[np.newaxis]))
        decoding = Decoding(self.backend, features, vocabulary, self.bundle.manifest.shape, chosen, held=0)
        return (vocabulary.words[int(token)] for [token] in decoding if token != vocabulary.end)

    def preprocess(self, photo: Photo) -> Pixels:
        """The photo as the encoder wants it: uint8 RGB (height, width, 3)."""
        preprocessing = self.bundle.manifest.preprocessing
        return load_image(photo, preprocessing.size, preprocessing.resize)

    def caption_pixels(self, pixels: NDArray[np.uint8], options: DecodingOptions) -> list[Caption]:
        """Caption photos that are preprocessed already: uint8 (B, height, width, 3)."""
        if self.greedy is not None and len(pixels) == 1 and options == DEFAULT:
            return self.greedy.caption(pixels)
        size = -(-len(pixels) // self.threads)
        if self._crowd is None or size == len(pixels) <= self._crowd.part:
            return self._workers.do(lambda: self._decode(self.backend, pixels, options))
        size = min(size, self._crowd.part)
        done = self._workers.map(lambda part: self.caption_part(part, options), _parts(pixels, size), self.threads)
        return list(itertools.chain.from_iterable(done))

    def caption_part(self, pixels: NDArray[np.uint8], options: DecodingOptions) -> list[Caption]:
        """As caption_pixels, for a caller that has threads of its own, each with a part of the photos.

        It runs in the calling thread alone; on a device that is no processor the threads take turns.
        """
        if self._crowd is None:
            with self._turn:  # not step by step, for each step would find the other part's shapes, and allocate anew
                return self._decode(self.backend, pixels, options)
        with self._crowd.backend() as backend:
            done = [self._decode(backend, part, options) for part in _parts(pixels, self._crowd.part)]
        return list(itertools.chain.from_iterable(done))

    def _decode(self, backend: Backend, pixels: NDArray[np.uint8], options: DecodingOptions) -> list[Caption]:
        features = backend.encode(pixels)
        captions = decode(backend, features, self.bundle.vocabulary, self.bundle.manifest.shape, options)
        for caption in captions:
            check_attention(caption)
        return captions

    def _read(self, photo: Photo) -> Pixels | ImageError:
        try:
            return self.preprocess(photo)
        except ImageError as error:
            return error

    def _caption_batch(
        self, photos: Sequence[Photo], options: DecodingOptions, on_error: OnError
    ) -> list[Caption | ImageError]:
        here = [held(photo) for photo in photos]  # workers must not wait for a stream: all threads share them
        if min(len(here), self.threads) == 1:  # in one go, for who waits in between holds the pixels
            return self._workers.do(lambda: self._caption_read([*map(self._read, here)], options, on_error))
        return self._caption_read(self._workers.map(self._read, here, self.threads), options, on_error)

    def _caption_read(
        self, read: Sequence[Pixels | ImageError], options: DecodingOptions, on_error: OnError
    ) -> list[Caption | ImageError]:
        pixels = [one for one in read if not isinstance(one, ImageError)]
        if on_error == "raise":
            for one in read:
                if isinstance(one, ImageError):
                    raise one
        captions = iter(self.caption_pixels(np.stack(pixels), options) if pixels else [])
        return [one if isinstance(one, ImageError) else next(captions) for one in read]
