"""Graphs made simple: the same outputs from fewer operators, and what only looks alike left as it is."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from capexport.export.onnx import IR_VERSION, OPSET
from capexport.export.onnx_simplify import fuse_attention, fuse_hard_activations, fuse_rescaling

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
    return model_of(onnx.helper.make_graph(nodes, "small", [x], values, initializer=weights))


def model_of(graph):
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def run(model, **inputs):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs or {"x": np.linspace(-5, 5, 8, dtype=np.float32).reshape(2, 4)})


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


def pixels(read_twice, factors):
    """bytes (2, 4) as numbers, times these factors, less 1; and perhaps the numbers themselves."""
    nodes = [
        onnx.helper.make_node("Cast", ["bytes"], ["numbers"], to=FLOAT, name="cast"),
        onnx.helper.make_node("Mul", ["numbers", "factors"], ["scaled"], name="scale"),
        onnx.helper.make_node("Sub", ["scaled", "one"], ["shifted"], name="shift"),
    ]
    outputs = [*["numbers"] * read_twice, "shifted"]
    weights = {"factors": factors, "one": 1.0}
    return model_of(
        onnx.helper.make_graph(
            nodes,
            "small",
            [onnx.helper.make_tensor_value_info("bytes", onnx.TensorProto.UINT8, [2, 4])],
            [onnx.helper.make_tensor_value_info(name, FLOAT, [2, 4]) for name in outputs],
            initializer=[onnx.numpy_helper.from_array(np.array(n, np.float32), name) for name, n in weights.items()],
        )
    )


@pytest.mark.parametrize("read_twice", [False, True])
@pytest.mark.parametrize("factors", [1 / 127.5, [1 / 127.5], [1, 2, 3, 4]], ids=["one", "one in a row", "several"])
def test_rescaling(read_twice, factors):
    model, given = pixels(read_twice, factors), {"bytes": np.arange(0, 256, 32, dtype=np.uint8).reshape(2, 4)}
    before = run(model, **given)
    fuse_rescaling(model.graph)
    several = np.size(factors) > 1
    expected = [*["Cast"] * (several or read_twice), "Mul" if several else "DequantizeLinear", "Sub"]
    assert [node.op_type for node in model.graph.node] == expected
    np.testing.assert_array_equal(run(model, **given), before)


def test_the_encoder_scales_its_pixels_in_one_pass(tiny_bundle):
    first = onnx.load_from_string(tiny_bundle.graph("encoder")).graph.node[0]
    assert (first.op_type, *first.input[:1]) == ("DequantizeLinear", "image")


@pytest.mark.parametrize("looked", [True, False])
@pytest.mark.parametrize("perm", [(0, 1, 3, 2), (0, 2, 3, 1)], ids=["keys", "keys of which heads are turned, too"])
@pytest.mark.parametrize("shared", [True, False], ids=["one key for all heads", "a key a head"])
def test_attention(shared, perm, looked):
    """One operator for each softmax(queries keys^T) values, by which no row depends on those beside it.

    What else is made of softmaxes is made of what they are of, and then one softmax.
    """
    heads = 1 if shared else 4
    shapes = {"queries": ("B", 4, 1, 24), "values": ("B", heads, "N", 5)}
    shapes["keys"] = ("B", heads, "N", 24) if perm[1] == 1 else ("B", "N", heads, 24)
    nodes = [
        onnx.helper.make_node("Transpose", ["keys"], ["turned"], perm=perm, name="turn"),
        onnx.helper.make_node("MatMul", ["queries", "turned"], ["scores"], name="score"),
        onnx.helper.make_node("Softmax", ["scores"], ["shares"], name="share"),
        onnx.helper.make_node("MatMul", ["shares", "values"], ["answers"], name="answer"),
        *([onnx.helper.make_node("Concat", ["shares", "shares"], ["twice"], axis=1, name="twice")] if looked else []),
    ]
    given = [onnx.helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()]
    outputs = ["answers", "twice"] if looked else ["answers"]
    found = [onnx.helper.make_tensor_value_info(name, FLOAT, [None] * 4) for name in outputs]
    model = model_of(onnx.helper.make_graph(nodes, "small", given, found))
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.normal(0, 1, [{"B": 3, "N": 7}.get(n, n) for n in shape]).astype(np.float32)
        for name, shape in shapes.items()
    }
    before = run(model, **inputs)
    fuse_attention(model.graph)
    turned, looking = ["Transpose"] * (perm[1] != 1), ["Concat", "Softmax"] * looked
    assert [node.op_type for node in model.graph.node] == [*turned, "Attention", *looking]
    assert len(model.graph.node[len(turned)].output) == (4 if looked else 1)
    assert "qk_matmul_output_mode" not in {each.name for each in model.graph.node[len(turned)].attribute}
    after = run(model, **inputs)
    alone = [run(model, **{name: values[k : k + 1] for name, values in inputs.items()}) for k in range(3)]
    for ours, theirs, *rows in zip(after, before, *alone, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ours, np.concatenate(rows))


def test_the_decoder_has_an_operator_for_each_attention_and_norm(tiny_bundle):
    """Of two layers, each of which has two attentions and three norms; and one softmax for all that is looked at."""
    counts = Counter(node.op_type for node in onnx.load_from_string(tiny_bundle.graph("decoder")).graph.node)
    assert (counts["Attention"], counts["Softmax"]) == (4, 1)
    assert (counts["LayerNormalization"], counts["ReduceMean"], counts["Sqrt"]) == (6, 0, 0)
