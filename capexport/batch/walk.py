"""The photos of a folder, one after the other, in an order that is the same each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import ImageError
from ..image import SUFFIXES


def photos_under(folder: Path, recursive: bool = False) -> Iterator[Path]:
    """The folder's photos by name, then those of its folders, if recursive; only one folder's names are held at a time.

    Hidden files and folders are left out, and so is what is neither a file nor a link to one; links to folders are not
    followed. A link to nothing counts as a photo, one that cannot be read.

    Raises ImageError if there is no such folder, OSError for one that must not be read.
    """
    if not folder.is_dir():
        raise ImageError(f"There is no folder at {folder}.")
    return _walk(folder, recursive)


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    photos, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif Path(entry.name).suffix.lower() in SUFFIXES and _is_file_or_gone(entry):
                photos.append(entry.name)
    for name in sorted(photos):
        yield folder / name
    if recursive:
        del photos
        for name in sorted(folders):
            yield from _walk(folder / name, recursive)


def _is_file_or_gone(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
