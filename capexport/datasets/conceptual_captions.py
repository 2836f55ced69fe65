"""Conceptual Captions (Sharma et al., 2018): captions beside the addresses of photos all over the web.

Google's two files, Train_GCC-training.tsv and Validation_GCC-1.1.0-Validation.tsv, have a line `caption<TAB>URL` for
each photo; many of the photos are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..download import download, is_url
from ..errors import DataError
from .base import CaptionedPhoto, checked_caption, numbered_lines, of_split
from .web_photos import WebPhotos

SPLIT_FILES = {"train": "Train_GCC-training.tsv", "dev": "Validation_GCC-1.1.0-Validation.tsv"}


def load_conceptual_captions(
    data: str, split: str, limit: int | None = None, workspace: Path | None = None, private: bool = False
) -> list[CaptionedPhoto]:
    """The first `limit` photos of one split, "train" or "dev", that can still be had, in the file's order.

    data       the folder with Google's two files, or its URL
    workspace  where the photos are kept, in conceptual-captions/ (default: `data`, or the current folder for a URL)

    private    take photos from this machine and from private networks, too

    A photo is fetched once; one that cannot be had is skipped, and one line on standard error says how many were.
    Raises DataError for a file that is missing or malformed, or if no photo at all can be had.
    """
    name = of_split(split, SPLIT_FILES)
    folder = (workspace or Path("" if is_url(data) else data)) / "conceptual-captions"
    if is_url(data):
        folder.mkdir(parents=True, exist_ok=True)
        listing = download(f"{data.rstrip('/')}/{name}", folder)
    else:
        listing = Path(data) / name
    if not listing.is_file():
        raise DataError(f"{data} has no {name}.")
    return WebPhotos(folder, private).take(read_listing(listing), limit, str(listing))


def read_listing(path: Path) -> Iterator[tuple[str, str]]:
    """(caption, URL) of each line; raises DataError at the first that is malformed."""
    for where, line in numbered_lines(path):
        fields = line.split("\t")
        if len(fields) != 2 or not fields[1].strip():
            raise DataError(f"{where}: expected 'caption<TAB>URL', found {line[:80]!r}.")
        yield checked_caption(fields[0], where), fields[1].strip()
