"""TFLite files, beyond what a verifier of FlatBuffers sees: indices, sizes, order and who calls whom.

Field numbers are those of TFLite's schema. Beside the file's own bounds it is checked that there are built-in operators
only, that each has the inputs and options that its kernel reads, that a constant has as many bytes as its dimensions
say, that an operator reads only what was made before it, and that no graph calls itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..plain import quoted
from .flatbuffer import Reader, Table
from .limits import MAX_DEPTH, MalformedError, tensor_bytes
from .tflite_operators import check_operator

CUSTOM, DELEGATE = 32, 51  # operators
LAST_OPERATOR = 400  # there are half as many
BITS = {
    0: 32,
    1: 16,
    2: 32,
    3: 8,
    4: 64,
    6: 8,
    7: 16,
    9: 8,
    10: 64,
    12: 64,
    15: 32,
    16: 16,
    17: 4,
    18: 16,
    19: 2,
    20: 4,
    21: 8,
    22: 8,
}  # by TensorType; text, complex numbers, resources and variants are not among them
LISTS = {8: 5, 17: 0, 30: 0}  # options that have a list of numbers: of FullyConnected, Reshape, Squeeze; its field
CALLS = {16: 1, 92: 2, 93: 2, 103: 1}  # options that name graphs: of Call, If, While, CallOnce; how many
REFUSED_OPTIONS = (3, 111, 115)  # with lists or texts of operators that no captioner has


def check(data: bytes) -> None:
    """Raise MalformedError for a file that is no TFLite model of this project's making."""
    _Walk(Reader(data, b"TFL3")).model()


