"""Lowered graphs: the layers are in the precisions that were asked for, and still compute what they did."""

import itertools
from functools import cached_property

import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert.tools import flatbuffer_utils

import capexport
from capexport.export.exporter import format_module
from capexport.export.graphs import EncoderGraph
from capexport.export.layers import Range, Rounding
from capexport.recipes import RECIPES, Precision
from capexport.runtime.engines import open_graph
from tests.conftest import VARIANTS

FORMATS = ["onnx", "tflite"]
FLOAT, HALF, STORED, DYNAMIC, STATIC = Precision
KINDS = ["conv", "depthwise", "matmul"]
OPERATORS = {
    "Conv": "conv",
    "MatMul": "matmul",
    "MatMulNBits": "matmul",
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "matmul",
}


class Small(tf.Module):
    """x (B, 6, 6, 3) through a convolution, a depthwise one and a product: y (B, 5)."""

    places = None

    def __init__(self, **changed):
        super().__init__()
        rng = np.random.default_rng(5)
        shapes = {"conv": (3, 3, 3, 8), "conv_bias": (8,), "depthwise": (3, 3, 8, 1), "depthwise_bias": (8,)}
        shapes |= {"matmul": (32, 5), "matmul_bias": (5,)}
        self.arrays = {name: rng.normal(size=shape).astype(np.float32) / 3 for name, shape in shapes.items()} | changed

    @cached_property
    def function(self):
        x = tf.TensorSpec([None, 6, 6, 3], tf.float32, name="x")
        return tf.function(lambda x: {"y": self.compute(x)}, autograph=False).get_concrete_function(x)

    def compute(self, x):
        arrays = self.arrays
        x = tf.nn.conv2d(x, arrays["conv"], 1, "VALID", name="layer_conv/Conv2D")
        x = tf.nn.relu6(tf.nn.bias_add(x, arrays["conv_bias"], name="layer_conv/BiasAdd"))
        x = tf.nn.depthwise_conv2d(x, arrays["depthwise"], [1] * 4, "VALID", name="layer_depthwise/depthwise")
        x = tf.nn.relu(tf.nn.bias_add(x, arrays["depthwise_bias"], name="layer_depthwise/BiasAdd"))
        return tf.matmul(tf.reshape(x, [-1, 32]), arrays["matmul"], name="layer_matmul/MatMul") + arrays["matmul_bias"]

    def stages(self, x):
        """What goes into each kind of layer and what comes out of it, by numpy."""
        arrays = self.arrays
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))  # (B, 4, 4, 3, 3, 3)
        conv = np.einsum("bhwcij,ijcd->bhwd", windows, arrays["conv"]) + arrays["conv_bias"]
        conv = np.clip(conv, 0, 6)
        windows = np.lib.stride_tricks.sliding_window_view(conv, (3, 3), axis=(1, 2))
        depthwise = np.einsum("bhwcij,ijc->bhwc", windows, arrays["depthwise"][..., 0]) + arrays["depthwise_bias"]
        depthwise = np.maximum(depthwise, 0)
        flat = depthwise.reshape(-1, 32)
        product = flat @ arrays["matmul"]
        return {"conv": (x, conv), "depthwise": (conv, depthwise), "matmul": (flat, product)}


class Gated(Small):
    """x (B, 6, 6, 3) through a pointwise convolution, a gate of each channel and another one, and added: y (B, 108)."""

    def compute(self, given):
        rng = np.random.default_rng(6)
        lift, project = (rng.normal(size=(1, 1, *ends)).astype(np.float32) for ends in ((3, 8), (8, 3)))
        lift *= np.geomspace(0.01, 1, 8, dtype=np.float32)
        x = tf.nn.conv2d(given, lift, 1, "VALID", name="layer_lift/Conv2D")
        x = tf.nn.bias_add(x, np.linspace(-0.1, 0.1, 8, dtype=np.float32), name="layer_lift/BiasAdd")
        x *= tf.sigmoid(tf.reduce_mean(x, axis=(1, 2), keepdims=True))
        return tf.reshape(tf.nn.conv2d(x, project, 1, "VALID", name="layer_project/Conv2D") + given, [-1, 108])


