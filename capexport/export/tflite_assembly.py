"""A TFLite model put together out of finished ones and of operators of our own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

OPERATOR = schema.BuiltinOperator
KINDS = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
    "bool": schema.TensorType.BOOL,
}
OPTIONS = {
    OPERATOR.ARG_MAX: "ArgMaxOptions",
    OPERATOR.GATHER: "GatherOptions",
    OPERATOR.IF: "IfOptions",
    OPERATOR.PACK: "PackOptions",
    OPERATOR.SOFTMAX: "SoftmaxOptions",
    OPERATOR.WHILE: "WhileOptions",
}


class Spec(NamedTuple):
    """A tensor's shape and dtype; -1 is a dimension that varies."""

    shape: tuple[int, ...]
    dtype: str


class Assembly:
    """A model on its way. Its subgraphs share buffers and operators' codes, which they know by their numbers."""

    def __init__(self) -> None:
        self._content = schema.ModelT()
        self._content.version = 3
        self._content.operatorCodes, self._content.subgraphs, self._content.signatureDefs = [], [], []
        self._content.buffers = [schema.BufferT()]  # number 0 stands for nothing, by the format

    def model(self) -> bytes:
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self._content))

    def add(self, graph: Any) -> int:
        """The number of a new subgraph."""
        self._content.subgraphs.append(graph)
        return len(self._content.subgraphs) - 1

    def take(self, model: bytes, name: str) -> Subgraph:
        """The one subgraph of a finished model, with its weights; it gets a new name and loses its signature."""
        content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
        [graph], [signature] = content.subgraphs, content.signatureDefs
        first = len(self._content.buffers)
        self._content.buffers += content.buffers
        for tensor in graph.tensors:
            tensor.buffer = tensor.buffer + first if content.buffers[tensor.buffer].data is not None else 0
        for operator in graph.operators:
            operator.opcodeIndex = self._shared(content.operatorCodes[operator.opcodeIndex])
        graph.name = name
        taken = Subgraph(self, graph)
        for names, side in ((taken.inputs, graph.inputs), (taken.outputs, graph.outputs)):
            known = {entry.tensorIndex: entry.name.decode() for entry in (*signature.inputs, *signature.outputs)}
            names |= {known[number]: int(number) for number in side}
        return taken

    def sign(self, name: str, subgraph: Subgraph) -> None:
        """Give a subgraph a signature, by which programs call it."""
        made = schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = name, subgraph.number
        made.inputs, made.outputs = _entries(subgraph.inputs), _entries(subgraph.outputs)
        self._content.signatureDefs.append(made)

    def code(self, builtin: int) -> int:
        """The number of a built-in operator's code: in the version that a model taken in uses, or the first."""
        for number, known in enumerate(self._content.operatorCodes):
            if known.builtinCode == builtin:
                return number
        made = schema.OperatorCodeT()
        made.builtinCode, made.version = builtin, 1
        return self._shared(made)

    def buffer(self, data: bytes) -> int:
        """The number of a new buffer."""
        made = schema.BufferT()
        made.data = np.frombuffer(data, np.uint8)
        self._content.buffers.append(made)
        return len(self._content.buffers) - 1

    def _shared(self, code: Any) -> int:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # a byte, from before there were more
        key = code.builtinCode, code.version, code.customCode
        for number, known in enumerate(self._content.operatorCodes):
            if (known.builtinCode, known.version, known.customCode) == key:
                return number
        self._content.operatorCodes.append(code)
        return len(self._content.operatorCodes) - 1


