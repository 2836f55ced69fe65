"""COCO captions (Chen et al., 2015) in the official layout, of any year.

DIR/annotations/captions_train2017.json and captions_val2017.json, with the photos in DIR/train2017 and DIR/val2017.
Where there are several years, the latest is taken.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from .base import CaptionedPhoto, checked_caption, checked_photo, of_split, open_text

PARTS = {"train": "train", "dev": "val"}
MOST_TEXT = 2**28  # characters of the annotations; those of 2017 have 92 million


def load_coco(data: str, split: str) -> list[CaptionedPhoto]:
    """The photos of one split, "train" or "dev" (COCO's val), in the file's order.

    Raises DataError for anything missing or malformed.
    """
    path = _annotations(Path(data), of_split(split, PARTS))
    folder = Path(data) / path.stem.removeprefix("captions_")
    document = _read(path)
    captions = defaultdict(list)
    for where, annotation in _records(document, "annotations", path):
        number = _field(annotation, "image_id", int, where)
        captions[number].append(checked_caption(annotation.get("caption"), where))
    photos = []
    for where, image in _records(document, "images", path):
        texts = captions.get(_field(image, "id", int, where))
        if texts is None:
            raise DataError(f"{where}: the photo has no caption among the annotations.")
        photo = checked_photo(folder, _field(image, "file_name", str, where), where)
        photos.append(CaptionedPhoto(photo, tuple(texts)))
    return photos


def _annotations(data: Path, part: str) -> Path:
    paths = sorted((data / "annotations").glob(f"captions_{part}*.json"))
    if not paths:
        raise DataError(f"{data} has no annotations/captions_{part}YEAR.json.")
    return paths[-1]


def _read(path: Path) -> Any:
    with open_text(path) as file:
        text = file.read(MOST_TEXT + 1)
    if len(text) > MOST_TEXT:
        raise DataError(f"{path} is larger than {MOST_TEXT >> 20} MiB.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}.") from error


def _records(document: Any, name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of one of the document's lists, each after its place."""
    records = document.get(name) if isinstance(document, dict) else None
    if not isinstance(records, list):
        raise DataError(f"{path} has no list {name!r}.")
    for i, record in enumerate(records):
        where = f"{path}, {name}[{i}]"
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected an object, found {record!r:.80}.")
        yield where, record


def _field(record: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = record.get(key)
    if not isinstance(value, kind):
        raise DataError(f"{where}: expected {kind.__name__} under {key!r}, found {value!r:.80}.")
    return value
