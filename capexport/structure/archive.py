"""Zip archives: what their members say of themselves, before one is unpacked."""

from __future__ import annotations

import io
import itertools
import stat
import zipfile
from pathlib import PurePosixPath

from ..plain import quoted, shortened
from .limits import MalformedError

LONGEST = 1000  # characters of a member's name
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1
KINDS = (0, stat.S_IFREG, stat.S_IFDIR)  # of files: 0 where the archive does not say


def check(data: bytes, members: int = 1000, most: int = 2**29) -> None:
    """Raise MalformedError unless the bytes are an archive as of check_members; real .npz files have some megabytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_members(archive, members, most)
    except MalformedError:
        raise
    except Exception as error:  # what zipfile raises for bytes made to do harm has no common base
        raise MalformedError(f"it is no zip archive: {shortened(error)}") from error


def check_members(archive: zipfile.ZipFile, members: int, most: int) -> None:
    """Raise MalformedError for an archive whose members are more than so many, or more than so many bytes unpacked.

    So, too, for members that lead out of the folder, are links or devices, share a name or bytes, or are encrypted.
    zipfile gives no more bytes of a member than it says it has: a bound on what they say is one on what comes.
    """
    found = archive.infolist()
    if len(found) > members or sum(one.file_size for one in found) > most:
        raise MalformedError(f"it unpacks to more than {members} members or {most} bytes")
    _check_places(archive)
    for one in found:
        path = PurePosixPath(one.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in one.filename:
            raise MalformedError(f"its member {quoted(one.filename)} leads out of it")
        if stat.S_IFMT(one.external_attr >> 16) not in KINDS:
            raise MalformedError(f"its member {quoted(one.filename)} is no file")
        if one.compress_type not in METHODS or one.flag_bits & ENCRYPTED:
            raise MalformedError(f"its member {quoted(one.filename)} is encrypted, or packed in an odd way")
    places = sorted((one.header_offset, one.compress_size) for one in found)
    if any(start + size > following for (start, size), (following, _) in itertools.pairwise(places)):
        raise MalformedError("its members share bytes")


def _check_places(archive: zipfile.ZipFile) -> None:
    """Raise MalformedError for members that would be unpacked to one place, to the folder itself, or below a file."""
    named: dict[bool, set[PurePosixPath]] = {False: set(), True: set()}  # files, and folders
    parents: set[PurePosixPath] = set()
    for one in archive.infolist():
        if len(one.filename) > LONGEST:
            raise MalformedError(f"its member {quoted(one.filename)} has a name that is too long")
        place = PurePosixPath(one.filename.replace("\\", "/").casefold())  # no two where case is not told apart
        if place in named[one.is_dir()] or not (place.parts or one.is_dir()):
            raise MalformedError(f"two of its members have one name, {quoted(one.filename)}")
        named[one.is_dir()].add(place)
        parents.update(place.parents)
    if both := named[False] & (named[True] | parents):
        raise MalformedError(f"its member {quoted(min(map(str, both)))} is a file and a folder")
