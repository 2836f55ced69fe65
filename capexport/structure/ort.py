"""ORT files, onnxruntime's own format: what it does not look at itself once the offsets are known to be in bounds.

Field numbers are those of its schema. Nodes are wired by indices, which must be of nodes and arguments that exist.
"""

from __future__ import annotations

import struct

from .flatbuffer import Reader, Table
from .limits import MAX_DEPTH, MAX_ITEMS, MalformedError, tensor_bytes
from .onnx import BITS, DOMAINS, OUTSIDE

EDGE = struct.Struct("<Iii")  # to or from a node; the argument it comes from, the one it goes to
TENSOR = 1  # TypeInfoValue


def check(data: bytes) -> None:
    """Raise MalformedError for a file that is no ORT model of this project's making."""
    _Walk(Reader(data, b"ORTM"), data).session()


class _Walk:
    def __init__(self, reader: Reader, data: bytes) -> None:
        self._read = reader
        self._data = data

    def session(self) -> None:
        read, session = self._read, self._read.root()
        read.text(session, 0)
        model = read.table(session, 1)
        graph = model and read.table(model, 7)
        if model is None or graph is None:
            raise MalformedError("it has no graph")
        for opset in read.tables(model, 1):
            read.text(opset, 0)
        for field in (2, 3, 4, 6, 8):
            read.text(model, field)
        self._properties(model, 9)
        kernels = read.table(session, 3)
        for operator in read.tables(kernels, 0) if kernels else ():
            read.text(operator, 0)
            for kind in read.tables(operator, 1):
                read.text(kind, 0)
                read.tables(kind, 1)
        self._graph(graph, 1)

    def _properties(self, table: Table, field: int) -> None:
        for entry in self._read.tables(table, field):
            self._read.text(entry, 0)
            self._read.text(entry, 1)

    def _graph(self, graph: Table, depth: int) -> None:
        read = self._read
        if depth > MAX_DEPTH:
            raise MalformedError(f"its graphs are nested more than {MAX_DEPTH} deep")
        if read.tables(graph, 7) or read.table(graph, 8):
            raise MalformedError("it has sparse tensors or optimisations to be done later")
        for tensor in read.tables(graph, 0):
            self._tensor(tensor)
        for value in read.tables(graph, 1):
            self._value(value)
        read.texts(graph, 5)
        read.texts(graph, 6)
        arguments: dict[int, tuple[int, int]] = {}  # inputs and outputs of each node, by its index
        for node in read.tables(graph, 2):
            index = read.number(node, 4, "I")
            if index in arguments:
                raise MalformedError("two nodes have one index")
            arguments[index] = self._node(node, depth)
        most = read.number(graph, 3, "I")
        if most > MAX_ITEMS or any(index >= most for index in arguments):
            raise MalformedError("a node has an index that is too large")
        for edges in read.tables(graph, 4):
            self._edges(edges, arguments)

    def _node(self, node: Table, depth: int) -> tuple[int, int]:
        """How many inputs, implicit ones included, and outputs a node has."""
        read = self._read
        for field in (0, 1, 7):
            read.text(node, field)
        domain, operator = read.text(node, 2), read.text(node, 5)
        if domain not in DOMAINS:
            raise MalformedError(f"it has operators of the foreign domain {domain[:80]!r}")
        if operator in OUTSIDE:
            raise MalformedError(f"its operator {operator} reaches for other files")
        if read.number(node, 6, "i"):
            raise MalformedError("it has nodes that are fused for one device")
        inputs, outputs, implicit = (read.texts(node, field) for field in (8, 9, 12))
        if sum(read.numbers(node, 11, "i")) > len(inputs) + len(implicit):
            raise MalformedError("a node counts more inputs than it has")
        for attribute in read.tables(node, 10):
            self._attribute(attribute, depth)
        return len(inputs) + len(implicit), len(outputs)

    def _attribute(self, attribute: Table, depth: int) -> None:
        read = self._read
        for field in (0, 1, 5):
            read.text(attribute, field)
        read.vector(attribute, 8, 4)
        read.vector(attribute, 9, 8)
        read.texts(attribute, 10)
        tensor, graph = read.table(attribute, 6), read.table(attribute, 7)
        for one in (*read.tables(attribute, 11), *([tensor] if tensor else [])):
            self._tensor(one)
        for one in (*read.tables(attribute, 12), *([graph] if graph else [])):
            self._graph(one, depth + 1)

    def _tensor(self, tensor: Table) -> None:
        read, name = self._read, self._read.text(tensor, 0)[:80]
        read.text(tensor, 1)
        bits = BITS.get(read.number(tensor, 3, "i"))
        if bits is None or read.texts(tensor, 5):
            raise MalformedError(f"the tensor {name!r} is of an unknown type")
        if read.number(tensor, 6, "q", default=-1) != -1:
            raise MalformedError("its tensors are in other files")
        size, stored = tensor_bytes(read.numbers(tensor, 2, "q"), bits, name), read.vector(tensor, 4, 1)[1]
        if stored != size:
            raise MalformedError(f"the tensor {name!r} has {stored} bytes, not the {size} that its dimensions say")

    def _value(self, value: Table) -> None:
        """A value's type and its dimensions, with 1 for those that vary."""
        read, name = self._read, self._read.text(value, 0)[:80]
        read.text(value, 1)
        kind = read.table(value, 2)
        if kind is None:
            return
        read.text(kind, 0)
        tensor = read.table(kind, 2)
        if tensor is None or read.number(kind, 1, "B") != TENSOR:
            raise MalformedError(f"the value {name!r} is no tensor")
        shape = read.table(tensor, 1)
        dims = []
        for dimension in read.tables(shape, 0) if shape else ():
            read.text(dimension, 1)
            length = read.table(dimension, 0)
            if length is not None:
                read.text(length, 2)
                dims.append(read.number(length, 1, "q") if read.number(length, 0, "b") == 1 else 1)
        tensor_bytes(dims, 8, name)

    def _edges(self, edges: Table, arguments: dict[int, tuple[int, int]]) -> None:
        read, node = self._read, self._read.number(edges, 0, "I")
        for field in (1, 2):  # from other nodes to this one; from this one to others
            start, count = read.vector(edges, field, EDGE.size)
            for k in range(count):
                other, source, target = EDGE.unpack_from(self._data, start + k * EDGE.size)
                giver, taker = (other, node) if field == 1 else (node, other)
                if giver not in arguments or taker not in arguments:
                    raise MalformedError("an edge leads to a node that it does not have")
                if not (0 <= source < arguments[giver][1] and 0 <= target < arguments[taker][0]):
                    raise MalformedError("an edge leads to an argument that its node does not have")
