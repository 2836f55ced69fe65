"""Flickr8k (Hodosh, Young and Hockenmaier, 2013) in its official layout."""

from __future__ import annotations

import re
import urllib.parse
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ..download import download, is_url
from ..errors import DataError
from ..structure.archive import check_members
from ..structure.limits import MalformedError
from .base import CaptionedPhoto, checked_caption, checked_photo, numbered_lines, of_split

SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
PHOTO_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset")
ARCHIVES = ("Flickr8k_Dataset.zip", "Flickr8k_text.zip")
MOST_MEMBERS, MOST_BYTES = 50_000, 2**33  # of an archive; the photos' has some 8,000 members and 1.1 GB
CAPTION_FILE = "Flickr8k.token.txt"
_CAPTION_LINE = re.compile(r"(?P<name>[^\t#]+)#\d+\t(?P<caption>.*)")


def load_flickr8k(data: str, split: str, workspace: Path | None = None) -> list[CaptionedPhoto]:
    """The photos of one split, "train", "dev" or "test", in the order of the split's file.

    data       the unpacked data set, a folder or URL that holds its two official zips, or both zips' paths or
               URLs separated by a comma
    workspace  where zips are unpacked and downloads kept (default: beside the zips, or the current folder)

    Raises DataError for anything missing or malformed.
    """
    split_file = of_split(split, SPLIT_FILES)
    root = _unpacked(data, workspace)
    captions = _read_captions(_find(root, CAPTION_FILE))
    folder = _photo_folder(root)
    photos = []
    for where, line in numbered_lines(_find(root, split_file)):
        name = line.strip()
        if name not in captions:
            raise DataError(f"{where}: the photo {name} has no caption in {CAPTION_FILE}.")
        photos.append(CaptionedPhoto(checked_photo(folder, name, where), tuple(captions[name])))
    return photos


def _read_captions(path: Path) -> dict[str, list[str]]:
    captions = defaultdict(list)
    for where, line in numbered_lines(path):
        match = _CAPTION_LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{where}: expected 'NAME.jpg#K<TAB>caption', found {line[:80]!r}.")
        captions[match["name"]].append(checked_caption(match["caption"], where))
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
    elif is_url(data):
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
    if is_url(archive):
        target.mkdir(parents=True, exist_ok=True)
    path = download(archive, target) if is_url(archive) else Path(archive)
    try:
        with zipfile.ZipFile(path) as zipped:
            check_members(zipped, MOST_MEMBERS, MOST_BYTES)
            target.mkdir(parents=True, exist_ok=True)
            zipped.extractall(target)
    except FileNotFoundError as error:
        raise DataError(f"There is no archive at {path}.") from error
    except MalformedError as error:
        raise DataError(f"{path} is not unpacked: {error}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is not a whole zip archive ({error}); fetch it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be unpacked to {target}: {error.strerror or error}.") from error
    mark.touch()
