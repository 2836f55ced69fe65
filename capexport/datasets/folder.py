"""A plain folder with photos and one file of captions: captions.csv, or else captions.jsonl.

CSV: a header, then a row for each caption; a photo may have several rows.

    file_name,caption,split
    beach/0001.jpg,a dog runs along the beach,train
    beach/0001.jpg,"a wet, happy dog",train
    0002.jpg,two children on a swing,dev

JSON Lines: an object a line; `caption` is a text or a list of texts, and a photo may have several lines.

    {"file_name": "beach/0001.jpg", "caption": ["a dog runs along the beach", "a wet, happy dog"], "split": "train"}
    {"file_name": "0002.jpg", "caption": "two children on a swing"}

`file_name` is relative to the folder. `split` is train, dev or test. Where it is left out or empty the hash of the
file's name decides, always in the same way: about one photo in ten is for dev, the others for train. Other columns and
keys are ignored; files are UTF-8.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from .base import CaptionedPhoto, checked_caption, checked_photo, lines, numbered_lines, of_split, open_text

SPLITS = {split: split for split in ("train", "dev", "test")}
DEV_SHARE = 0.1


def load_folder(data: str, split: str) -> list[CaptionedPhoto]:
    """The photos of one split, "train", "dev" or "test", in the order in which the file first names them.

    Raises DataError for anything missing or malformed.
    """
    of_split(split, SPLITS)
    captions: dict[Path, list[str]] = {}
    splits: dict[Path, str] = {}
    for where, record in _records(Path(data)):
        name, texts = record.get("file_name"), record.get("caption")
        if not name or not isinstance(name, str):
            raise DataError(f"{where}: expected the photo's path as 'file_name', found {name!r:.80}.")
        path = checked_photo(Path(data), name, where)
        texts = texts if texts and isinstance(texts, list) else [texts]
        captions.setdefault(path, []).extend(checked_caption(text, where) for text in texts)
        chosen = record.get("split") or _split_by_hash(name)
        if chosen not in tuple(SPLITS):
            raise DataError(f"{where}: there is no split {chosen!r:.80}; there are: {', '.join(SPLITS)}.")
        if splits.setdefault(path, chosen) != chosen:
            raise DataError(f"{where}: the photo {name} is in {splits[path]} already.")
    return [CaptionedPhoto(path, tuple(texts)) for path, texts in captions.items() if splits[path] == split]


def _records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The captions file's rows or objects, each after its place."""
    for name, read in (("captions.csv", _csv_rows), ("captions.jsonl", _json_lines)):
        if (folder / name).is_file():
            return read(folder / name)
    raise DataError(f"There is no captions.csv or captions.jsonl in {folder}.")


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with open_text(path, newline="") as file:
        reader = csv.DictReader(lines(file, path), strict=True)
        try:
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:
                    raise DataError(f"{where}: more fields than the header; quote a caption that has commas.")
                yield where, row
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.reader.line_num}: {error}.") from error


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in numbered_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON: {error}.") from error
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected an object, found {record!r:.80}.")
        yield where, record


def _split_by_hash(name: str) -> str:
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
    return "dev" if int.from_bytes(digest[:4]) < DEV_SHARE * 2**32 else "train"