class Twice(Small):
    """x (B, 6, 6, 3) twice through the same convolution: y (B, 12)."""

    def compute(self, x):
        weights = np.random.default_rng(8).normal(size=(3, 3, 3, 3)).astype(np.float32) / 5
        for k in range(2):
            x = tf.nn.relu(tf.nn.conv2d(x, weights, 1, "VALID", name=f"layer_{k}/Conv2D"))
        return tf.reshape(x, [-1, 12])


class Product(Small):
    """x (B, 6, 6, 3) through a product: y (B, 5)."""

    def compute(self, x):
        weights = np.random.default_rng(7).normal(size=(108, 5)).astype(np.float32)
        return tf.matmul(tf.reshape(x, [-1, 108]), weights, name="layer_matmul/MatMul")


def made_input(rows=40, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 6, 6, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=FORMATS)
def to(request):
    return request.param


@pytest.fixture(scope="module")
def small():
    return Small()


@pytest.fixture(scope="module")
def exported(to, small):
    return format_module(to).export(small)


def run(to, model, x):
    return open_graph(to, model, ["y"], None, "a small graph")({"x": x})["y"]


def observed(to, model, x):
    return format_module(to).observe(model, ["y"], lambda run: [run({"x": part}) for part in np.array_split(x, 4)])


def lowered(to, model, precisions, x=None, by="lower"):
    """The model with these precisions by kind of layer, calibrated on x."""
    nodes = {layer.node: precisions[layer.kind] for layer in format_module(to).layers(model)}
    return getattr(format_module(to), by)(model, nodes, observed(to, model, made_input() if x is None else x))


def kinds_of_numbers(to, model):
    """Of each layer: its kind, what its weights are stored in, and what its operator multiplies, weights by which."""
    return list(_in_onnx(model) if to == "onnx" else _in_tflite(model))


def _in_onnx(model):
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    makers = {output: node for node in graph.node for output in node.output}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= constants

    def before(name, *kinds):
        while name in makers and makers[name].op_type in kinds:
            name = makers[name].input[0]
        return name

    for node in graph.node:
        if node.op_type in OPERATORS:
            activations, weights = node.input[:2]
            if makers.get(weights, node).op_type == "DequantizeLinear":  # engines leave out both, and multiply integers
                activations, weights = (before(name, "DequantizeLinear") for name in (activations, weights))
            stored = before(weights, "Mul", "Cast")
            depthwise = any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
            if stored in constants:
                numbers = (types.get(name, onnx.TensorProto.FLOAT) for name in (stored, weights, activations))
                names = (onnx.helper.tensor_dtype_to_np_dtype(number).name for number in numbers)
                yield "depthwise" if depthwise else OPERATORS[node.op_type], *names


def _in_tflite(model):
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    graph = content.subgraphs[0]
    makers = {output: operator for operator in graph.operators for output in operator.outputs}
    for operator in graph.operators:
        name = flatbuffer_utils.opcode_to_name(content, operator.opcodeIndex)
        if name in OPERATORS:
            activations, weights = operator.inputs[:2]
            stored = makers[weights].inputs[0] if weights in makers else weights
            types = (graph.tensors[index].type for index in (stored, weights, activations))
            yield OPERATORS[name], *(flatbuffer_utils.type_to_name(number).lower() for number in types)


def expected_numbers(to, kind, precision):
    if to == "onnx" and precision is DYNAMIC and kind == "matmul":
        return "uint8", "uint8", "float32"
    if to == "onnx" and precision in (DYNAMIC, STATIC) and kind != "matmul":
        precision = STORED  # convolutions of several places, as here
    return {
        FLOAT: ("float32", "float32", "float32"),
        HALF: ("float16", "float32", "float32"),
        STORED: ("int8", "float32", "float32"),
        DYNAMIC: ("int8", "int8", "float32"),
        STATIC: ("int8", "int8", "uint8" if to == "onnx" else "int8"),
    }[precision]


