"""TFLite graphs that are not whole, lie about their sizes or call themselves: no engine sees them."""

import pytest
from ai_edge_litert import schema_py_generated as schema

from capexport.structure import check_graph
from tests.attacks.graphs import refused
from tests.graphfiles import edit_tflite


def custom(model, name="Evil"):
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32
    model.operatorCodes[0].customCode = name


def calls_itself(model):
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE
    model.operatorCodes.append(code)
    options = schema.WhileOptionsT()
    options.condSubgraphIndex = options.bodySubgraphIndex = 0
    first = model.subgraphs[0].operators[0]
    first.opcodeIndex = len(model.operatorCodes) - 1
    first.builtinOptionsType, first.builtinOptions = schema.BuiltinOptions.WhileOptions, options


def first_constant(model):
    return next(t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None)


def with_scales(model, count):
    tensor = first_constant(model)
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [1.0] * count, [0] * count


def in_other_order(model):
    model.subgraphs[0].operators.reverse()


def operator(model, code):
    """The first operator of this code."""
    return next(o for o in model.subgraphs[0].operators if model.operatorCodes[o.opcodeIndex].builtinCode == code)


def without_input(code, place):
    def change(model):
        one = operator(model, code)
        one.inputs = [-1 if k == place else index for k, index in enumerate(one.inputs)]

    return change


def with_fewer_inputs(code, count):
    def change(model):
        operator(model, code).inputs = list(operator(model, code).inputs)[:count]

    return change


def with_other_options(code, kind=schema.BuiltinOptions.NONE, options=None):
    def change(model):
        operator(model, code).builtinOptionsType, operator(model, code).builtinOptions = kind, options

    return change


ARITHMETIC = ["ADD", "MUL", "SUB"]
WITH_OPTIONS = ["SPLIT", "BATCH_MATMUL", "FULLY_CONNECTED", "SOFTMAX", "MEAN", "PACK", "GATHER"]


@pytest.fixture(scope="module")
def with_operator(tiny_bundles):
    """A graph that has an operator of this name, and the operator's code."""
    import tensorflow as tf

    from capexport.quiet import silenced_stderr

    @tf.function(input_signature=[tf.TensorSpec([1, 6])])
    def parts(x):  # as of a decoder that projects keys and values
        return tf.split(x, 3, axis=1)

    with silenced_stderr():
        split = tf.lite.TFLiteConverter.from_concrete_functions([parts.get_concrete_function()]).convert()
    decoder = tiny_bundles["tflite", "fp32"].graph("decoder")
    return lambda name: (bytes(split) if name == "SPLIT" else decoder, getattr(schema.BuiltinOperator, name))


@pytest.mark.parametrize("name", [*ARITHMETIC, *WITH_OPTIONS, "RESHAPE", "SQUARED_DIFFERENCE", "RSQRT"])
def test_tflite_operators_that_lack_an_input(name, with_operator):
    """LiteRT's kernels follow the null pointer that it is to them."""
    data, code = with_operator(name)
    inputs = len(operator(schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0)), code).inputs)
    for place in range(min(2, inputs)):
        refused("tflite", edit_tflite(data, without_input(code, place)), "lacks an input that it needs")
    if name != "PACK":  # which takes any number
        refused("tflite", edit_tflite(data, with_fewer_inputs(code, min(2, inputs) - 1)), "too few inputs")


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_tflite_operators_that_lack_options(name, with_operator):
    data, code = with_operator(name)
    refused("tflite", edit_tflite(data, with_other_options(code)), "lacks its options")
    others = with_other_options(code, schema.BuiltinOptions.LSTMOptions, schema.LSTMOptionsT())
    refused("tflite", edit_tflite(data, others), "or has another's")


@pytest.mark.parametrize("name", ARITHMETIC)
def test_tflite_arithmetic_needs_no_options_but_takes_no_others(name, with_operator):
    data, code = with_operator(name)
    check_graph("tflite", edit_tflite(data, with_other_options(code)), "the graph")
    others = with_other_options(code, schema.BuiltinOptions.SplitOptions, schema.SplitOptionsT())
    refused("tflite", edit_tflite(data, others), "or has another's")


def test_a_dense_layer_needs_no_bias(tiny_bundles):
    data = tiny_bundles["tflite", "fp32"].graph("decoder")
    check_graph("tflite", edit_tflite(data, without_input(schema.BuiltinOperator.FULLY_CONNECTED, 2)), "the graph")


TFLITE = {
    "a variable": (lambda m: setattr(m.operatorCodes[0], "builtinCode", 142), "that no captioner has"),
    "an operator without outputs": (lambda m: setattr(m.subgraphs[0].operators[-1], "outputs", []), "too few"),
    "a custom operator": (custom, "not built in: 'Evil'"),
    "a Flex operator": (lambda m: custom(m, "FlexReadFile"), "not built in: 'FlexReadFile'"),
    "a delegate": (lambda m: setattr(m.operatorCodes[0], "builtinCode", 51), "not built in"),
    "a graph that calls itself": (calls_itself, "calls itself"),
    "data behind the tables": (lambda m: setattr(m.buffers[1], "offset", 10), "behind the end"),
    "more elements than bytes": (lambda m: setattr(first_constant(m), "shape", [7, 11, 13]), "not the"),
    "a giant tensor": (lambda m: setattr(m.subgraphs[0].tensors[0], "shape", [2**30, 2**30, 2**30]), "2 GiB"),
    "a dimension below zero": (lambda m: setattr(m.subgraphs[0].tensors[0], "shape", [-5]), "impossible"),
    "a tensor of text": (lambda m: setattr(m.subgraphs[0].tensors[0], "type", 5), "type that is not taken"),
    "a buffer that is not there": (lambda m: setattr(m.subgraphs[0].tensors[0], "buffer", 10**6), "does not have"),
    "an operator that is not there": (lambda m: setattr(m.subgraphs[0].operators[0], "opcodeIndex", 99), "not have"),
    "an input that is not there": (lambda m: setattr(m.subgraphs[0], "inputs", [10**6]), "does not have"),
    "reading what is not computed": (in_other_order, "not computed yet"),
    "more scales than channels": (lambda m: with_scales(m, 4099), "scales"),
    "a signature of no graph": (lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 8), "does not have"),
}


@pytest.mark.parametrize("name", TFLITE)
def test_tflite(name, tiny_bundles):
    change, match = TFLITE[name]
    refused("tflite", edit_tflite(tiny_bundles["tflite", "fp32"].graph("decoder"), change), match)
