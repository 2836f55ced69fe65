"""Photos that were captioned before, or nearly the same ones: they share the work.

A copy is told by the SHA-256 of its file. A near copy by a difference hash of 64 bits (dHash: the photo in grey at 9x8
pixels, a bit for each pixel that is darker than its right neighbour; Krawetz, 2013), of which up to NEAREST may differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..atomic import check_plain
from ..errors import ImageError, OptionError, OutputError
from ..image import Held, Pixels
from ..runtime.captioner import Captioner
from ..runtime.options import DecodingOptions
from .ahead import map_ahead, read_photo
from .rows import NOTHING, Row, caption_row, empty_if_doubtful, is_row, photo_row
from .storage import Source, read_whole

NEAREST = 3  # bits that may differ: then one of the hash's four parts of 16 bits is the same, and is looked up
PARTS = 4
TABLES = """
create table if not exists exact (key text primary key, row text) without rowid;
create table if not exists near (part integer, bits integer, hash integer, key text);
create index if not exists parts on near (part, bits);
"""


@dataclass(frozen=True)
class Found:
    """A photo that was read: its pixels and what tells copies of it, or what is wrong with it and nothing else."""

    path: str
    pixels: Pixels | ImageError
    sha256: str = ""
    hash: int = 0


class Cache:
    """Rows of earlier photos in an SQLite file, of any runs: those of other bundles or options do not count.

    file      is made if it is not there
    scope     says of which bundle and options its rows are
    distance  bits in which the hash of a near copy may differ; 0: copies alone
    """

    def __init__(self, file: Path, scope: str, distance: int = 0) -> None:
        if not 0 <= distance <= NEAREST:
            raise OptionError(f"Near copies differ in 1 to {NEAREST} bits of 64, or 0 for none, not in {distance}.")
        self._file, self._scope, self.distance = file, scope, distance
        check_plain(file)
        with self._refusals():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(file, timeout=60, check_same_thread=False)
            found = _schema(self._base)
            if found and found != _own_schema():  # a view or a trigger would run what somebody else wrote
                self._base.close()
                raise OutputError(f"{file} has other tables than a cache: remove it, or name another.")
            self._base.executescript(TABLES)

    def close(self) -> None:
        """Write what is not written yet."""
        with contextlib.closing(self._base):
            self.commit()

    def find(self, photo: Found) -> Row | None:
        """The row of a photo that it is a copy of, or failing that a near copy: the nearest and first."""
        with self._refusals():
            return self._row(self._key(photo)) or (self._row(self._nearest(photo.hash)) if self.distance else None)

    def add(self, photo: Found, row: Row) -> None:
        """Keep a photo's row, unless its copy has one."""
        key = self._key(photo)
        parts = [(*part, _signed(photo.hash), key) for part in self._parts(photo.hash)]
        with self._refusals():
            self._base.execute("insert or ignore into exact values (?, ?)", (key, json.dumps(row)))
            self._base.executemany("insert into near values (?, ?, ?, ?)", parts)

    def commit(self) -> None:
        """What was added is kept, whatever comes."""
        with self._refusals():
            self._base.commit()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{self._file} cannot be used as a cache: {error}.") from error

    def _row(self, key: str | None) -> Row | None:
        """The row of a key, which somebody else may have written."""
        found = self._base.execute("select row from exact where key = ?", (key,)).fetchone()
        if found is None:
            return None
        row: Any = None
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            row = json.loads(found[0])
        if not (isinstance(row, dict) and is_row({**row, "error": None, "run": ""})):
            raise self._no_captions()
        return {name: row[name] for name in ("path", *NOTHING)}

    def _no_captions(self) -> OutputError:
        return OutputError(f"{self._file} has rows that are no captions: remove it, or name another.")

    def _key(self, photo: Found) -> str:
        return f"{self._scope}:{photo.sha256}"

    def _parts(self, bits: int) -> list[tuple[int, int]]:
        return [(part, bits >> 16 * part & 0xFFFF) for part in range(PARTS)]

    def _nearest(self, bits: int) -> str | None:
        places = " or ".join("(part = ? and bits = ?)" for _ in range(PARTS))
        values = [value for part in self._parts(bits) for value in part]
        query = f"select hash, key from near where ({places}) and key >= ? and key < ? order by rowid"
        rows = self._base.execute(query, (*values, f"{self._scope}:", f"{self._scope};")).fetchall()
        if not all(isinstance(other, int) for other, _ in rows):
            raise self._no_captions()
        near = [(((_signed(bits) ^ other) & (2**64 - 1)).bit_count(), key) for other, key in rows]
        differing, key = min(near, key=lambda one: one[0], default=(NEAREST + 1, None))
        return key if differing <= self.distance else None


