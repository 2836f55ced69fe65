"""The photos of a folder, one after the other, in an order that is the same each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import ImageError
from ..image import SUFFIXES
from .storage import Remote, Source, is_folder, is_uri, join, listing


def photos_under(folder: str | os.PathLike[str], recursive: bool = False) -> Iterator[Source]:
    """The folder's photos by name, then those of its folders, if recursive; only one folder's names are held at a time.

    Hidden files and folders are left out, and so is what is neither a file nor a link to one; links to folders are not
    followed. A link to nothing counts as a photo, one that cannot be read. The folder may be in storage, by its URI.

    Raises ImageError if there is no such folder, OSError for one that must not be read.
    """
    return map(Remote if is_uri(str(folder)) else Path, names_under(folder, recursive))


def names_under(folder: str | os.PathLike[str], recursive: bool = False) -> Iterator[str]:
    """The paths or URIs of what photos_under gives."""
    if not is_folder(str(folder)):
        raise ImageError(f"There is no folder at {folder}.")
    return _walk(str(folder), recursive)


def _walk(folder: str, recursive: bool) -> Iterator[str]:
    waiting = [folder]  # not by calls in calls, for folders are nested as deeply as anyone likes
    while waiting:
        here = waiting.pop()
        photos, folders = [], []
        for name, inner in listing(here) if is_uri(here) else _entries(here):
            if inner:
                folders.append(name)
            elif name.lower().endswith(SUFFIXES):
                photos.append(name)
        base = here.rstrip("/") + "/" if is_uri(here) else str(Path(here)).rstrip(os.sep) + os.sep
        for name in sorted(photos):
            yield base + name
        if recursive:
            waiting.extend(join(here, name) for name in sorted(folders, reverse=True))


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    """The names in a folder on disk that count, and whether each is a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                inner = entry.is_dir(follow_symlinks=False)
                if inner or _is_file_or_gone(entry):
                    yield entry.name, inner


def _is_file_or_gone(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