MIXTURES = [*((precision,) * 3 for precision in Precision), (STATIC, FLOAT, DYNAMIC), (HALF, STATIC, STORED)]
MIXTURES += [(STORED, DYNAMIC, STATIC), (FLOAT, HALF, STATIC)]
# The largest error of an output, of all outputs' largest value.
TOLERANCES = {FLOAT: 1e-6, HALF: 1e-3, STORED: 0.02, DYNAMIC: 0.03, STATIC: 0.08}


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda mixture: "-".join(p.name.lower() for p in mixture))
def test_each_layer_is_in_the_precision_asked_for_and_computes_what_it_did(mixture, to, exported):
    precisions = dict(zip(KINDS, mixture, strict=True))
    model = lowered(to, exported, precisions)
    expected = [(kind, *expected_numbers(to, kind, precision)) for kind, precision in precisions.items()]
    assert kinds_of_numbers(to, model) == expected
    x = made_input(seed=1)
    truth = run(to, exported, x)
    for finished in (model, format_module(to).finish(model)):
        error = np.abs(run(to, finished, x) - truth).max() / np.abs(truth).max()
        assert error <= max(TOLERANCES[precision] for precision in mixture)
        assert (error > 1e-6) == (set(mixture) != {FLOAT})
    mimicked = run(to, lowered(to, exported, precisions, by="mimic"), x)
    np.testing.assert_allclose(mimicked, run(to, model, x), rtol=0, atol=1e-6 * np.abs(truth).max())


@pytest.mark.parametrize(
    "mixture", itertools.product(Precision, repeat=2), ids=lambda pair: "-".join(p.name for p in pair)
)
def test_each_use_of_the_same_weights_has_its_own_precision(mixture, to):
    exported, x = format_module(to).export(Twice()), made_input(seed=1)
    nodes = dict(zip([layer.node for layer in format_module(to).layers(exported)], mixture, strict=True))
    observation, truth = observed(to, exported, x), run(to, exported, x)
    model = format_module(to).lower(exported, nodes, observation)
    assert kinds_of_numbers(to, model) == [("conv", *expected_numbers(to, "conv", precision)) for precision in mixture]
    for finished in (model, format_module(to).finish(model)):
        error = np.abs(run(to, finished, x) - truth).max() / np.abs(truth).max()
        assert error <= max(TOLERANCES[precision] for precision in mixture)
    mimicked = run(to, format_module(to).mimic(exported, nodes, observation), x)
    np.testing.assert_allclose(mimicked, run(to, model, x), rtol=0, atol=1e-6 * np.abs(truth).max())


@pytest.mark.parametrize("precision", Precision)
def test_a_row_does_not_depend_on_its_neighbours(precision, to, exported):
    """Not even on one a hundred times as large, which a scale for the whole batch would be made for."""
    model = lowered(to, exported, dict.fromkeys(KINDS, precision))
    x = made_input(5)
    x[2] *= 100
    alone = np.concatenate([run(to, model, x[k : k + 1]) for k in range(5)])
    np.testing.assert_allclose(run(to, model, x), alone, rtol=1e-5, atol=1e-5)