def _schema(base: sqlite3.Connection) -> set[tuple[str, ...]]:
    return set(base.execute("select type, name, tbl_name, sql from sqlite_master"))


def _own_schema() -> set[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as base:
        base.executescript(TABLES)
        return _schema(base)


@contextmanager
def open_cache(file: Path, scope: str, distance: int = 0) -> Iterator[Cache]:
    """A Cache, closed in the end."""
    cache = Cache(file, scope, distance)
    try:
        yield cache
    finally:
        cache.close()


def rows_with_copies(
    captioner: Captioner,
    batches: Iterable[Sequence[Source]],
    options: DecodingOptions,
    min_confidence: float,
    run: str,
    cache: Cache,
) -> Iterator[list[Row]]:
    """As ahead.rows_ahead, by groups; a photo whose copy was captioned has its row, the copy's path being `copy_of`.

    Which photo is a copy of which depends on their order alone, not on threads: photos are read ahead, and captioned
    in groups of a batch a thread, one group after the other.
    """
    threads = captioner.threads
    read = map_ahead(lambda photos: [_read(captioner, photo) for photo in photos], batches, threads)
    while group := list(itertools.chain.from_iterable(itertools.islice(read, threads))):
        known = [cache.find(found) if found.sha256 else None for found in group]
        firsts = _firsts(group, known, cache.distance)
        new = [k for k, first in enumerate(firsts) if first == k and known[k] is None and group[k].sha256]
        pixels = [one for k in new if not isinstance(one := group[k].pixels, ImageError)]
        captions = captioner.caption_pixels(np.stack(pixels), options) if pixels else []
        for k, caption in zip(new, captions, strict=True):
            row = {"path": group[k].path, **caption_row(caption)}
            cache.add(group[k], row)
            known[k] = row
        cache.commit()
        yield [_row(found, known[first], min_confidence, run) for found, first in zip(group, firsts, strict=True)]


def _firsts(group: Sequence[Found], known: Sequence[Row | None], distance: int) -> list[int]:
    """For each photo of a group the first one in it that it is a copy of, itself if it is none, or is known anyway."""
    firsts: list[int] = []
    for k, found in enumerate(group):
        same = (
            j
            for j in range(k)
            if firsts[j] == j
            and known[j] is None
            and group[j].sha256
            and (group[j].sha256 == found.sha256 or (distance and (group[j].hash ^ found.hash).bit_count() <= distance))
        )
        firsts.append(next(same, k) if known[k] is None and found.sha256 else k)
    return firsts


def _row(found: Found, known: Row | None, min_confidence: float, run: str) -> Row:
    """A photo's row with the caption that is known, of another or of its own, or with what is wrong with it."""
    if isinstance(found.pixels, ImageError):
        return photo_row(found.path, found.pixels, min_confidence, run)
    assert known is not None  # all that can be read are captioned by now
    caption = {name: value for name, value in known.items() if name != "path"}
    copy = {} if known["path"] == found.path else {"copy_of": known["path"]}
    return {"path": found.path, **empty_if_doubtful(caption, min_confidence), "error": None, "run": run, **copy}


def _read(captioner: Captioner, photo: Source) -> Found:
    """Its pixels and hashes, or what is wrong with it."""
    path = str(photo)
    try:
        body = _body(photo, path)
    except (OSError, ImageError):
        body = None
    pixels = read_photo(captioner, photo if body is None else Held(path, body))
    if isinstance(pixels, ImageError) or body is None:
        return Found(path, pixels)
    return Found(path, pixels, hashlib.sha256(body).hexdigest(), difference_hash(pixels))


def _body(photo: Source, path: str) -> bytes:
    if not isinstance(photo, Path):
        return photo.read()
    with photo.open("rb") as file:
        return read_whole(file, path)


def difference_hash(pixels: Pixels) -> int:
    """The dHash of a photo (height, width, 3): 64 bits."""
    small = np.asarray(Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BILINEAR))  # (8, 9)
    return int.from_bytes(np.packbits(small[:, :-1] < small[:, 1:]).tobytes(), "big")


def _signed(bits: int) -> int:
    """64 bits as SQLite has integers."""
    return bits - (1 << 64) if bits >> 63 else bits
