"""ONNX graphs, and ORT's, that reach outside, lie about their sizes or wait for themselves: no engine sees them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from capexport import BundleError, read_bundle
from capexport.bundle import write_bundle
from capexport.structure import check_graph
from tests.attacks.graphs import refused
from tests.graphfiles import edit_onnx, ort_graph


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


def test_a_bundle_is_refused_as_it_is_read(tiny_bundles, tmp_path):
    bundle = tiny_bundles["onnx", "fp32"]
    files = {**bundle.files, "decoder.onnx": edit_onnx(bundle.graph("decoder"), external)}
    with pytest.raises(BundleError, match=r"decoder\.onnx is refused: its tensors are in other files"):
        write_bundle(tmp_path / "hostile", bundle.manifest, files)
    assert not (tmp_path / "hostile").exists()
    assert read_bundle(bundle.directory)