def test_onnx_multiplies_calibrated_pointwise_convolutions_in_integers():
    """As products of each place's channels, not rounded; a gate before it is part of it, and what is added to it."""
    exported, x = format_module("onnx").export(Gated()), made_input(seed=1)
    layers = format_module("onnx").layers(exported)
    observation = observed("onnx", exported, made_input())
    truth = run("onnx", exported, x)
    for static in ([0], [1], [0, 1]):
        nodes = {layers[k].node: STATIC for k in static}
        model = format_module("onnx").finish(format_module("onnx").lower(exported, nodes, observation))
        products = [("matmul", *expected_numbers("onnx", "matmul", STATIC))] * len(static)
        convolutions = [("conv", *expected_numbers("onnx", "conv", FLOAT))] * (2 - len(static))
        assert sorted(kinds_of_numbers("onnx", model)) == sorted(products + convolutions)
        last = [node.op_type for node in onnx.load_from_string(model).graph.node[-5:]]
        assert (last[:3] == ["MatMul", "Add", "Transpose"]) == (1 in static)
        error = np.abs(run("onnx", model, x) - truth).max() / np.abs(truth).max()
        assert 1e-6 < error < 0.02
        alone = np.concatenate([run("onnx", model, one[np.newaxis]) for one in x])
        np.testing.assert_allclose(run("onnx", model, x), alone, rtol=1e-5, atol=1e-5)


def test_which_layers_onnxruntime_computes_sooner_in_integers(tiny):
    """Products, and pointwise convolutions of many channels with no activation to be computed along with them."""
    encoder = format_module("onnx").export(EncoderGraph(tiny))
    layers = format_module("onnx").layers(encoder)
    sooner = [layer.name for layer in layers if layer.kind != "matmul" and layer.integral]
    assert sooner == [f"expanded_conv_{k}/project" for k in (4, 5, 6, 7, 8, 9, 10)]
    small = format_module("onnx").layers(format_module("onnx").export(Small()))
    assert [layer.integral for layer in small] == [False, False, True]


