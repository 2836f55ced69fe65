"""ONNX files: a walk over protobuf's wire format, without onnx and without copying a tensor.

Field numbers are those of onnx.proto. A field that is not known here is refused, as is a second value of a field that
has one: readers of protobuf merge those, and what is merged is not what was looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..plain import quoted
from .limits import MAX_DEPTH, MAX_ITEMS, MAX_RANK, MAX_TEXT, MalformedError, tensor_bytes
from .order import Node, check_known, names_from_outside

DOMAINS = ("", "ai.onnx", "com.microsoft")
OUTSIDE = ("EPContext",)  # operators that name files
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIRES = {"number": VARINT, "float": FIXED32, "bytes": BYTES}

BITS = {
    1: 32,
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    16: 16,
    17: 8,
    18: 8,
    19: 8,
    20: 8,
    21: 4,
    22: 4,
}  # by TensorProto.DataType; strings and complex numbers are not among them
RAW = 9
DATA = {
    4: ((1,), FIXED32, 4),
    5: ((2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22), VARINT, 0),
    7: ((7,), VARINT, 0),
    10: ((11,), FIXED64, 8),
    11: ((12, 13), VARINT, 0),
}  # a tensor's fields of elements: the types that they are for, how one is written, its bytes if that is fixed
RESULTS = 12
NAMED = {5: 8, 11: 1, RESULTS: 1}  # a graph's fields of constants, inputs and outputs: where those have their names
CONTINUED = bytes(range(0x80, 0x100))  # bytes of a number that goes on

# Messages by name: field -> what it holds. A message's name, "text", "number", "float", "bytes", "data" (numbers,
# packed or one by one, not looked into), or the reason to refuse it. An asterisk marks fields that may repeat.
MESSAGES: dict[str, dict[int, str]] = {
    "model": {
        1: "number",
        2: "text",
        3: "text",
        4: "text",
        5: "number",
        6: "text",
        7: "graph",
        8: "*opset",
        14: "*property",
        20: "!it has code for training",
        25: "!it has functions of its own",
    },
    "opset": {1: "text", 2: "number"},
    "property": {1: "text", 2: "text"},
    "graph": {
        1: "*node",
        2: "text",
        5: "*tensor",
        10: "text",
        11: "*value",
        12: "*value",
        13: "*value",
        14: "!it has annotations of quantisation",
        15: "!it has sparse tensors",
        16: "*property",
    },
    "node": {
        1: "*text",
        2: "*text",
        3: "text",
        4: "text",
        5: "*attribute",
        6: "text",
        7: "text",
        8: "!it has overloaded functions",
        9: "*property",
    },
    "attribute": {
        1: "text",
        2: "float",
        3: "number",
        4: "bytes",
        5: "tensor",
        6: "graph",
        7: "*data",
        8: "*data",
        9: "*text",
        10: "*tensor",
        11: "*graph",
        13: "text",
        20: "number",
        21: "!it has functions of its own",
        22: "!it has sparse tensors",
        23: "!it has sparse tensors",
    },
    "tensor": {
        1: "*data",
        2: "number",
        4: "*data",
        5: "*data",
        6: "!it has tensors of text",
        7: "*data",
        8: "text",
        9: "bytes",
        10: "*data",
        11: "*data",
        12: "text",
        13: "!its tensors are in other files",
        14: "number",
        16: "*property",
    },
    "value": {1: "text", 2: "type", 3: "text", 4: "*property"},
    "type": {1: "tensor type", 6: "text"},
    "tensor type": {1: "number", 2: "shape"},
    "shape": {1: "*dimension"},
    "dimension": {1: "number", 2: "text", 3: "text"},
}


@dataclass(frozen=True)
class Field:
    """A field of a message: its number, its wire type, and its value, or where in the file it begins and ends."""

    number: int
    wire: int
    start: int
    end: int
    value: int


def check(data: bytes) -> None:
    """Raise MalformedError for a file that is no ONNX model of this project's making."""
    walk = _Walk(data)
    walk.message("model", 0, len(data), 0)
    if not walk.graphs:
        raise MalformedError("it has no graph")


