"""A finished decoder made the step of a loop: its vectors in three axes, and what all steps have in common outside.

B batch, H heads, N image positions, P past length, U units, V vocabulary, X a head's share of a key: D, C or U.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from .onnx_simplify import drop_unused, readers

AT_ONCE = ("Cast", "Mul", "Reshape", "Transpose")  # engines compute others with the products that read them
APART, JOINED = "step_apart", "step_joined"  # constants: the axis between B and U, and what (B, N, H, D) becomes

node = onnx.helper.make_node


def spread(graph: onnx.GraphProto) -> None:
    """Change vectors (B, U) of a decoder, all of whose names begin with "step_", to (B, 1, U).

    Of such, Attention takes heads apart by itself; else one in seven of a step's operators would reshape something,
    which takes longer than it looks. Tokens are (B, 1) then, logits still (B, V), and caches and what is looked at in
    the photo are (B, P or N, H * X or X).
    """
    graph.initializer.extend(
        onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)
        for name, values in ((APART, [1]), (JOINED, [0, 0, -1]))
    )
    spreading = _Spreading(graph)
    spreading.embedding()
    spreading.logits()
    for one in list(graph.node):
        if one.op_type == "Attention":
            spreading.attention(one)
        elif one.op_type == "Split":
            _set_axis(one, -1)
    spreading.caches()
    drop_unused(graph)


def take_constant(graph: onnx.GraphProto, memory: Sequence[str]) -> onnx.GraphProto:
    """Take nodes that give the same of a photo at every step out of a graph, with their weights.

    memory  the inputs that all steps have in common
    """
    known = {*memory, *(tensor.name for tensor in graph.initializer)}
    taken = onnx.GraphProto()
    for one in list(graph.node):
        if one.op_type in AT_ONCE and known.issuperset(one.input):
            known.update(one.output)
            taken.node.append(one)
            graph.node.remove(one)
    read = {name for one in taken.node for name in one.input}
    for tensor in list(graph.initializer):
        if tensor.name in read:
            taken.initializer.append(tensor)
            graph.initializer.remove(tensor)
    return taken


class _Spreading:
    """Changes one part of a decoder after the other, in place."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._makers = {name: one for one in graph.node for name in one.output}
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._dimensions = {value.name: value.type.tensor_type.shape.dim for value in graph.input}

    def embedding(self) -> None:
        """Rows of plain tables are in three axes where tokens are in two; others are computed as before."""
        lookups = readers(self._graph, "step_tokens")
        if all(len(self._weights[one.input[0]].dims) == 2 and _axis(one) == 0 for one in lookups):
            return
        for one in lookups:
            one.input[1] = "step_token_of_each"
        self._insert(lookups[0], node("Squeeze", ["step_tokens", APART], ["step_token_of_each"]))
        [place] = readers(self._graph, "step_position")
        [vector] = readers(self._graph, place.output[0])
        name, apart = vector.output[0], f"{vector.output[0]}_apart"
        first = readers(self._graph, name)[0]
        self._replace(name, apart)
        self._insert(first, node("Unsqueeze", [name, APART], [apart]))

    def logits(self) -> None:
        """Their product takes the vectors in two axes; there is no bias after it where all of it is 0."""
        product = self._makers["step_logits"]
        if product.op_type == "Add":
            product = next(self._makers[name] for name in product.input if name in self._makers)
        self._insert(product, node("Squeeze", [product.input[0], APART], ["step_vector_of_each"]))
        product.input[0] = "step_vector_of_each"

    def attention(self, attention: onnx.NodeProto) -> None:
        """It takes queries (B, 1, H * X) as a product gives them, and gives what the next product takes."""
        queries, [answers] = self._makers[attention.input[0]], readers(self._graph, attention.output[0])
        heads = onnx.numpy_helper.to_array(self._weights[queries.input[1]]).tolist()[1]
        keys, key_heads = self._looked_at(attention.input[1])
        values, _ = self._looked_at(attention.input[2])
        attention.input[:3] = [queries.input[0], keys, values]
        attention.attribute.append(onnx.helper.make_attribute("q_num_heads", heads))
        attention.attribute.append(onnx.helper.make_attribute("kv_num_heads", key_heads))
        self._replace(answers.output[0], attention.output[0])

    def _looked_at(self, name: str) -> tuple[str, int]:
        """Keys or values (B, H or 1, N or P, X) as (B, N or P, H * X or X), and how many heads that are."""
        if name not in self._makers:  # of the photo, (B, H, N, D)
            first, joined = self._graph.node[0], f"{name}_joined"
            self._insert(first, node("Transpose", [name], [f"{name}_turned"], perm=[0, 2, 1, 3]))
            self._insert(first, node("Reshape", [f"{name}_turned", JOINED], [joined]))
            return joined, self._dimensions[name][1].dim_value
        maker = self._makers[name]
        if maker.op_type == "Unsqueeze":  # the photo's features
            return maker.input[0], 1
        cache, word = maker.input
        if _axis(maker) != 1:
            maker.input[1] = self._makers[word].input[0]
            _set_axis(maker, 1)
        return name, self._dimensions[cache][1].dim_value

    def caches(self) -> None:
        """What goes in and comes out of them is declared as it is now."""
        for value in (*self._graph.input, *self._graph.output):
            if value.name.startswith(("step_self_", "step_next_")):
                batch, heads, length, width = value.type.tensor_type.shape.dim
                shape = [batch.dim_param, length.dim_param, heads.dim_value * width.dim_value]
                value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))

    def _replace(self, name: str, by: str) -> None:
        for one in readers(self._graph, name):
            one.input[:] = [by if each == name else each for each in one.input]

    def _insert(self, before: onnx.NodeProto, made: onnx.NodeProto) -> None:
        made.name = made.output[0]
        self._graph.node.insert([one.name for one in self._graph.node].index(before.name), made)


def _axis(one: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in one.attribute if attribute.name == "axis"), 0)


def _set_axis(one: onnx.NodeProto, axis: int) -> None:
    next(attribute for attribute in one.attribute if attribute.name == "axis").i = axis
