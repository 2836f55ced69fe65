"""Photos in shards: tar files after the WebDataset convention, and Parquet files with a column of photos' bytes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DataError, ImageError, OptionError
from ..image import MOST_BYTES, Held
from ..image import SUFFIXES as PHOTOS
from .storage import is_folder, is_uri, join, listing, name_of, open_input
from .tables import load_parquet
from .tar import DAMAGES, Tar

ROWS, TOGETHER = 8, 1 << 25  # rows of a Parquet file, and bytes, that are read together


def photos_of_tar(shard: str) -> Iterator[Held]:
    """The photos of a tar file, packed by gzip or the like or not, in its order, by their names after the shard's.

    A photo's name is a key and one of image.SUFFIXES, as in WebDataset: `0001.jpg`, and not `0001.mask.png`. Other
    members are passed over, and nothing is unpacked to the disk.

    Raises DataError for a file that is damaged or no tar file, OSError for one that cannot be read.
    """
    with open_input(shard) as file, _whole_tar(shard):
        tar = Tar(file)
        for member in tar:
            if _is_photo(member.name):
                name = inside(shard, member.name)
                large = member.size > MOST_BYTES
                yield Held(name, _too_large(name, member.size) if large else tar.read(member))


@contextmanager
def _whole_tar(shard: str) -> Iterator[None]:
    try:
        yield
    except DAMAGES as error:
        raise DataError(f"{shard} is no whole tar file: {error}.") from error


def _too_large(name: str, size: int) -> ImageError:
    return ImageError(f"{name} is too large: {size / 1e6:.0f} MB, more than {MOST_BYTES >> 20} MiB.")


def inside(shard: str, name: str) -> str:
    """The path of a photo's row: the shard's, and the name after it, which leads nowhere else, whatever it is."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join((shard.rstrip("/") if is_uri(shard) else str(Path(shard)), *parts))


def _is_photo(name: str) -> bool:
    key, dot, extension = PurePosixPath(name).name.partition(".")
    return bool(key) and f"{dot}{extension.lower()}" in PHOTOS


