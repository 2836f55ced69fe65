"""ORT files, onnxruntime's own format: what it does not look at itself once the offsets are known to be in bounds.

Field numbers are those of its schema. Nodes are wired twice, by names and by edges between indices: both must say the
same, for onnxruntime orders nodes by edges and finds tensors by names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..plain import quoted
from .flatbuffer import Reader, Table
from .limits import MAX_DEPTH, MAX_ITEMS, MalformedError, tensor_bytes
from .onnx import BITS, DOMAINS, OUTSIDE
from .order import Node, check_known, names_from_outside

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
        check_known(self._graph(graph, 1))

    def _properties(self, table: Table, field: int) -> None:
        for entry in self._read.tables(table, field):
            self._read.text(entry, 0)
            self._read.text(entry, 1)

    def _graph(self, graph: Table, depth: int) -> set[str]:
        """The names that a graph reads from outside."""
        read = self._read
        if depth > MAX_DEPTH:
            raise MalformedError(f"its graphs are nested more than {MAX_DEPTH} deep")
        if read.tables(graph, 7) or read.table(graph, 8):
            raise MalformedError("it has sparse tensors or optimisations to be done later")
        given = [self._tensor(tensor) for tensor in read.tables(graph, 0)]
        for value in read.tables(graph, 1):
            self._value(value)
        given += read.texts(graph, 5)
        nodes: dict[int, Node] = {}  # by index
        for node in read.tables(graph, 2):
            index = read.number(node, 4, "I")
            if index in nodes:
                raise MalformedError("two nodes have one index")
            nodes[index] = self._node(node, depth)
        most = read.number(graph, 3, "I")
        if most > MAX_ITEMS or any(index >= most for index in nodes):
            raise MalformedError("a node has an index that is too large")
        outside = names_from_outside(given, list(nodes.values()), read.texts(graph, 6))
        self._edges(read.tables(graph, 4), nodes)
        return outside

    def _node(self, node: Table, depth: int) -> Node:
        """The names of a node's inputs, implicit ones included, and outputs."""
        read = self._read
        for field in (0, 1, 7):
            read.text(node, field)
        domain, operator = read.text(node, 2), read.text(node, 5)
        if domain not in DOMAINS:
            raise MalformedError(f"it has operators of the foreign domain {quoted(domain)}")
        if operator in OUTSIDE:
            raise MalformedError(f"its operator {operator} reaches for other files")
        if read.number(node, 6, "i"):
            raise MalformedError("it has nodes that are fused for one device")
        inputs, outputs, implicit = (read.texts(node, field) for field in (8, 9, 12))
        if sum(read.numbers(node, 11, "i")) > len(inputs) + len(implicit):
            raise MalformedError("a node counts more inputs than it has")
        for attribute in read.tables(node, 10):
            if not self._attribute(attribute, depth) <= {*inputs, *implicit}:
                raise MalformedError("a graph in it reads what its node does not have")
        return Node([*inputs, *implicit], outputs)

    def _attribute(self, attribute: Table, depth: int) -> set[str]:
        """The names that the graphs in an attribute read from outside."""
        read = self._read
        for field in (0, 1, 5):
            read.text(attribute, field)
        read.vector(attribute, 8, 4)
        read.vector(attribute, 9, 8)
        read.texts(attribute, 10)
        tensor, graph = read.table(attribute, 6), read.table(attribute, 7)
        for one in (*read.tables(attribute, 11), *([tensor] if tensor else [])):
            self._tensor(one)
        graphs = (*read.tables(attribute, 12), *([graph] if graph else []))
        return {name for one in graphs for name in self._graph(one, depth + 1)}

    def _tensor(self, tensor: Table) -> str:
        """A tensor's name; there must be as many bytes as its dimensions say."""
        read, name = self._read, self._read.text(tensor, 0)
        read.text(tensor, 1)
        bits = BITS.get(read.number(tensor, 3, "i"))
        if bits is None or read.texts(tensor, 5):
            raise MalformedError(f"the tensor {quoted(name)} is of an unknown type")
        if read.number(tensor, 6, "q", default=-1) != -1:
            raise MalformedError("its tensors are in other files")
        size, stored = tensor_bytes(read.numbers(tensor, 2, "q"), bits, name), read.vector(tensor, 4, 1)[1]
        if stored != size:
            raise MalformedError(
                f"the tensor {quoted(name)} has {stored} bytes, not the {size} that its dimensions say"
            )
        return name

    def _value(self, value: Table) -> None:
        """A value's type and its dimensions, with 1 for those that vary."""
        read, name = self._read, self._read.text(value, 0)
        read.text(value, 1)
        kind = read.table(value, 2)
        if kind is None:
            return
        read.text(kind, 0)
        tensor = read.table(kind, 2)
        if tensor is None or read.number(kind, 1, "B") != TENSOR:
            raise MalformedError(f"the value {quoted(name)} is no tensor")
        shape = read.table(tensor, 1)
        dims = []
        for dimension in read.tables(shape, 0) if shape else ():
            read.text(dimension, 1)
            length = read.table(dimension, 0)
            if length is not None:
                read.text(length, 2)
                dims.append(read.number(length, 1, "q") if read.number(length, 0, "b") == 1 else 1)
        tensor_bytes(dims, 8, name)

    def _edges(self, tables: list[Table], nodes: dict[int, Node]) -> None:
        """Edges, listed with both of their nodes, must lead from where each name is made to where it is taken."""
        made = {name: (k, source) for k, node in nodes.items() for source, name in enumerate(node.made) if name}
        wanted = sorted(
            (*made[name], taker, target)
            for taker, node in nodes.items()
            for target, name in enumerate(node.taken)
            if name in made
        )
        for field in (1, 2):  # from other nodes to this one; from this one to others
            if sorted(edge for edges in tables for edge in self._listed(edges, field)) != wanted:
                raise MalformedError("its edges do not lead from where names are made to where they are taken")

    def _listed(self, edges: Table, field: int) -> Iterator[tuple[int, int, int, int]]:
        """The giver, its output, the taker and its input of each edge of a node."""
        node = self._read.number(edges, 0, "I")
        start, count = self._read.vector(edges, field, EDGE.size)
        for k in range(count):
            other, source, target = EDGE.unpack_from(self._data, start + k * EDGE.size)
            yield (other, source, node, target) if field == 1 else (node, source, other, target)
