"""Graphs of any format, correctly signed, that are cut, taken for others, or give what their manifest does not say."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

import capexport
from capexport import BundleError
from capexport.bundle import write_bundle
from capexport.structure import check_graph
from capexport.structure.flatbuffer import Reader
from tests.attacks.graphs import refused
from tests.graphfiles import edit_onnx, edit_tflite

VARIANTS = [("onnx", "fp32"), ("ort", "fp32"), ("tflite", "fp32")]


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


def test_an_ort_graph_whose_texts_are_one_text(tiny_bundles):
    """Strings are offsets: many may lead to one, which then is in memory many times."""
    data = bytearray(tiny_bundles["ort", "fp32"].graph("encoder"))
    read = Reader(bytes(data), b"ORTM")
    graph = read.table(read.table(read.root(), 1), 7)
    [node, *_] = read.tables(graph, 2)
    data += bytes(-len(data) % 4)
    listed, count = len(data), 10_000
    text = listed + 4 + 4 * count
    struct.pack_into("<I", data, node.place + node.fields[8], listed - (node.place + node.fields[8]))
    data += struct.pack(f"<{1 + count}I", count, *(text - place for place in range(listed + 4, text, 4)))
    data += struct.pack("<I", 99_999) + b"x" * 99_999 + b"\0"
    refused("ort", bytes(data), "more than 200000 parts")


def test_tflite_graphs_of_other_types_than_the_manifest_says(tiny_bundles, tmp_path):
    def change(model):
        model.signatureDefs[0].outputs[0].tensorIndex = model.signatureDefs[0].inputs[0].tensorIndex

    bundle = tiny_bundles["tflite", "fp32"]
    files = {**bundle.files, "decoder.tflite": edit_tflite(bundle.graph("decoder"), change)}
    with pytest.raises(BundleError, match="another type or shape"):
        capexport.load(write_bundle(tmp_path / "lying", bundle.manifest, files))


def test_readers_load_neither_onnx_nor_an_engine():

    code = (
        "import capexport.structure.onnx, capexport.structure.ort, capexport.structure.tflite, sys; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnx", "onnxruntime", "flatbuffers", "tensorflow", "ai_edge_litert"} & set(done.stdout.split())