class _Walk:
    def __init__(self, reader: Reader) -> None:
        self._read = reader
        self._stored: list[int] = []  # bytes, by buffer
        self._operators: list[int] = []  # their codes
        self._tensors: list[int] = []  # how many, by graph
        self._calls: list[set[int]] = []  # by graph: those that it calls

    def model(self) -> None:
        read, model = self._read, self._read.root()
        self._stored = [self._buffer(buffer) for buffer in read.tables(model, 4)]
        self._operators = [self._operator_code(code) for code in read.tables(model, 1)]
        if read.tables(model, 8) or read.tables(model, 9):
            raise MalformedError("its tensors are in other files")
        graphs = read.tables(model, 2)
        self._calls = [set() for _ in graphs]
        for k, graph in enumerate(graphs):
            self._graph(graph, self._calls[k])
        self._check_calls()
        self._within((read.number(one, 1, "I") for one in read.tables(model, 6)), len(self._stored), "buffer")
        self._within(read.numbers(model, 5, "i"), len(self._stored), "buffer")
        self._signatures(read.tables(model, 7))

    def _buffer(self, buffer: Table) -> int:
        if self._read.number(buffer, 1, "Q") or self._read.number(buffer, 2, "Q"):
            raise MalformedError("its tensors are behind the end of its tables")
        return self._read.vector(buffer, 0, 1)[1]

    def _operator_code(self, code: Table) -> int:
        operator = max(self._read.number(code, 0, "b"), self._read.number(code, 3, "i"))
        custom = self._read.text(code, 1)
        if custom or operator in (CUSTOM, DELEGATE) or not 0 <= operator <= LAST_OPERATOR:
            raise MalformedError(f"it has an operator that is not built in: {quoted(custom or operator)}")
        return operator

    def _graph(self, graph: Table, calls: set[int]) -> None:
        read = self._read
        tensors = read.tables(graph, 0)
        count = len(tensors)
        self._tensors.append(count)
        ready = {k for k, tensor in enumerate(tensors) if self._is_there(tensor)}
        given = read.numbers(graph, 1, "i")
        self._within(given, count, "tensor")
        if ready & set(given):
            raise MalformedError("a graph's input is a constant")
        ready |= set(given)
        for operator in read.tables(graph, 3):
            self._operator(operator, count, ready, calls)
        made = read.numbers(graph, 2, "i")
        self._within(made, count, "tensor")
        if not ready.issuperset(made):
            raise MalformedError("a graph's output is never computed")

    def _is_there(self, tensor: Table) -> bool:
        """Whether a tensor has a value before anything is computed; its sizes are checked."""
        read, name = self._read, self._read.text(tensor, 3)
        shape, bits = read.numbers(tensor, 0, "i"), BITS.get(read.number(tensor, 1, "b"))
        if bits is None or read.table(tensor, 6) or read.tables(tensor, 9) or read.number(tensor, 10, "I"):
            raise MalformedError(
                f"the tensor {quoted(name)} is of a type that is not taken: sparse, text or a resource"
            )
        size = tensor_bytes(shape, bits, name)
        signature = read.numbers(tensor, 7, "i")
        if signature and (len(signature) != len(shape) or min(signature) < -1):
            raise MalformedError(f"the tensor {quoted(name)} has impossible dimensions")
        buffer = read.number(tensor, 2, "I")
        self._within([buffer], len(self._stored), "buffer")
        stored = self._stored[buffer]
        if stored and stored != size:
            raise MalformedError(
                f"the tensor {quoted(name)} has {stored} bytes, not the {size} that its dimensions say"
            )
        self._quantization(read.table(tensor, 4), shape, name)
        return bool(stored) or size == 0 or bool(read.number(tensor, 5, "B"))

    def _quantization(self, scales: Table | None, shape: tuple[int, ...], name: str) -> None:
        if scales is None:
            return
        read = self._read
        read.vector(scales, 0, 4)
        read.vector(scales, 1, 4)
        [count, zeros] = (read.vector(scales, field, size)[1] for field, size in ((2, 4), (3, 8)))
        axis = read.number(scales, 6, "i")
        lengths = {1, shape[axis]} if shape and 0 <= axis < len(shape) else {1}
        if read.number(scales, 4, "B") or (count and count not in lengths) or zeros not in (0, 1, count):
            raise MalformedError(f"the tensor {quoted(name)} has scales that do not fit it")

    def _operator(self, operator: Table, tensors: int, ready: set[int], calls: set[int]) -> None:
        read = self._read
        code = read.number(operator, 0, "I")
        self._within([code], len(self._operators), "operator")
        taken, made = read.numbers(operator, 1, "i"), read.numbers(operator, 2, "i")
        self._within(made, tensors, "tensor")
        kind, options = read.number(operator, 3, "B"), read.table(operator, 4)
        check_operator(self._operators[code], taken, len(made), kind if options else 0)
        if not ready.issuperset(k for k in taken if k != -1):  # -1: an input that is left out
            raise MalformedError("an operator reads what is not computed yet")
        if ready.intersection(made) or len(set(made)) != len(made):
            raise MalformedError("a tensor is written twice")
        ready.update(made)
        self._within(read.numbers(operator, 8, "i"), tensors, "tensor")
        read.vector(operator, 7, 1)
        if read.vector(operator, 5, 1)[1] or read.number(operator, 9, "Q") or read.number(operator, 11, "B"):
            raise MalformedError("an operator has options that are not of built-in ones")
        self._options(kind, options, calls)

    def _options(self, kind: int, options: Table | None, calls: set[int]) -> None:
        if options is None:
            return
        if kind in REFUSED_OPTIONS:
            raise MalformedError("it has an operator that no captioner has")
        if kind in LISTS:
            self._read.numbers(options, LISTS[kind], "i")
        calls.update(self._read.number(options, field, "i") for field in range(CALLS.get(kind, 0)))

    def _check_calls(self) -> None:
        """Layer by layer: graphs that call none, graphs that call only those, and so on; a circle is never reached."""
        self._within((callee for calls in self._calls for callee in calls), len(self._calls), "graph")
        left = dict(enumerate(self._calls))
        for _ in range(MAX_DEPTH):
            left = {k: calls for k, calls in left.items() if calls & left.keys()}
        if left:
            raise MalformedError(f"a graph calls itself, or graphs are nested more than {MAX_DEPTH} deep")

    def _signatures(self, signatures: list[Table]) -> None:
        read, names = self._read, set()
        for signature in signatures:
            graph = read.number(signature, 4, "I")
            self._within([graph], len(self._tensors), "graph")
            for entry in (*read.tables(signature, 0), *read.tables(signature, 1)):
                read.text(entry, 0)
                self._within([read.number(entry, 1, "I")], self._tensors[graph], "tensor")
            names.add(read.text(signature, 2))
        if len(names) != len(signatures):
            raise MalformedError("two of its graphs have one name")

    @staticmethod
    def _within(indices: Iterable[int], count: int, what: str) -> None:
        if any(not 0 <= index < count for index in indices):
            raise MalformedError(f"it refers to a {what} that it does not have")