@dataclass
class _Scope:
    """The names of a graph while it is walked; within: those that the graphs in its present node read from outside."""

    given: set[str] = dataclasses.field(default_factory=set)
    nodes: list[Node] = dataclasses.field(default_factory=list)
    results: set[str] = dataclasses.field(default_factory=set)
    within: set[str] = dataclasses.field(default_factory=set)


class _Walk:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._items = 0
        self.graphs = 0
        self._looked_at: dict[str, Callable[[list[Field]], None]] = {
            "opset": lambda fields: self._domain(fields, 1),
            "node": self._node,
            "tensor": self._tensor,
            "tensor type": self._tensor_type,
            "shape": self._shape,
        }
        self._scopes: list[_Scope] = []  # of the graphs that the walk is in

    def message(self, kind: str, start: int, end: int, depth: int) -> list[Field]:
        """Walk one message and all within it; its own fields."""
        if kind == "graph":
            self.graphs += 1
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedError(f"its graphs are nested more than {MAX_DEPTH} deep")
            self._scopes.append(_Scope())
        known = MESSAGES[kind]
        fields = list(self._fields(start, end))
        seen: set[int] = set()
        for field in fields:
            holds = known.get(field.number)
            if holds is None:
                raise MalformedError(f"a {kind} has an unknown field, {field.number}")
            if holds.startswith("!"):
                raise MalformedError(holds[1:])
            if field.number in seen and not holds.startswith("*"):
                raise MalformedError(f"a {kind} has its field {field.number} twice")
            seen.add(field.number)
            self._field(kind, holds.removeprefix("*"), field, depth)
        if kind in self._looked_at:
            self._looked_at[kind](fields)
        if kind == "graph":
            self._leave()
        return fields

    def _field(self, kind: str, holds: str, field: Field, depth: int) -> None:
        if holds in MESSAGES:
            if field.wire != BYTES:
                raise MalformedError(f"a {kind} has no {holds} where one belongs")
            within = self.message(holds, field.start, field.end, depth)
            if kind == "graph" and field.number in NAMED:
                named = self._scopes[-1].results if field.number == RESULTS else self._scopes[-1].given
                named.update(self._text(one) for one in within if one.number == NAMED[field.number])
        elif holds == "text":
            if field.wire != BYTES or field.end - field.start > MAX_TEXT:
                raise MalformedError(f"a {kind} has no text, or too much, in its field {field.number}")
            self._text(field)
        elif holds in WIRES and field.wire != WIRES[holds]:  # protobuf would take it for an unknown field
            raise MalformedError(f"a {kind} has no {holds} in its field {field.number}")

    def _fields(self, start: int, end: int) -> Iterator[Field]:
        place, data = start, self._data
        while place < end:
            key, place = self._varint(place, end)
            number, wire, value = key >> 3, key & 7, 0
            begin = place
            if wire == BYTES:
                length, begin = self._varint(place, end)
                place = begin + length
            elif wire == VARINT:
                value, place = self._varint(place, end)
            elif wire in (FIXED32, FIXED64):
                place += 4 if wire == FIXED32 else 8
                value = int.from_bytes(data[begin:place], "little")
            else:
                raise MalformedError("it is not in protobuf's format")
            if place > end:
                raise MalformedError("it is cut off")
            self._items += 1
            if self._items > MAX_ITEMS:
                raise MalformedError(f"it has more than {MAX_ITEMS} fields")
            yield Field(number, wire, begin, place, value)

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        """The number at a place, unsigned, and the place behind it."""
        data, value = self._data, 0
        for shift in range(0, 70, 7):
            if place >= end:
                raise MalformedError("it is cut off")
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, place
        raise MalformedError("it is not in protobuf's format")

    def _text(self, field: Field) -> str:
        try:
            return self._data[field.start : field.end].decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedError("a text in it is not UTF-8") from None

    def _domain(self, fields: list[Field], number: int) -> None:
        for field in fields:
            if field.number == number and self._text(field) not in DOMAINS:
                raise MalformedError(f"it has operators of the foreign domain {quoted(self._text(field))}")

    def _leave(self) -> None:
        """At the end of a graph: what it reads from outside must be there, or be known further outside."""
        scope = self._scopes.pop()
        outside = names_from_outside(scope.given, scope.nodes, scope.results)
        if self._scopes:
            self._scopes[-1].within.update(outside)
        else:
            check_known(outside)

    def _node(self, fields: list[Field]) -> None:
        scope = self._scopes[-1]
        taken, made = ([self._text(field) for field in fields if field.number == side] for side in (1, 2))
        scope.nodes.append(Node([*taken, *scope.within], made))
        scope.within = set()
        self._domain(fields, 7)
        for field in fields:
            if field.number == 4 and self._text(field) in OUTSIDE:
                raise MalformedError(f"its operator {self._text(field)} reaches for other files")

    def _tensor(self, fields: list[Field]) -> None:
        """The tensor's data must be there, and as much as its dimensions say."""
        by_number = {field.number: field for field in fields}
        name = self._text(by_number[8]) if 8 in by_number else ""
        if 14 in by_number and by_number[14].value:
            raise MalformedError("its tensors are in other files")
        bits = BITS.get(by_number[2].value if 2 in by_number else 0)
        if bits is None:
            raise MalformedError(f"the tensor {quoted(name)} is of an unknown type")
        dims = [n for field in fields if field.number == 1 for n in self._numbers(field)]
        size = tensor_bytes(dims, bits, name)
        if RAW not in by_number:
            self._elements(fields, by_number[2].value if 2 in by_number else 0, size * 8 // max(bits, 8), name)
        elif by_number.keys() & DATA.keys():
            raise MalformedError(f"the tensor {quoted(name)} has its elements in two places")
        elif (stored := by_number[RAW].end - by_number[RAW].start) != size:
            raise MalformedError(f"the tensor {quoted(name)} has {stored} bytes, which is not what its dimensions say")

    def _elements(self, fields: list[Field], dtype: int, count: int, name: str) -> None:
        """A tensor's elements must be in the field that is for their type, and so many."""
        stored = 0
        for field in fields:
            if field.number in DATA:
                types, wire, width = DATA[field.number]
                if dtype not in types or field.wire not in (wire, BYTES):
                    raise MalformedError(f"the tensor {quoted(name)} has its elements in a field of another type")
                stored += 1 if field.wire == wire else self._packed(field, width)
        if stored != count:
            raise MalformedError(f"the tensor {quoted(name)} has {stored} elements, not the {count} that it is to have")

    def _packed(self, field: Field, width: int) -> int:
        """How many elements there are in a field, each of so many bytes, or of as many as it takes (0)."""
        packed = self._data[field.start : field.end]
        if len(packed) % width if width else packed[-1:] > b"\x7f":
            raise MalformedError("a tensor's last element is cut off")
        return len(packed) // width if width else len(packed.translate(None, CONTINUED))

    def _numbers(self, field: Field) -> list[int]:
        """Dimensions, packed or one by one, signed."""
        if field.wire not in (VARINT, BYTES):
            raise MalformedError("a tensor's dimensions are no whole numbers")
        found = [field.value]
        if field.wire == BYTES:
            found, place = [], field.start
            while place < field.end:
                value, place = self._varint(place, field.end)
                found.append(value)
                if len(found) > MAX_RANK:
                    break  # which is refused as too many
        return [n - 2**64 if n >= 2**63 else n for n in found]

    def _tensor_type(self, fields: list[Field]) -> None:
        if any(field.number == 1 and field.value not in BITS for field in fields):
            raise MalformedError("a value is of an unknown type")

    def _shape(self, fields: list[Field]) -> None:
        """Of a graph's own values: with 1 for dimensions that vary."""
        dims = []
        for one in fields[: MAX_RANK + 1]:
            sizes = [field.value for field in self._fields(one.start, one.end) if field.number == 1]
            dims += [n - 2**64 if n >= 2**63 else n for n in sizes or [1]]
        tensor_bytes(dims, 8, "of a graph's input, output or value")
