"""Files packed by xz or lzma, read with a bound on memory: what packs may ask for a dictionary of 4 GB."""

from __future__ import annotations

import io
import lzma
from typing import Any, BinaryIO

MEMORY = 1 << 27  # bytes; the highest of xz's own settings, -9, takes half of it
CHUNK = 1 << 16


class XzFile(io.RawIOBase):
    """The unpacked bytes, in order, of one stream or several after each other.

    Reading raises lzma.LZMAError for what is damaged or takes more than MEMORY, EOFError for what is cut short.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unpacker = lzma.LZMADecompressor(memlimit=MEMORY)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            if self._unpacker.eof:
                self._rest = self._unpacker.unused_data.lstrip(b"\0")  # padding
                while not self._rest:
                    more = self._file.read(CHUNK)
                    if not more:
                        return 0
                    self._rest = more.lstrip(b"\0")
                self._unpacker = lzma.LZMADecompressor(memlimit=MEMORY)
            elif self._unpacker.needs_input and not self._rest:
                self._rest = self._file.read(CHUNK)
                if not self._rest:
                    raise EOFError("it ends within what is packed")
            data = self._unpacker.decompress(self._rest, len(buffer))
            self._rest = b""
        buffer[: len(data)] = data
        return len(data)
