"""Graphs made simple: the same outputs from fewer operators, and what only looks alike left as it is."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from capexport.export.onnx_simplify import fuse_hard_activations

FLOAT = onnx.TensorProto.FLOAT


def made(numbers, outputs, product):
    """x (2, 4) through Add, Clip and Mul by these numbers: gate; and perhaps product = x * gate, in either order."""
    nodes = [
        onnx.helper.make_node("Add", ["x", "n0"], ["added"], name="add"),
        onnx.helper.make_node("Clip", ["added", "n1", "n2"], ["clipped"], name="clip"),
        onnx.helper.make_node("Mul", ["clipped", "n3"], ["gate"], name="gate"),
    ]
    if product:
        nodes.append(onnx.helper.make_node("Mul", product, ["product"], name="product"))
    weights = [onnx.numpy_helper.from_array(np.array(n, np.float32), f"n{k}") for k, n in enumerate(numbers)]
    x, *values = (onnx.helper.make_tensor_value_info(name, FLOAT, [2, 4]) for name in ("x", *outputs))
    graph = onnx.helper.make_graph(nodes, "small", [x], values, initializer=weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def run(model):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.linspace(-5, 5, 8, dtype=np.float32).reshape(2, 4)})


HARD = (3, 0, 6, 1 / 6)


@pytest.mark.parametrize(
    ("numbers", "outputs", "product", "expected"),
    [
        (HARD, ["gate"], None, {"HardSigmoid": 1}),
        (HARD, ["product"], ["x", "gate"], {"HardSwish": 1}),
        (HARD, ["product"], ["gate", "x"], {"HardSwish": 1}),
        (HARD, ["product"], ["gate", "gate"], {"HardSigmoid": 1, "Mul": 1}),
        (HARD, ["clipped", "gate"], None, {"Add": 1, "Clip": 1, "Mul": 1}),
        ((3, 0, 5, 1 / 6), ["product"], ["x", "gate"], {"Add": 1, "Clip": 1, "Mul": 2}),
        ((2, 0, 6, 1 / 6), ["gate"], None, {"Add": 1, "Clip": 1, "Mul": 1}),
    ],
)
def test_hard_activations(numbers, outputs, product, expected):
    model = made(numbers, outputs, product)
    before = run(model)
    fuse_hard_activations(model.graph)
    assert Counter(node.op_type for node in model.graph.node) == expected
    for ours, theirs in zip(run(model), before, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_encoder_has_mobilenet_v3s(tiny_bundle):
    """18 activations of blocks and convolutions, 9 gates of squeeze and excite."""
    model = onnx.load_from_string(tiny_bundle.graph("encoder"))
    counts = Counter(node.op_type for node in model.graph.node)
    assert (counts["HardSwish"], counts["HardSigmoid"], counts["Clip"]) == (18, 9, 0)
