"""Graphs that reach outside, lie about their sizes or call themselves, correctly signed: refused before an engine."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

import capexport
from capexport import BundleError, read_bundle
from capexport.bundle import write_bundle
from capexport.structure import check_graph
from tests.graphfiles import edit_onnx, edit_tflite, ort_graph

VARIANTS = [("onnx", "fp32"), ("ort", "fp32"), ("tflite", "fp32")]


def refused(to, data, match):
    with pytest.raises(BundleError, match=match):
        check_graph(to, data, "the graph")


def large(model):
    """The model's largest initializer."""
    return max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))


def external(model):
    tensor = large(model)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def foreign_operator(model):
    model.graph.node[0].domain = "org.evil"


def foreign_import(model):
    model.opset_import.append(helper.make_opsetid("org.evil", 1))


def recursive_function(model):
    node = helper.make_node("again", ["x"], ["y"], domain="com.microsoft")
    model.functions.append(helper.make_function("com.microsoft", "again", ["x"], ["y"], [node], model.opset_import))


def nested(model):
    graph = helper.make_graph([], "innermost", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "outer", [], [])
    model.graph.node.append(graph.node[0])


def node_within_a_loop(model):
    body = helper.make_graph([helper.make_node("Steal", ["x"], ["y"], domain="org.evil")], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["z"], body=body))


def in_float_data(model, count):
    """The elements of a constant in another field than most have."""
    tensor = large(model)
    tensor.ClearField("raw_data")
    tensor.float_data.extend([0.0] * count(np.prod(tensor.dims)))


def in_whole_numbers(model):
    tensor = large(model)
    tensor.ClearField("raw_data")
    tensor.int64_data.extend([1] * np.prod(tensor.dims))


def in_two_fields(model):
    tensor = large(model)
    tensor.float_data.append(0.0)
    tensor.raw_data = tensor.raw_data[4:]


def nodes(*pairs):
    """A change that appends nodes that read and make these names."""
    return lambda model: model.graph.node.extend(helper.make_node("Relu", [x], [y]) for x, y in pairs)


def branch(model):
    """A graph in a graph that reads what its own graph has not."""
    graph = helper.make_graph([helper.make_node("Relu", ["nothing"], ["y"])], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["logits"], ["z"], then_branch=graph, else_branch=graph))


