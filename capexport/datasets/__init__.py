"""Photos with their captions: one table of data sets, which the command line reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, OptionError
from .base import CaptionedPhoto
from .coco import load_coco
from .conceptual_captions import load_conceptual_captions
from .flickr8k import load_flickr8k
from .folder import load_folder

__all__ = ["DATASETS", "CaptionedPhoto", "Dataset", "load_dataset"]


@dataclass(frozen=True)
class Dataset:
    """A data set: what names it, and its reader (data, split, limit, workspace, private) -> photos."""

    data: str
    load: Callable[[str, str, int | None, Path | None, bool], list[CaptionedPhoto]]


DATASETS = {
    "flickr8k": Dataset(
        "its folder, or where its two official zips are",
        lambda data, split, limit, workspace, private: load_flickr8k(data, split, workspace),
    ),
    "conceptual-captions": Dataset("the folder or URL of Google's two TSV files", load_conceptual_captions),
    "coco": Dataset(
        "the folder with annotations/ and the photos' folders",
        lambda data, split, limit, workspace, private: load_coco(data, split),
    ),
    "folder": Dataset(
        "photos and a captions.csv or captions.jsonl",
        lambda data, split, limit, workspace, private: load_folder(data, split),
    ),
}


def load_dataset(
    name: str,
    data: str | Path,
    split: str,
    limit: int | None = None,
    workspace: Path | None = None,
    private: bool = False,
) -> list[CaptionedPhoto]:
    """The photos of one split of a data set, the first `limit` of them.

    name       one of DATASETS
    data       where the data set is; each says in DATASETS what it takes
    split      "train" or "dev"; flickr8k and folder have "test", too
    workspace  where downloads and unpacked archives are kept (default: in `data`, or the current folder for a URL)
    private    take photos whose addresses are on this machine or on private networks, too

    Raises OptionError for an unknown name or a limit below 1, DataError for anything missing or malformed.
    """
    if name not in DATASETS:
        raise OptionError(f"There is no data set {name!r}; there are: {', '.join(DATASETS)}.")
    if limit is not None and limit < 1:
        raise OptionError(f"The number of photos must be at least 1, not {limit}.")
    photos = DATASETS[name].load(str(data), split, limit, workspace, private)[:limit]
    if not photos:
        raise DataError(f"{data} has no photos for the split {split!r}.")
    return photos