class Subgraph:
    """A subgraph of an assembly; tensors are known by their numbers.

    inputs, outputs  by their names, in the order in which the subgraph takes and gives them
    """

    def __init__(self, assembly: Assembly, graph: Any) -> None:
        self._assembly = assembly
        self._graph = graph
        self.number = assembly.add(graph)
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}

    @classmethod
    def named(cls, assembly: Assembly, name: str) -> Subgraph:
        """A new one, with nothing in it."""
        graph = schema.SubGraphT()
        graph.name, graph.inputs, graph.outputs, graph.tensors, graph.operators = name, [], [], [], []
        return cls(assembly, graph)

    def spec(self, number: int) -> Spec:
        """A tensor's shape and dtype."""
        tensor = self._graph.tensors[number]
        shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        [dtype] = (dtype for dtype, kind in KINDS.items() if kind == tensor.type)
        return Spec(tuple(map(int, shape)), dtype)

    def take(self, specs: Mapping[str, Spec]) -> None:
        """Take inputs of these names."""
        self.inputs = {name: self._tensor(spec, name) for name, spec in specs.items()}
        self._graph.inputs = list(self.inputs.values())

    def give(self, outputs: Mapping[str, int]) -> None:
        """Give these tensors as outputs."""
        self.outputs = dict(outputs)
        self._graph.outputs = list(self.outputs.values())

    def constant(self, values: Any, dtype: str) -> int:
        array: NDArray[Any] = np.asarray(values, dtype)
        return self._tensor(Spec(array.shape, dtype), buffer=self._assembly.buffer(array.tobytes()))

    def apply(self, builtin: int, inputs: Sequence[int], spec: Spec, **options: Any) -> int:
        """The result of a built-in operator; options are named as in the format's schema."""
        result = self._tensor(spec)
        self._operate(builtin, inputs, [result], options)
        return result

    def call(self, other: Subgraph, given: Mapping[str, int], batch: int) -> dict[str, int]:
        """The results of another subgraph by name, for a batch of so many, -1 where it varies.

        The format has no operator that calls a subgraph but IF, whose condition always holds here.
        """
        return self.either(self.constant(True, "bool"), other, other, given, batch)

    def either(
        self, condition: int, holds: Subgraph, fails: Subgraph, given: Mapping[str, int], batch: int = 1
    ) -> dict[str, int]:
        """The results of one of two subgraphs, which take and give the same tensors."""
        specs = {name: _batched(holds.spec(number), batch) for name, number in holds.outputs.items()}
        results = {name: self._tensor(spec) for name, spec in specs.items()}
        inputs = [condition, *(given[name] for name in holds.inputs)]
        options = {"thenSubgraphIndex": holds.number, "elseSubgraphIndex": fails.number}
        self._operate(OPERATOR.IF, inputs, list(results.values()), options)
        return results

    def loop(self, condition: Subgraph, body: Subgraph, start: Mapping[str, int]) -> dict[str, int]:
        """What the body gives at last, by name: it gets what it gave the time before while the condition holds."""
        results = {name: self._tensor(body.spec(number)) for name, number in body.outputs.items()}
        options = {"condSubgraphIndex": condition.number, "bodySubgraphIndex": body.number}
        self._operate(OPERATOR.WHILE, [start[name] for name in body.inputs], list(results.values()), options)
        return results

    def splice(self, other: Subgraph, given: Mapping[str, int]) -> dict[str, int]:
        """The results of another subgraph by name, its operators repeated here for a batch of one."""
        numbers = {-1: -1} | {number: given[name] for name, number in other.inputs.items()}
        for k, tensor in enumerate(other._graph.tensors):
            if k not in numbers:
                spliced = copy.copy(tensor)
                spliced.shapeSignature = None
                numbers[k] = self._add(spliced)
        for operator in other._graph.operators:
            repeated = copy.copy(operator)
            repeated.inputs = [numbers[index] for index in operator.inputs]
            repeated.outputs = [numbers[index] for index in operator.outputs]
            if operator.intermediates is not None:
                repeated.intermediates = [numbers[index] for index in operator.intermediates]
            self._graph.operators.append(repeated)
        return {name: numbers[number] for name, number in other.outputs.items()}

    def _operate(self, builtin: int, inputs: Sequence[int], outputs: Sequence[int], options: Mapping[str, Any]) -> None:
        made = schema.OperatorT()
        made.opcodeIndex = self._assembly.code(builtin)
        made.inputs, made.outputs = list(inputs), list(outputs)
        if options:
            kind = OPTIONS[builtin]
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(schema, f"{kind}T")()
            for name, value in options.items():
                setattr(made.builtinOptions, name, value)
        self._graph.operators.append(made)

    def _tensor(self, spec: Spec, name: str = "", buffer: int = 0) -> int:
        made = schema.TensorT()
        made.shape, made.type, made.name, made.buffer = [abs(n) for n in spec.shape], KINDS[spec.dtype], name, buffer
        if -1 in spec.shape:
            made.shapeSignature = list(spec.shape)
        return self._add(made)

    def _add(self, tensor: Any) -> int:
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


def _batched(spec: Spec, batch: int) -> Spec:
    return spec._replace(shape=tuple(batch if n == -1 else n for n in spec.shape))


def _entries(names: Mapping[str, int]) -> list[Any]:
    entries = []
    for name, number in names.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, number
        entries.append(entry)
    return entries