ONNX = {
    "too few elements": (lambda m: in_float_data(m, lambda count: count // 4 + 1), "elements, not the"),
    "too many elements": (lambda m: in_float_data(m, lambda count: count + 1), "elements, not the"),
    "no elements": (lambda m: in_float_data(m, lambda count: 0), "elements, not the"),
    "elements of another type": (in_whole_numbers, "field of another type"),
    "elements in two places": (in_two_fields, "two places"),
    "a node that reads what is never computed": (nodes(("nothing", "y")), "'nothing', which is never computed"),
    "a node that waits for itself": (nodes(("x", "x")), "computes itself"),
    "nodes that wait for each other": (nodes(("x", "y"), ("y", "x")), "wait for each other"),
    "what is computed twice": (nodes(("logits", "x"), ("logits", "x")), "computed twice"),
    "a constant that is computed": (lambda m: nodes(("logits", large(m).name))(m), "computed and given"),
    "a graph in a graph that reads nothing": (branch, "'nothing', which is never computed"),
    "an output that is never computed": (lambda m: setattr(m.graph.output[0], "name", "x"), "'x', which is never"),
    "external data": (external, "in other files"),
    "a location without a file": (lambda m: setattr(large(m), "data_location", 1), "in other files"),
    "a foreign operator": (foreign_operator, "foreign domain 'org.evil'"),
    "a foreign domain imported": (foreign_import, "foreign domain"),
    "a foreign operator in a loop": (node_within_a_loop, "foreign domain"),
    "a function that calls itself": (recursive_function, "functions of its own"),
    "graphs in graphs": (nested, "nested more than"),
    "an operator that names a file": (lambda m: setattr(m.graph.node[0], "op_type", "EPContext"), "other files"),
    "more elements than bytes": (lambda m: large(m).dims.__setitem__(0, 10**6), "bytes, which is not"),
    "a giant tensor": (lambda m: large(m).dims.extend([2**40]), "larger than 2 GiB"),
    "dimensions whose product overflows": (lambda m: large(m).dims.extend([2**33, 2**33]), "larger than 2 GiB"),
    "a zero that hides giants": (lambda m: large(m).dims.extend([0, 2**62]), "larger than 2 GiB"),
    "a dimension below zero": (lambda m: large(m).dims.__setitem__(0, -1), "impossible dimensions"),
    "a type that there is not": (lambda m: setattr(large(m), "data_type", 99), "unknown type"),
    "a tensor of text": (lambda m: m.graph.initializer.append(helper.make_tensor("t", 8, [1], [b"x"])), "text"),
    "a giant input": (
        lambda m: m.graph.input.append(helper.make_tensor_value_info("i", 1, [2**20, 2**20])),
        "larger than 2 GiB",
    ),
    "a sparse tensor": (lambda m: m.graph.sparse_initializer.add(), "sparse"),
    "code for training": (lambda m: m.training_info.add(), "training"),
    "no graph": (lambda m: m.ClearField("graph"), "no graph"),
}


@pytest.mark.parametrize("name", ONNX)
def test_onnx(name, tiny_bundles):
    change, match = ONNX[name]
    refused("onnx", edit_onnx(tiny_bundles["onnx", "fp32"].graph("decoder"), change), match)


def test_onnx_with_two_graphs_of_which_one_is_shown(tiny_bundles):
    """Readers of protobuf merge the two."""
    data = tiny_bundles["onnx", "fp32"].graph("decoder")
    hidden = onnx.ModelProto(graph=onnx.GraphProto(node=[helper.make_node("Relu", ["a"], ["b"])]))
    refused("onnx", data + hidden.SerializeToString(), "twice")


@pytest.mark.parametrize("data", [b"", b"\x3a", b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", b"\x0a\x00" * 500_000])
def test_bytes_that_are_no_onnx(data):
    refused("onnx", data, "cut off|format|no graph|no number|fields|unknown")


@pytest.mark.parametrize(
    "field",
    [b"\x0d\x01\0\0\0", b"\x09\x01\0\0\0\0\0\0\0", b"\x48\x05", b"\x75\x01\0\0\0"],
    ids=["dims", "dims 64", "raw", "place"],
)
def test_fields_that_protobuf_would_not_know_by_their_wire_type(field):
    """It skips them, and what was looked at is not what is read."""
    tensor = b"\x08\x01\x10\x01\x42\x01t" + field
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    refused("onnx", b"\x3a" + bytes([len(graph)]) + graph, "no whole numbers|has no bytes|has no number")


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


@pytest.mark.parametrize(("to", "recipe"), VARIANTS)
def test_every_cut_is_refused(to, recipe, tiny_bundles):
    data = tiny_bundles[to, recipe].graph("decoder")
    check_graph(to, data, "the graph")
    for end in np.random.default_rng(0).integers(0, len(data), 60):
        refused(to, data[:end], "refused")


@pytest.mark.parametrize("to", ["onnx", "ort", "tflite"])
def test_another_formats_file_is_refused(to, tiny_bundles):
    for other in VARIANTS:
        if other[0] != to:
            refused(to, tiny_bundles[other].graph("encoder"), "refused")


def test_onnx_elements_in_the_field_for_their_type(tiny_bundles):
    data = tiny_bundles["onnx", "fp32"].graph("decoder")
    check_graph("onnx", edit_onnx(data, lambda model: in_float_data(model, int)), "the graph")
    for kind, values in ((TensorProto.INT32, [-1, 300, 0]), (TensorProto.UINT64, [2**40]), (TensorProto.DOUBLE, [0.5])):
        tensor = helper.make_tensor("more", kind, [len(values)], values)
        check_graph("onnx", edit_onnx(data, lambda model, one=tensor: model.graph.initializer.append(one)), "the graph")


def test_ort_whose_edges_are_not_those_of_its_names(tiny_bundles):
    whole_graph = tiny_bundles["ort", "fp32"].graph("decoder")
    graph = ort_graph(whole_graph)
    wired = [graph.NodeEdges(k) for k in range(graph.NodeEdgesLength()) if graph.NodeEdges(k).InputEdgesLength()]
    counts, edges = (data_place(wired[0], after) for after in (-4, 0))
    for place, number in ((counts, 0), (edges, wired[-1].NodeIndex())):
        data = bytearray(whole_graph)
        data[place : place + 4] = number.to_bytes(4, "little")
        refused("ort", bytes(data), "edges do not lead")


def data_place(edges, after):
    """Where the first edge to a node begins, or its list's length."""
    return edges.InputEdges(0)._tab.Pos + after


def test_ort_whose_node_waits_for_itself(tiny_bundles):
    data = bytearray(tiny_bundles["ort", "fp32"].graph("decoder"))
    node = ort_graph(data).Nodes(0)
    taken, made = (node._tab.Vector(node._tab.Offset(4 + 2 * field)) for field in (8, 9))
    name = made + int.from_bytes(data[made : made + 4], "little")
    data[taken : taken + 4] = (name - taken).to_bytes(4, "little")  # the node's input is called as its output
    refused("ort", bytes(data), "reads what it computes itself")


def test_ort_with_an_edge_to_nowhere_or_data_elsewhere(tiny_bundles):
    data = bytearray(tiny_bundles["ort", "fp32"].graph("decoder"))
    graph = ort_graph(data)
    edges = next(graph.NodeEdges(k) for k in range(graph.NodeEdgesLength()) if graph.NodeEdges(k).InputEdgesLength())
    place = edges.InputEdges(0)._tab.Pos
    data[place : place + 4] = (10**6).to_bytes(4, "little")
    refused("ort", bytes(data), "edges do not lead")


def with_output(name, operator, *constants, kind=None, **attributes):
    """A change of an ONNX model whose output of this name goes through one operator more; kind: its new type."""

    def change(model):
        for node in model.graph.node:
            for side in (node.input, node.output):
                side[:] = ["before" if one == name else one for one in side]
        model.graph.initializer.extend(constants)
        inputs = ["before", *(one.name for one in constants)]
        model.graph.node.append(helper.make_node(operator, inputs, [name], name=EVIL, **attributes))
        [output] = [one for one in model.graph.output if one.name == name]
        output.type.tensor_type.ClearField("shape")
        output.type.tensor_type.elem_type = kind or output.type.tensor_type.elem_type

    return change


def cast(name, kind):
    return with_output(name, "Cast", kind=kind, to=kind)


def number(value):
    return helper.make_tensor("number", TensorProto.FLOAT, [], [value])


def whole(name, *values):
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


EVIL = "\x1b[2J\x1b]0;title\x07\nTraceback (most recent call last)"
MEMORY = "cross_keys_0"
LYING = {
    "features without dimensions": ("encoder", with_output(MEMORY, "ReduceSum", keepdims=0), "other shapes"),
    "features of fewer photos": ("encoder", with_output(MEMORY, "Tile", whole("n", 0, 1, 1, 1)), "other shapes"),
    "features of another type": ("encoder", cast(MEMORY, TensorProto.INT8), "another type"),
    "states without dimensions": ("decoder", with_output("next_states_0", "ReduceSum", keepdims=0), "other shapes"),
    "states of no photo": ("decoder", with_output("next_states_0", "Tile", whole("n", 0, 1, 1, 1)), "other shapes"),
    "states of more words": ("decoder", with_output("next_states_0", "Tile", whole("n", 1, 1, 3, 1)), "other shapes"),
    "states that are truth values": ("decoder", cast("next_states_0", TensorProto.BOOL), "another type"),
    "logits that are truth values": ("decoder", cast("logits", TensorProto.BOOL), "another type"),
    "logits of 8 bits": ("decoder", cast("logits", TensorProto.INT8), "another type"),
    "logits without dimensions": ("decoder", with_output("logits", "ReduceSum", keepdims=0), "other shapes"),
    "logits that are infinite": ("decoder", with_output("logits", "Div", number(0.0)), "not numbers"),
    "attention that is no number": ("decoder", with_output("attention", "Add", number(float("nan"))), "from 0 to 1"),
    "giant attention": ("decoder", with_output("attention", "Add", number(3e38)), "from 0 to 1"),
    "attention below zero": ("decoder", with_output("attention", "Sub", number(0.5)), "from 0 to 1"),
    "another input": ("decoder", lambda m: m.graph.input.append(helper.make_tensor_value_info("i", 1, [1])), "inputs"),
    "another output": (
        "decoder",
        lambda m: m.graph.output.append(helper.make_tensor_value_info(m.graph.node[0].output[0], 1, None)),
        "outputs",
    ),
    "what fails as it runs": ("decoder", with_output("attention", "Gather", whole("n", 99, 99)), "cannot run"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", LYING)
def test_onnx_graphs_that_give_something_else_than_the_manifest_says(name, tiny_bundles, photos, tmp_path, capfd):
    bundle = tiny_bundles["onnx", "fp32"]
    graph, change, match = LYING[name]
    files = {**bundle.files, f"{graph}.onnx": edit_onnx(bundle.graph(graph), change)}
    lying = write_bundle(tmp_path / "lying", bundle.manifest, files)
    capfd.readouterr()
    with pytest.raises(BundleError, match=match) as caught:
        capexport.load(lying).caption(photos[0])
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")


def test_tflite_graphs_of_other_types_than_the_manifest_says(tiny_bundles, tmp_path):
    def change(model):
        model.signatureDefs[0].outputs[0].tensorIndex = model.signatureDefs[0].inputs[0].tensorIndex

    bundle = tiny_bundles["tflite", "fp32"]
    files = {**bundle.files, "decoder.tflite": edit_tflite(bundle.graph("decoder"), change)}
    with pytest.raises(BundleError, match="another type or shape"):
        capexport.load(write_bundle(tmp_path / "lying", bundle.manifest, files))


def test_a_bundle_is_refused_as_it_is_read(tiny_bundles, tmp_path):
    bundle = tiny_bundles["onnx", "fp32"]
    files = {**bundle.files, "decoder.onnx": edit_onnx(bundle.graph("decoder"), external)}
    with pytest.raises(BundleError, match=r"decoder\.onnx is refused: its tensors are in other files"):
        write_bundle(tmp_path / "hostile", bundle.manifest, files)
    assert not (tmp_path / "hostile").exists()
    assert read_bundle(bundle.directory)


def test_readers_load_neither_onnx_nor_an_engine():

    code = (
        "import capexport.structure.onnx, capexport.structure.ort, capexport.structure.tflite, sys; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnx", "onnxruntime", "flatbuffers", "tensorflow", "ai_edge_litert"} & set(done.stdout.split())
