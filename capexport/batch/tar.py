"""Tar files read as streams, header by header: whatever they say, without more memory than a header is allowed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from .xz import XzFile

BLOCK = 512
ZEROS = bytes(BLOCK)
LONGEST = 1 << 20  # bytes of a header that a member has beside its own, for its name and the like
FIELD, OCTAL = re.compile(rb"([0-9]{1,7}) ([^=]*)="), re.compile(rb"[0-7]*")
LONGEST_NAME = 4096
MOST = 16  # such headers of a member
CHUNK = 1 << 17
PLAIN, SPARSE, LONG_NAME, LONG_LINK = (b"0", b"\0", b"7"), b"S", b"L", b"K"
PAX, PAX_OF_ALL = (b"x", b"X"), b"g"
SPARSE_FIELD = "GNU.sparse"
WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes, whatever size they state
PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": XzFile,
    b"\x5d\0\0\x80": XzFile,
}
DAMAGES = (ValueError, EOFError, OverflowError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Member:
    """A plain file in a tar file.

    place  where its bytes begin
    """

    name: str
    place: int
    size: int


class Tar:
    """The plain files in a tar file, one after the other, packed by gzip, bzip2 or xz or not.

    file  can be read from anywhere

    Iterating raises one of DAMAGES for a file that is damaged or cut short, OSError for one that cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        begin = file.read(6)
        self._size = file.seek(0, 2)
        file.seek(0)
        self.packed = next((kind for magic, kind in PACKED.items() if begin.startswith(magic)), None)
        self._file = cast(BinaryIO, io.BufferedReader(self.packed(file), CHUNK)) if self.packed else file
        self._place = 0

    def __iter__(self) -> Iterator[Member]:
        of_all: dict[str, str] = {}
        while found := self._next(of_all):
            header, size, pax = found
            kind = header[156:157]
            data = 0 if kind in WITHOUT_DATA else size
            if not self.packed and data > self._size - self._place:
                raise ValueError(f"it ends within a member of {size} bytes")
            end = self._place + _padded(data)
            if len(pax["path"]) > LONGEST_NAME:
                raise ValueError(f"a name has {len(pax['path'])} signs")
            if kind in PLAIN and SPARSE_FIELD not in pax and not pax["path"].endswith("/"):
                yield Member(pax["path"], self._place, size)
            self._skip(end - self._place)

    def read(self, member: Member) -> bytes:
        """The bytes of the member that came last."""
        return self._exactly(member.size)

    def _next(self, of_all: dict[str, str]) -> tuple[bytes, int, dict[str, str]] | None:
        """The next member's own header, its size, and its name and what else stands beside; None at the end."""
        beside: dict[str, str] = {}
        for _ in range(MOST + 1):
            header = self._exactly(BLOCK)
            if header == ZEROS:
                return None
            _check(header, self._place - BLOCK)
            kind, size = header[156:157], _size(header[124:136])
            if kind == LONG_NAME:
                beside.setdefault("path", _text(self._beside(size)))
            elif kind == LONG_LINK:
                self._beside(size)
            elif kind == PAX_OF_ALL:
                of_all.update(_pax(self._beside(size)))
            elif kind in PAX:
                beside.update(_pax(self._beside(size)))
            else:
                if kind == SPARSE:
                    self._pass_map(header[482:483])
                pax = {"path": _name(header), **of_all, **beside}
                return header, _decimal(pax["size"]) if "size" in pax else size, pax
        raise ValueError(f"a member has more than {MOST} headers")

    def _beside(self, size: int) -> bytes:
        if size > LONGEST:
            raise ValueError(f"a header has {size} bytes, more than {LONGEST}")
        data = self._exactly(size)
        self._skip(_padded(size) - size)
        return data

    def _pass_map(self, more: bytes) -> None:
        """Pass over what an old sparse file's header goes on with."""
        for _ in range(LONGEST // BLOCK):
            if more == b"\0":
                return
            more = self._exactly(BLOCK)[504:505]
        raise ValueError("a sparse file's map has no end")

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        self._place += len(data)
        if len(data) < size:
            raise EOFError(f"it ends at byte {self._place:,}, where more should follow")
        return data

    def _skip(self, size: int) -> None:
        if not self.packed:  # there is so much, or its end comes at the next header
            self._place = self._file.seek(self._place + size)
            return
        while size > 0:
            size -= len(self._exactly(min(size, CHUNK)))


def _check(header: bytes, place: int) -> None:
    """Raise ValueError unless a header's sum is what it says, with bytes taken as signed ones or not."""
    stated, rest = _size(header[148:156]), header[:148] + b" " * 8 + header[156:]
    if stated != sum(rest) and stated != sum(rest) - 256 * sum(byte > 127 for byte in rest):
        raise ValueError(f"its header at byte {place:,} is damaged")


def _size(field: bytes) -> int:
    """A number as headers have it: octal digits, or 256-ary ones after a mark."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if not OCTAL.fullmatch(digits):
        raise ValueError("a number in a header is none")
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", text):
        raise ValueError(f"{text[:80]!r} is no size")
    return int(text)


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    """The fields of a header of POSIX, lines of their length, a space, a key, an equals sign and a value.

    Only the path and the size, and SPARSE_FIELD if there are any for sparse files.
    """
    fields, place = {}, 0
    while found := FIELD.match(data, place):
        end = place + int(found[1])
        if end <= found.end() or data[end - 1 : end] != b"\n":
            break
        key = SPARSE_FIELD if found[2].startswith(b"GNU.sparse.") else found[2].decode("utf-8", "replace")
        if key in ("path", "size", SPARSE_FIELD):
            fields[key] = data[found.end() : end - 1].decode("utf-8", "surrogateescape")
        place = end
    if data[place:].strip(b"\0"):
        raise ValueError("a header's fields are damaged")
    return fields


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
