"""FlatBuffers, read with every offset checked, without generated code and without copying."""

from __future__ import annotations

import struct
from typing import NamedTuple

from .limits import MAX_ITEMS, MAX_TEXT, MalformedError

OUT_OF_BOUNDS = "an offset leads out of it"
NUMBERS = {code: struct.Struct(f"<{code}") for code in "bBHiIqQ"}
OFFSETS = {count: struct.Struct(f"<{count}H") for count in range(1, 40)}  # of tables with up to so many fields


class Table(NamedTuple):
    """A table's place in the file, and where its fields are, counted from there; 0 for those that are not set."""

    place: int
    fields: list[int]


class Reader:
    """The tables of one file; every method raises MalformedError for what lies outside of it.

    Fields are counted from 0, as in a schema.
    """

    def __init__(self, data: bytes, identifier: bytes) -> None:
        if data[4:8] != identifier or len(data) >= 2**31:
            raise MalformedError(f"it is no {identifier.decode()} file")
        self._data = data
        self._items = 0

    def root(self) -> Table:
        """The table that all others hang on."""
        return self._table(self._number("I", 0))

    def number(self, table: Table, field: int, code: str, default: int = 0) -> int:
        """A number; code is its letter in struct's language."""
        place = self._slot(table, field)
        return self._number(code, place) if place else default

    def table(self, table: Table, field: int) -> Table | None:
        """A table within a table."""
        place = self._slot(table, field)
        return self._table(self._follow(place)) if place else None

    def tables(self, table: Table, field: int) -> list[Table]:
        """A list of tables; empty if it is not set."""
        start, count = self.vector(table, field, 4)
        if self._items + count > MAX_ITEMS:
            raise MalformedError(f"it has more than {MAX_ITEMS} parts")
        return [self._table(self._follow(start + 4 * k)) for k in range(count)]

    def numbers(self, table: Table, field: int, code: str) -> tuple[int, ...]:
        """A list of numbers; empty if it is not set."""
        start, count = self.vector(table, field, struct.calcsize(f"<{code}"))
        self._count(count // 8)
        return struct.unpack_from(f"<{count}{code}", self._data, start) if count else ()

    def text(self, table: Table, field: int) -> str:
        """A string; empty if it is not set."""
        place = self._slot(table, field)
        return self._text(self._follow(place)) if place else ""

    def texts(self, table: Table, field: int) -> list[str]:
        """A list of strings."""
        start, count = self.vector(table, field, 4)
        self._count(count)
        return [self._text(self._follow(start + 4 * k)) for k in range(count)]

    def vector(self, table: Table, field: int, size: int) -> tuple[int, int]:
        """Where the items of a list begin, each of so many bytes, and their count; (0, 0) if it is not set."""
        place = self._slot(table, field)
        if not place:
            return 0, 0
        place = self._follow(place)
        count = self._number("I", place)
        if place + 4 + count * size > len(self._data):
            raise MalformedError(OUT_OF_BOUNDS)
        return place + 4, count

    def _table(self, place: int) -> Table:
        self._count(1)
        data = self._data
        vtable = place - self._number("i", place)
        length = self._number("H", vtable)
        kind = OFFSETS.get(length // 2 - 1)
        if place % 4 or kind is None or length % 2 or vtable + length > len(data):
            raise MalformedError(OUT_OF_BOUNDS)
        size, *fields = kind.unpack_from(data, vtable + 2)
        if size < 4 or place + size > len(data) or max(fields, default=0) >= max(size, 4):
            raise MalformedError(OUT_OF_BOUNDS)
        return Table(place, fields)

    def _slot(self, table: Table, field: int) -> int:
        offset = table.fields[field] if field < len(table.fields) else 0
        return table.place + offset if offset else 0

    def _follow(self, place: int) -> int:
        """Where an offset leads: always forward."""
        distance = self._number("I", place)
        if not distance or place + distance >= len(self._data):
            raise MalformedError(OUT_OF_BOUNDS)
        return place + distance

    def _number(self, code: str, place: int) -> int:
        kind = NUMBERS[code]
        if not 0 <= place <= len(self._data) - kind.size or place % kind.size:
            raise MalformedError(OUT_OF_BOUNDS)
        number: int = kind.unpack_from(self._data, place)[0]
        return number

    def _text(self, place: int) -> str:
        length = self._number("I", place)
        end = place + 4 + length
        if length > MAX_TEXT or end >= len(self._data) or self._data[end]:  # a zero ends it
            raise MalformedError("a text in it is too long or has no end")
        self._count(length // 64)  # many offsets may lead to one long text, which each of them has anew
        try:
            return self._data[place + 4 : end].decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedError("a text in it is not UTF-8") from None

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > MAX_ITEMS:
            raise MalformedError(f"it has more than {MAX_ITEMS} parts")
