"""What tf2onnx leaves apart or idle in a graph, made simple before anything else is done with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx

FLOAT = onnx.TensorProto.FLOAT


def drop_idle_reshapes(graph: onnx.GraphProto) -> None:
    """Remove reshapes to the shape that is there already: tf2onnx turns some transposes of 1x1 maps into them.

    It does so for now these, now those of them, so this makes the export repeatable, too.
    """
    inferred = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph)).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in inferred.value_info
    }
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept: list[onnx.NodeProto] = []
    replaced: dict[str, str] = {}
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]
        if node.op_type == "Reshape" and node.input[1] in weights:
            target = onnx.numpy_helper.to_array(weights[node.input[1]]).tolist()
            if target[0] == -1 and min(target[1:]) > 0 and target[1:] == shapes.get(node.input[0], [])[1:]:
                replaced[node.output[0]] = node.input[0]
                continue
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def fuse_hard_activations(graph: onnx.GraphProto) -> None:
    """Write relu6(x + 3) / 6 as HardSigmoid, and x times that as HardSwish, which engines fuse with convolutions.

    MobileNetV3's activations (Howard et al., 2019, "Searching for MobileNetV3"). Left as four operators, they take the
    encoder's maps out of the layout in which onnxruntime convolves, and back, around each of them.
    """
    for node, gate in list(_hard_sigmoids(graph)):
        source, result = node.input[0], gate.output[0]
        products = readers(graph, result)
        swish = len(products) == 1 and products[0].op_type == "Mul" and source in products[0].input
        last = products[0] if swish else gate
        made = (
            onnx.helper.make_node("HardSwish", [source], last.output, name=last.name)
            if swish
            else onnx.helper.make_node("HardSigmoid", [source], last.output, name=last.name, alpha=1 / 6, beta=0.5)
        )
        last.CopyFrom(made)
    drop_unused(graph)


def fuse_rescaling(graph: onnx.GraphProto) -> None:
    """Write the product of an input of bytes by a number as DequantizeLinear, one pass over the pixels instead of two.

    Keras' Rescaling, before its offset; numbers stay the same to the last bit.
    """
    numbers = _numbers(graph)
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    for cast in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in pixels]:
        reading = readers(graph, cast.output[0])
        scales = [name for node in reading for name in node.input if name in numbers]
        if [node.op_type for node in reading] == ["Mul"] and scales:
            [product], [scale] = reading, scales
            graph.initializer.append(onnx.helper.make_tensor(f"{scale}_step", FLOAT, [], [numbers[scale]]))
            made = onnx.helper.make_node(
                "DequantizeLinear", [cast.input[0], f"{scale}_step"], product.output, name=product.name
            )
            product.CopyFrom(made)
    drop_unused(graph)


def fuse_layer_norms(graph: onnx.GraphProto) -> None:
    """Write a decoder's norms, from the mean to the offset, as LayerNormalization (Ba et al., 2016)."""
    makers = {name: node for node in graph.node for name in node.output}
    numbers = _numbers(graph)
    for root in [node for node in graph.node if node.op_type == "Sqrt"]:
        [epsilon] = [numbers[name] for name in makers[root.input[0]].input if name in numbers]
        normed = _reader(graph, root)
        scaled = _reader(graph, normed)
        moved = _reader(graph, scaled)
        centred = makers[normed.input[0]]
        made = onnx.helper.make_node(
            "LayerNormalization",
            [centred.input[0], scaled.input[1], moved.input[1]],
            moved.output,
            name=moved.name,
            epsilon=epsilon,
        )
        moved.CopyFrom(made)
    drop_unused(graph)


def fuse_attention(graph: onnx.GraphProto) -> None:
    """Write a decoder's softmax(queries keys^T) values as Attention, which gives queries keys^T besides.

    Queries are (B, H, 1, X), keys and values (B, H or 1, N, X). onnxruntime takes half the time for it, and computes
    each row by itself: left as products, the heads of a photo that is alone are joined, and are added up in another
    order than in a batch. Where an output is what softmaxes give, in another arrangement (of all axes but N), it is one
    softmax of all now: Attention could give them itself, but under CUDA onnxruntime computes none that does.
    """
    makers = {name: node for node in graph.node for name in node.output}
    looked_at: set[str] = set()
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        scores = makers[softmax.input[0]]
        queries, turned = scores.input
        keys, [batch, heads, width, row] = makers[turned].input[0], _permutation(makers[turned])
        if (batch, heads, row, width) != (0, 1, 2, 3):  # two transpositions that tf2onnx has made one of
            given, keys = keys, f"{scores.name}_keys"
            scores.CopyFrom(
                onnx.helper.make_node("Transpose", [given], [keys], name=keys, perm=[batch, heads, row, width])
            )
        reading = readers(graph, softmax.output[0])
        [product] = [node for node in reading if node.op_type == "MatMul"]
        made = onnx.helper.make_node(
            "Attention", [queries, keys, product.input[1]], product.output, name=product.name, scale=1.0
        )
        if len(reading) > 1:
            made.output.extend(["", "", *softmax.output])
            looked_at.add(_last(graph, softmax))
        graph.node.remove(product)
        softmax.CopyFrom(made)
    for name in sorted(looked_at):
        [maker] = [node for node in graph.node if name in node.output]
        maker.output[:] = [f"{name}_scores"]
        graph.node.append(onnx.helper.make_node("Softmax", maker.output, [name], name=f"{name}_shares"))
    drop_unused(graph)


def _last(graph: onnx.GraphProto, softmax: onnx.NodeProto) -> str:
    """The graph's output that is what a softmax gives, in another arrangement."""
    name, outputs = softmax.output[0], {value.name for value in graph.output}
    while name not in outputs:
        [reader] = [node for node in readers(graph, name) if node.op_type != "MatMul"]
        name = reader.output[0]
    return name


def _permutation(turning: onnx.NodeProto) -> Sequence[int]:
    """Of keys; tf2onnx makes the transposition a reshape where one of its axes has length 1."""
    return turning.attribute[0].ints if turning.op_type == "Transpose" else (0, 1, 3, 2)


def _hard_sigmoids(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """The first and last of three operators that add 3, clip to 0 and 6, and divide by 6, and give nothing else."""
    numbers = _numbers(graph)
    reading: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            reading.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    for first in graph.node:
        chain = [first]
        while len(chain) < 3 and chain[-1].output[0] not in outputs and len(reading.get(chain[-1].output[0], ())) == 1:
            chain += reading[chain[-1].output[0]]
        if [node.op_type for node in chain] == ["Add", "Clip", "Mul"]:
            found = [numbers.get(name, np.nan) for node in chain for name in node.input[1:]]
            if np.allclose(found, [3, 0, 6, 1 / 6]):
                yield chain[0], chain[2]


def _numbers(graph: onnx.GraphProto) -> dict[str, float]:
    """The constants of one number, by name."""
    one = [t for t in graph.initializer if t.data_type == FLOAT and int(np.prod(t.dims)) == 1]
    return {tensor.name: float(onnx.numpy_helper.to_array(tensor).item()) for tensor in one}


def _reader(graph: onnx.GraphProto, node: onnx.NodeProto) -> onnx.NodeProto:
    """The one node that reads another's result."""
    [reader] = readers(graph, node.output[0])
    return reader


def readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that read a tensor, in the order of the graph."""
    return [node for node in graph.node if name in node.input]


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output is computed from."""
    used = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)