def photos_of_parquet(shard: str) -> Iterator[Held]:
    """The photos of a Parquet file, row by row, named by the row's number from 0.

    They are in its only column of bytes, or of structures with a field `bytes`, as Hugging Face's data sets have it; of
    several such columns in the one that is called image. A row without bytes is a photo that cannot be read.

    Raises DataError for a file that is damaged or has no such column, OSError for one that cannot be read,
    MissingExtraError without pyarrow.
    """
    parquet = load_parquet()
    import pyarrow as pa

    try:
        with open_input(shard) as file, parquet.ParquetFile(file) as table:
            column, inner = _photo_column(shard, table.schema_arrow)
            path, number = f"{column}.bytes" if inner else column, 0
            for group in range(table.num_row_groups):
                rows, size = _rows_and_size(table.metadata.row_group(group), path)
                if rows == 1 and size > MOST_BYTES:
                    name = inside(shard, str(number))
                    yield Held(name, _too_large(name, size))
                    number += 1
                    continue
                # No photo is larger than what all of them are unpacked: so memory has a bound, copies or not.
                together = min(ROWS, max(1, TOGETHER // max(1, size)))
                for batch in table.iter_batches(together, [group], [path]):
                    values = batch.column(0)
                    for value in values.field("bytes") if inner else values:
                        yield _in_row(inside(shard, str(number)), value)
                        number += 1
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{shard} is no whole Parquet file: {error}.") from error


def _rows_and_size(group: Any, path: str) -> tuple[int, int]:
    """How many rows a group of a Parquet file has, and how many bytes a column of it, unpacked."""
    columns = (group.column(number) for number in range(group.num_columns))
    return group.num_rows, sum(one.total_uncompressed_size for one in columns if one.path_in_schema == path)


def _in_row(name: str, value: Any) -> Held:
    """The photo of a value of pyarrow's."""
    buffer = value.as_buffer() if value.is_valid else None
    if buffer is None:
        return Held(name, ImageError(f"{name} cannot be read: the row has no photo."))
    return Held(name, _too_large(name, buffer.size) if buffer.size > MOST_BYTES else buffer.to_pybytes())


def _photo_column(shard: str, schema: Any) -> tuple[str, bool]:
    """The name of the column with photos, and whether their bytes are in a field of it."""
    import pyarrow.types as types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    found = {field.name: False for field in schema if is_bytes(field.type)}
    for field in schema:
        if types.is_struct(field.type) and any(part.name == "bytes" and is_bytes(part.type) for part in field.type):
            found[field.name] = True
    name = "image" if "image" in found else next(iter(found), "")
    if not found or (len(found) > 1 and name != "image"):
        raise DataError(
            f"{shard} has {len(found) or 'no'} columns of bytes{': ' if found else ''}{', '.join(found)}; the one with "
            "the photos must be the only one, or be called image."
        )
    return name, found[name]


READERS: dict[str, Callable[[str], Iterator[Held]]] = {
    ".tar": photos_of_tar,
    ".tar.gz": photos_of_tar,
    ".tgz": photos_of_tar,
    ".parquet": photos_of_parquet,
}


IN_SHARD = re.compile(rf"(.*?(?:{'|'.join(map(re.escape, READERS))}))/(.*)", re.IGNORECASE | re.DOTALL)


def suffix_of(name: str) -> str | None:
    """The one of READERS that a name ends in."""
    return next((suffix for suffix in READERS if name.lower().endswith(suffix)), None)


def photos_of(shard: str) -> Iterator[Held]:
    """The photos of a shard, one after the other, each named as the shard and what it is called in there.

    Raises DataError for a shard that is damaged or cannot be read.
    """
    try:
        yield from READERS[suffix_of(shard) or ".tar"](shard)
    except OSError as error:
        raise DataError(f"{shard} cannot be read: {error}.") from error


def split_shard(path: str) -> tuple[str, str] | None:
    """The shard of a photo that is named after it, and the photo's name in there; None for a photo on its own."""
    found = IN_SHARD.fullmatch(path)
    return (found[1], found[2]) if found else None


def read_from_shard(shard: str, path: str) -> bytes:
    """The bytes of a photo in a shard, by the path of its row; raises DataError, or ImageError if it is not there."""
    if shard.lower().endswith(".tar") and not is_uri(shard):
        places = _places(shard)
        if path in places:
            place, size = places[path]
            with open_input(shard) as file:
                file.seek(place)
                return file.read(min(size, MOST_BYTES))
    for photo in photos_of(shard):
        if str(photo) == path:
            return photo.read()
    raise ImageError(f"There is no photo at {path}.")


@functools.lru_cache(maxsize=8)
def _places(shard: str) -> dict[str, tuple[int, int]]:
    """Where the photos of a tar file that is not packed are, and how large, by the paths of their rows."""
    try:
        with open_input(shard) as file, _whole_tar(shard):
            tar = Tar(file)
            members = [] if tar.packed else [member for member in tar if _is_photo(member.name)]
    except OSError as error:
        raise DataError(f"{shard} cannot be read: {error}.") from error
    return {inside(shard, member.name): (member.place, member.size) for member in members}


def find_shards(sources: Iterable[str]) -> list[str]:
    """The shards among these files and folders, by name, each once; raises DataError if a source is, or has, none."""
    found: dict[str, None] = {}
    for source in sources:
        if suffix_of(source) and not is_folder(source):
            found[source] = None
            continue
        if not is_folder(source):
            raise DataError(f"{source} is no shard: shards end in {', '.join(READERS)}.")
        entries = listing(source) if is_uri(source) else ((one.name, one.is_dir()) for one in Path(source).iterdir())
        names = sorted(name for name, inner in entries if suffix_of(name) and not inner and not name.startswith("."))
        if not names:
            raise DataError(f"There are no shards ({', '.join(READERS)}) in {source}.")
        found.update(dict.fromkeys(join(source, name) for name in names))
    return list(found)


@dataclass(frozen=True)
class Share:
    """The part of the work that one of several processes does.

    index  of this process, from 0
    count  of all of them
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise OptionError(f"A share is I/N with I from 0 to N - 1, as 0/8 to 7/8, not {self.index}/{self.count}.")

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read I/N; raises OptionError for anything else."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise OptionError(f"A share is I/N with I from 0 to N - 1, as 0/8 to 7/8, not {text}.")
        return cls(int(index), int(count))

    def has(self, number: int) -> bool:
        """Whether the piece of work of this number, from 0, is in it."""
        return number % self.count == self.index


ALL = Share()


def stem(shard: str) -> str:
    """The shard's name without its folder and its suffix."""
    name = name_of(shard)
    return name[: len(name) - len(suffix_of(name) or "")]
