"""Photos named by their folder."""

from __future__ import annotations

from pathlib import Path

from ..errors import ImageError
from ..image import SUFFIXES


def photos_in(folder: Path) -> list[Path]:
    """The folder's photos by name; raises ImageError if it has none, or is none."""
    photos = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not photos:
        raise ImageError(f"There are no photos in {folder}.")
    return photos
