"""Zip archives, as .npz files are: what their members say of themselves, before one is unpacked."""

from __future__ import annotations

import io
import zipfile

from .limits import MalformedError

MOST_MEMBERS = 1000
MOST_BYTES = 2**29  # of all members, unpacked: real ones have some megabytes
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1


def check(data: bytes) -> None:
    """Raise MalformedError for an archive that is damaged, or whose members are many, large, twice there or no files.

    zipfile gives no more bytes of a member than it says it has, so that a bound on what they say is one on what comes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except Exception as error:  # what zipfile raises for bytes made to do harm has no common base
        raise MalformedError(f"it is no zip archive: {error}") from error
    if len(members) > MOST_MEMBERS or sum(one.file_size for one in members) > MOST_BYTES:
        raise MalformedError(f"it unpacks to more than {MOST_MEMBERS} members or {MOST_BYTES} bytes")
    if len({one.filename for one in members}) != len(members):
        raise MalformedError("two of its members have one name")
    for one in members:
        if one.compress_type not in METHODS or one.flag_bits & ENCRYPTED or one.is_dir():
            raise MalformedError(f"its member {one.filename[:80]!r} is packed in another way than arrays are")
    starts = sorted((one.header_offset, one.compress_size) for one in members)
    if any(start + size > following for (start, size), (following, _) in zip(starts, starts[1:], strict=False)):
        raise MalformedError("its members overlap")