def test_what_was_observed_is_what_numpy_finds(to, small, exported):
    x = made_input()
    observation, stages = observed(to, exported, x), small.stages(x)
    for layer in format_module(to).layers(exported):
        tensors = {layer.source: stages[layer.kind][0], layer.result: stages[layer.kind][1]}
        if to == "tflite" and layer.kind == "matmul":
            tensors[layer.result] = tensors[layer.result] + small.arrays["matmul_bias"]
        for name, values in tensors.items():
            channels, found = values.reshape(-1, values.shape[-1]), observation.ranges[name]
            np.testing.assert_allclose(found.low, np.minimum(channels.min(axis=0), 0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found.high, np.maximum(channels.max(axis=0), 0), rtol=1e-4, atol=1e-5)
            assert observation.elements[name] == values.size // len(x)


def test_layers_are_named_measured_and_in_order(to, exported):
    layers = format_module(to).layers(exported)
    assert [(layer.name, layer.kind) for layer in layers] == [(f"layer_{kind}", kind) for kind in KINDS]
    assert [(layer.weights, layer.columns) for layer in layers] == [(216, 8), (72, 8), (160, 5)]


def test_a_large_bias_beside_tiny_weights_keeps_its_value(to):
    """In levels as fine as those of the weights and activations, it would be more than an int32 holds."""
    arrays = Small().arrays
    arrays["conv"][..., 3] *= 1e-9
    arrays["conv_bias"][3] = 5.0
    arrays["depthwise"][..., 2, :] *= 1e-9
    arrays["depthwise_bias"][2] = 4.0
    arrays["matmul"][:, 1] *= 1e-9
    arrays["matmul_bias"][1] = -7.0
    small, x = Small(**arrays), made_input()
    exported = format_module(to).export(small)
    truth = run(to, exported, x)
    assert truth[:, 1] == pytest.approx(-7.0)
    for precision in Precision:
        found = run(to, lowered(to, exported, dict.fromkeys(KINDS, precision)), x)
        np.testing.assert_allclose(found, truth, atol=TOLERANCES[precision] * np.abs(truth).max(), err_msg=precision)


def test_activations_that_never_change(to):
    """Dead ones are all 0, of which an engine cannot make a scale; nor of a whole graph's."""
    dead = Small(conv_bias=np.full(8, -100, np.float32))
    for small, x in ((dead, made_input()), (Small(), made_input() * 0)):
        exported = format_module(to).export(small)
        found = run(to, lowered(to, exported, dict.fromkeys(KINDS, STATIC), x), x)
        truth = run(to, exported, x)
        np.testing.assert_allclose(found, truth, atol=0.05 * np.abs(truth).max())


@pytest.mark.parametrize(("to", "small"), [("onnx", Product()), ("tflite", Small())])
def test_what_is_beyond_the_calibrated_range_stays_at_its_ends(to, small):
    """It does not wrap around: a channel ends at its share of the range that all channels have in common."""
    exported = format_module(to).export(small)
    nodes = {layer.node: STATIC for layer in format_module(to).layers(exported)}
    observation, first = observed(to, exported, made_input()), format_module(to).layers(exported)[0]
    ranges, model = observation.ranges, format_module(to).lower(exported, nodes, observation)
    scales = Rounding.of(first, ranges).source
    x = made_input(1) * 1000
    ends = (end * scales for end in ranges[first.source].extremes(scales))
    clipped = np.clip(x.reshape(-1, len(scales)), *ends).reshape(x.shape)
    assert np.abs(clipped).max() < 0.01 * np.abs(x).max()
    np.testing.assert_allclose(run(to, model, x), run(to, model, clipped), rtol=1e-4, atol=1e-4)


def test_a_range_of_nothing_is_one_all_the_same():
    """A scale can be made of it."""
    nothing = Range.of(np.zeros((2, 3), np.float32), axis=-1)
    low, high = nothing.extremes(nothing.scales)
    assert low == 0 < high


def test_both_formats_have_the_same_layers(tiny_bundles):
    for graph, count in (("encoder", 56), ("decoder", 13)):
        facts = []
        for to in FORMATS:
            assert tiny_bundles[to, "fp16"]
            [step] = tiny_bundles.choices[to, "fp16"][graph]
            layers = [each.layer for each in step.sensitivities]
            facts.append(sorted((layer.name, layer.kind, layer.weights, layer.columns) for layer in layers))
        assert facts[0] == facts[1]
        assert len({name for name, *_ in facts[0]}) == count


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant[0] in FORMATS])
def test_recipes_arrive_in_the_graphs(variant, tiny_bundles):
    """As many layers have each kind of weights as were chosen for it."""
    to, recipe = variant
    bundle, choices = tiny_bundles[variant], tiny_bundles.choices[variant]
    for graph, steps in choices.items():
        found = sorted((kind, stored) for kind, stored, *_ in kinds_of_numbers(to, bundle.graph(graph)))
        assert [choice.wanted for choice in steps] == [step.precision for step in RECIPES[recipe].steps(graph)]
        if not steps:
            assert {stored for _, stored in found} == {"float32"}
            continue
        layers = [(each.layer, each.precision) for each in steps[-1].sensitivities]
        assert all(layer.integral for layer, precision in layers if precision is STATIC)
        kinds = [("matmul" if to == "onnx" and got is STATIC else layer.kind, got) for layer, got in layers]
        assert found == sorted((kind, expected_numbers(to, kind, precision)[0]) for kind, precision in kinds)
        assert all(choice.error <= choice.budget for choice in steps)
        assert any(each.precision is choice.wanted for choice in steps for each in choice.sensitivities)


@pytest.mark.parametrize("to", FORMATS)
def test_photos_do_not_depend_on_their_neighbours(to, tiny_bundles, photos):
    """A photo's features in int8 are its own: all scales were fixed beforehand, or are a row's."""
    bundle = tiny_bundles[to, "int8"]
    names = [tensor.name for tensor in bundle.manifest.graphs["encoder"].outputs]
    encode = open_graph(to, bundle.graph("encoder"), names, None, "an encoder")
    pixels = np.stack([capexport.load(bundle).preprocess(photo) for photo in photos])
    together = encode({"image": pixels})
    for k in range(len(photos)):
        for name, feature in encode({"image": pixels[k : k + 1]}).items():
            np.testing.assert_allclose(together[name][k], feature[0], atol=1e-5)
