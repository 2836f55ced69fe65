"""The captioner as a picklable function of columns, for Ray Data's map_batches and Spark's predict_batch_udf."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, read_bundle
from ..errors import ImageError, OptionError
from ..image import Held
from ..runtime.captioner import Captioner, load
from ..runtime.options import DEFAULT, DecodingOptions
from .ahead import batched, fetch_ahead, rows_ahead
from .run import BATCH, check_numbers
from .storage import Remote, Source, is_uri

Columns = dict[str, NDArray[Any]]
PATH, BYTES = "path", "bytes"


class CaptionBatch:
    """Captions the photos of a table's columns; what it knows travels with it, the bundle included.

        dataset.map_batches(CaptionBatch, fn_constructor_args=("my-bundle",), batch_size=256, concurrency=8)
        caption = predict_batch_udf(CaptionBatch("my-bundle").predictor, return_type=SCHEMA, batch_size=256)

    bundle          its directory, which is read here and now, or one already read
    options         how words are chosen
    batch           photos captioned together, of those of a call; their words do not depend on it
    threads         of the engine, and that read photos; 1 for a worker that has a core of its own
    min_confidence  a caption below it is left empty
    run             stands in the rows, see rows.photo_row

    The engine is loaded where the first photos are captioned, and never travels. Raises BundleError for a bundle that
    is damaged, MissingExtraError without its engine.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        options: DecodingOptions | None = None,
        batch: int = BATCH,
        threads: int = 1,
        min_confidence: float = 0.0,
        run: str = "",
    ) -> None:
        check_numbers(batch, min_confidence)
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(Path(bundle))
        self.options = options or DEFAULT
        self.batch, self.threads, self.min_confidence, self.run = batch, threads, min_confidence, run
        self._loaded: Captioner | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    @property
    def captioner(self) -> Captioner:
        """The bundle in its engine, loaded once."""
        if self._loaded is None:
            self._loaded = load(self.bundle, threads=self.threads)
        return self._loaded

    def __call__(self, columns: Mapping[str, NDArray[Any]]) -> Columns:
        """The columns, without `bytes`, and these: text, confidence, error and row, each (rows,).

        columns  `bytes`, photos' files, or `path`, where they are, as paths or URIs; with both, `path` only names them

        A photo that cannot be read has the text "", the confidence NaN and its error, which is "" for the others. `row`
        is all that is known of the photo, as JSON: see rows.photo_row. Raises OptionError without either column.
        """
        if BYTES not in columns and PATH not in columns:
            raise OptionError(f"Photos come in a column {BYTES} or {PATH}; there are: {', '.join(columns) or 'none'}.")
        photos = _sources(columns)
        batches = fetch_ahead(batched(photos, self.batch), self.batch)
        done = rows_ahead(self.captioner, batches, self.options, self.min_confidence, self.run)
        rows = list(itertools.chain.from_iterable(done))
        return {
            **{name: values for name, values in columns.items() if name != BYTES},
            "text": np.array([row["text"] or "" for row in rows], object),
            "confidence": np.array([np.nan if row["error"] else row["confidence"] for row in rows], np.float64),
            "error": np.array([row["error"] or "" for row in rows], object),
            "row": np.array([json.dumps(row) for row in rows], object),
        }

    def predictor(self) -> Callable[[NDArray[Any]], Columns]:
        """What predict_batch_udf wants of its make_predict_fn: a function of photos' files, (rows,), or their paths."""

        def predict(photos: NDArray[Any]) -> Columns:
            name = PATH if len(photos) and isinstance(photos[0], str) else BYTES
            found = self({name: photos})
            return {field: found[field] for field in ("text", "confidence", "error", "row")}

        return predict


def _sources(columns: Mapping[str, NDArray[Any]]) -> list[Source]:
    names = [os.fsdecode(name) for name in columns[PATH]] if PATH in columns else None
    if BYTES not in columns:
        return [Remote(name) if is_uri(name) else Path(name) for name in names or ()]
    held = enumerate(columns[BYTES])
    return [_held(names[number] if names else f"The photo in row {number}", body) for number, body in held]


def _held(name: str, body: Any) -> Held:
    return Held(name, ImageError(f"{name} cannot be read: the row has no photo.") if body is None else bytes(body))
