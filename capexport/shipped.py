"""What ships: a captioner, bundles of it, sample photos; in a checkout beside the package, within it in a wheel."""

from __future__ import annotations

from pathlib import Path

from .errors import SourceError

_PACKAGE = Path(__file__).resolve().parent
_PLACES = (_PACKAGE / "_exported", _PACKAGE.parent / "exported")
NAME = "flickr8k"


def shipped_captioner() -> Path:
    """The directory of the source captioner that ships; raises SourceError if it was removed."""
    return _find(Path(NAME, "captioner"))


def shipped_bundle(to: str, recipe: str) -> Path | None:
    """The directory of its bundle of this format and recipe, None if none ships."""
    places = (place / NAME / f"{to}-{recipe}" for place in _PLACES)
    return next((place for place in places if place.is_dir()), None)


def sample_photos() -> list[Path]:
    """The sample photos, public domain or CC0, in the order of their names."""
    return sorted(_find(Path("photos")).glob("*.jpg"))


def _find(name: Path) -> Path:
    for place in _PLACES:
        if (place / name).is_dir():
            return place / name
    raise SourceError(f"capexport's own {name} is not installed; name a captioner instead.")
