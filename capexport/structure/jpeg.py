"""JPEG files walked before a decoder reads them: segments and scans are counted, without decoding one.

Markers are those of ITU-T T.81, table B.1. A decoder goes through the whole picture for each scan of a progressive
file, and a scan may be a dozen bytes.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from .limits import MalformedError

MOST_SEGMENTS = 5000  # cameras write some twenty; the text of large profiles is in pieces of 64 kB
MOST_SCANS = 100  # encoders write ten or so
MOST_STRAY = 1000  # bytes before a marker that decoders skip, padding among them
END, SCAN = 0xD9, 0xDA
ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
SEQUENTIAL = (0xC0, 0xC1)
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # what can end a scan's data


def check(file: BinaryIO) -> None:
    """Raise MalformedError for a JPEG file with more segments or scans than photos have; anything else passes.

    What is no segment is left to the decoder to refuse.
    """
    components, whole = 0, False
    for _ in range(MOST_SEGMENTS):
        marker, length = _segment(file)
        if marker in FRAMES and length >= 8:
            head = file.read(6)  # bits of a sample, height, width, components
            components, whole = head[-1] if head else 0, marker in SEQUENTIAL
            file.seek(length - 8, 1)
        elif marker == SCAN:
            first = file.read(1)
            if components and whole and first and first[0] == components:
                return  # the only scan that a decoder reads
            _check_scans(file.read())
            return
        elif marker in (0, END):
            return
        elif marker not in ALONE:
            file.seek(max(length - 2, 0), 1)
    raise MalformedError(f"it has more than {MOST_SEGMENTS} segments")


def _segment(file: BinaryIO) -> tuple[int, int]:
    """The next segment's marker and length; the marker 0 where there is none."""
    marker = _marker(file)
    if marker in ALONE or marker in (0, END):
        return marker, 0
    length = file.read(2)
    return (marker, struct.unpack(">H", length)[0]) if len(length) == 2 else (0, 0)


def _marker(file: BinaryIO) -> int:
    """The next marker, 0 at the end of the file; raises MalformedError if too much is before it."""
    pair = file.read(2)
    if len(pair) == 2 and pair[0] == 0xFF and pair[1] not in (0, 0xFF):
        return pair[1]  # as nearly always
    before = pair[-1] if pair else 0
    for _ in range(MOST_STRAY):
        sign = file.read(1)
        if not sign:
            return 0
        if before == 0xFF and sign[0] not in (0, 0xFF):
            return sign[0]
        before = sign[0]
    raise MalformedError(f"it has more than {MOST_STRAY} bytes between two segments")


def _check_scans(data: bytes) -> None:
    """Count the scans from the first one's data on, up to the end of the picture."""
    scans, markers, place = 1, 0, 0
    while (found := MARKER.search(data, place)) is not None:
        marker, place = data[found.start() + 1], found.end()
        markers += 1
        if marker == END:
            return
        if markers > MOST_SEGMENTS:
            raise MalformedError(f"it has more than {MOST_SEGMENTS} segments")
        if marker == SCAN:
            scans += 1
            if scans > MOST_SCANS:
                raise MalformedError(f"it has more than {MOST_SCANS} scans")
        elif marker not in ALONE:
            place += int.from_bytes(data[place : place + 2], "big")
