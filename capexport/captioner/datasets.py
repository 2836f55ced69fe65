"""Photos with their captions: Flickr8k (Hodosh, Young and Hockenmaier, 2013) in its official layout."""

from __future__ import annotations

import re
import urllib.parse
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .download import download

SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
PHOTO_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset")
ARCHIVES = ("Flickr8k_Dataset.zip", "Flickr8k_text.zip")
CAPTION_FILE = "Flickr8k.token.txt"
_CAPTION_LINE = re.compile(r"(?P<name>[^\t#]+)#\d+\t(?P<caption>.*\S.*)")


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo's path and its captions, as people wrote them."""

    path: Path
    captions: tuple[str, ...]


def load_flickr8k(data: str | Path, split: str, workspace: Path | None = None) -> list[CaptionedPhoto]:
    """The photos of one split, "train", "dev" or "test", in the order of the split's file.

    data       the unpacked data set, a folder or URL that holds its two official zips, or both zips' paths or
               URLs separated by a comma
    workspace  where zips are unpacked and downloads kept (default: beside the zips, or the current folder)

    Raises DataError for anything missing or malformed.
    """
    if split not in SPLIT_FILES:
        raise DataError(f"There is no split {split!r}; there are: {', '.join(SPLIT_FILES)}.")
    root = _unpacked(str(data), workspace)
    captions = _read_captions(_find(root, CAPTION_FILE))
    photos = _photo_folder(root)
    names = _find(root, SPLIT_FILES[split]).read_text(encoding="utf-8").split()
    return [_captioned_photo(photos / name, captions) for name in names]


def _captioned_photo(path: Path, captions: dict[str, list[str]]) -> CaptionedPhoto:
    if not path.is_file():
        raise DataError(f"A photo of the data set is missing: {path}.")
    if path.name not in captions:
        raise DataError(f"The photo {path} has no caption in {CAPTION_FILE}.")
    return CaptionedPhoto(path, tuple(captions[path.name]))


def _read_captions(path: Path) -> dict[str, list[str]]:
    captions = defaultdict(list)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _CAPTION_LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}, line {number}: expected 'NAME.jpg#K<TAB>caption', found {line[:80]!r}.")
        captions[match["name"]].append(match["caption"])
    return captions


def _photo_folder(root: Path) -> Path:
    for name in PHOTO_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"{root} has no folder {PHOTO_FOLDERS[0]} with the photos.")


def _find(root: Path, name: str) -> Path:
    for folder in (root, root / "Flickr8k_text"):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{root} has no {name}, nor has its folder Flickr8k_text.")


def _unpacked(data: str, workspace: Path | None) -> Path:
    """The folder with the data set's files, unpacked from its zips first if need be."""
    folder = Path(data)
    if folder.is_dir():
        archives: Sequence[str] = [str(folder / name) for name in ARCHIVES]
        if not all(Path(archive).is_file() for archive in archives):
            return folder
        workspace = workspace or folder
    elif data.endswith(".zip"):
        archives = data.split(",")
    elif _is_url(data):
        archives = [f"{data.rstrip('/')}/{name}" for name in ARCHIVES]
    else:
        raise DataError(f"There is no data set at {data}.")
    target = (workspace or Path()) / "flickr8k"
    for archive in archives:
        _unpack(archive, target)
    return target


def _unpack(archive: str, target: Path) -> None:
    mark = target / f".{Path(urllib.parse.urlparse(archive).path).name}.unpacked"
    if mark.exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    path = download(archive, target) if _is_url(archive) else Path(archive)
    try:
        with zipfile.ZipFile(path) as zipped:
            zipped.extractall(target)
    except FileNotFoundError as error:
        raise DataError(f"There is no archive at {path}.") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not a whole zip archive ({error}); fetch it again.") from error
    mark.touch()


def _is_url(text: str) -> bool:
    return urllib.parse.urlparse(text).scheme in ("http", "https")
