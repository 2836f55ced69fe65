"""Conversion: the contract of the graphs, repeatability, refusals."""

import importlib
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

import capexport
from capexport import OptionError, OutputError, SourceError
from capexport.recipes import FORMATS
from tests.conftest import CALIBRATION, FUSED, VARIANTS

ELSEWHERE = """
import sys
from pathlib import Path
import capexport
from capexport.captioner.backbone import build_backbone
from capexport.export.exporter import Exporter
source, out, *photos = map(Path, sys.argv[1:])
build_backbone("MobileNetV3Small", (64, 64), None)  # after which TensorFlow counts on in its layers' names
exporter = Exporter(capexport.load_captioner(source), photos)
for to, recipe, *fused in VARIANTS:
    exporter.export(to, recipe, fused=bool(fused)).write(out / "-".join([to, recipe, *fused]), gate=False)
"""


def test_another_process_gives_the_same_bytes(tiny_source, tiny_bundles, photos, tmp_path):
    """From the captioner on disk, after another model. This test is the first, so that both make bundles at once.

    Bundles with several files have those of a bundle without a graph for whole captions (see test_fused).
    """
    variants = [*FUSED, *(variant for variant in VARIANTS if FORMATS[variant[0]].one_file)]
    code = ELSEWHERE.replace("VARIANTS", repr(variants))
    command = [sys.executable, "-c", code, tiny_source, tmp_path, *photos[:CALIBRATION]]
    with subprocess.Popen(command, env={**os.environ, "PYTHONHASHSEED": "1"}) as process:
        here = {variant: tiny_bundles[variant].manifest for variant in variants}
    assert process.returncode == 0
    assert {variant: capexport.read_bundle(tmp_path / "-".join(variant)).manifest for variant in variants} == here


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_contract_holds_in_the_graph_itself(variant, tiny_bundles):
    bundle = tiny_bundles[variant]
    decoder = bundle.manifest.graphs["decoder"]
    cross = [f"cross_{part}_{i}" for i in range(2) for part in ("keys", "values")]
    kept, grown = ([f"{kind}_states_{i}" for i in range(2)] for kind in ("self", "next"))
    assert {tensor.name for tensor in decoder.inputs} == {"tokens", "position", *cross, *kept}
    assert {tensor.name for tensor in decoder.outputs} == {"logits", "attention", *grown}
    assert actual_tensors(bundle, "decoder") == stated_tensors(decoder)
    assert actual_tensors(bundle, "encoder") == stated_tensors(bundle.manifest.graphs["encoder"])


def stated_tensors(graph):
    return {t.name: (t.dtype, tuple(t.shape)) for t in (*graph.inputs, *graph.outputs)}


def actual_tensors(bundle, name):
    if FORMATS[bundle.manifest.format].engine == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(bundle.graph(name))
        kinds = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(uint8)": "uint8"}
        return {t.name: (kinds[t.type], tuple(t.shape)) for t in (*session.get_inputs(), *session.get_outputs())}
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=bundle.graph(name)).get_signature_runner()
    details = runner.get_input_details() | runner.get_output_details()
    return {
        key: (np.dtype(d["dtype"]).name, tuple(named(key, k, int(n)) for k, n in enumerate(d["shape_signature"])))
        for key, d in details.items()
    }


def named(tensor, axis, length):
    """A length of TFLite's, or what it is called where it varies."""
    if length >= 0:
        return length
    return "P" if tensor.startswith(("self_", "next_")) and axis == 2 else "B"


@pytest.mark.parametrize("recipe", [recipe for to, recipe in VARIANTS if to == "tflite"])
def test_tflite_has_places_for_all_words_in_a_program_that_asks_for_no_others(recipe, tiny_bundles):
    from ai_edge_litert.interpreter import Interpreter

    bundle = tiny_bundles["tflite", recipe]
    for allocate in (False, True):
        interpreter = Interpreter(model_content=bundle.graph("decoder"))
        if allocate:
            interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner()
        details = runner.get_input_details() | runner.get_output_details()
        shapes = {tuple(d["shape"]) for name, d in details.items() if name.startswith(("self_", "next_"))}
        assert shapes == {(1, 1, bundle.manifest.shape.max_length, 16)}


@pytest.mark.parametrize("recipe", [recipe for to, recipe in VARIANTS if to == "onnx"])
def test_onnx_uses_known_operators_alone(recipe, tiny_bundles):
    """The standard's, and onnxruntime's own where rows are quantised as they come."""
    import onnx

    allowed = {"", "com.microsoft"} if recipe in ("dynamic-int8", "int8") else {""}
    for name in ("encoder", "decoder"):
        model = onnx.load_from_string(tiny_bundles["onnx", recipe].graph(name))
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} <= allowed
        assert not any(tensor.external_data for tensor in model.graph.initializer)


@pytest.mark.parametrize("recipe", [recipe for to, recipe in VARIANTS if to == "tflite"])
def test_tflite_uses_built_in_operators_alone(recipe, tiny_bundles):
    """With which the interpreter's own delegate can be applied."""
    from ai_edge_litert.interpreter import Interpreter

    for name in ("encoder", "decoder"):
        interpreter = Interpreter(model_content=tiny_bundles["tflite", recipe].graph(name))
        interpreter.allocate_tensors()
        operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
        assert not {name for name in operators if name.startswith("Flex") or name == "CUSTOM"}


@pytest.mark.parametrize("recipe", [recipe for to, recipe in VARIANTS if to == "ort"])
def test_ort_files_are_the_onnx_graphs_and_their_bundle_lists_the_operators(recipe, tiny_bundles, photos):
    """In the form of the configuration with which onnxruntime is built for these operators alone."""
    ours, theirs = (capexport.load(tiny_bundles[to, recipe]) for to in ("ort", "onnx"))
    for photo in photos:
        one, other = ours.caption(photo), theirs.caption(photo)
        assert one.tokens == other.tokens
        rounded = 0.03 if recipe == "int8" else 1e-4  # fused operators round a level up where others round it down
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=rounded)
    listed = dict.fromkeys(("ai.onnx", "com.microsoft"), frozenset())
    for line in ours.bundle.files["required_operators.config"].decode().splitlines():
        domain, _, names = line.split(";")
        listed[domain] |= set(names.split(","))
    assert listed["ai.onnx"] >= {"Attention", "Conv", "Gather", "LayerNormalization"}
    assert ("MatMulNBits" in listed["com.microsoft"]) == (recipe in ("dynamic-int8", "int8"))
    assert ("QLinearMatMul" in listed["ai.onnx"]) == (recipe == "int8")
    for name in ("encoder", "decoder"):
        assert ours.bundle.graph(name)[4:8] == b"ORTM"


@pytest.mark.parametrize("name", ["encoder", "decoder", "captioner"])
def test_ort_files_multiply_by_unsigned_weights(name, tiny_bundles):
    """Products by signed ones saturate on some processors; onnxruntime replaces them in ONNX graphs alone."""
    importlib.import_module("onnxruntime.tools.ort_format_model")  # after which the next one is found
    from ort_flatbuffers_py.fbs import InferenceSession

    places = {b"QLinearMatMul": 3, b"MatMulIntegerToFloat": 1, b"DequantizeLinear": 0}

    def found(graph):
        """The operators of a graph, and of a loop's within it, each with the type of its stored weights."""
        initializers = [graph.Initializers(k) for k in range(graph.InitializersLength())]
        types = {tensor.Name(): tensor.DataType() for tensor in initializers}
        for node in (graph.Nodes(k) for k in range(graph.NodesLength())):
            if node.OpType() in places and node.Inputs(places[node.OpType()]) in types:
                yield node.OpType(), types[node.Inputs(places[node.OpType()])]
            for attribute in (node.Attributes(k) for k in range(node.AttributesLength())):
                if attribute.G() is not None:
                    yield from found(attribute.G())

    data = tiny_bundles["ort", "int8", "fused"].graph(name)
    operators = list(found(InferenceSession.InferenceSession.GetRootAs(data, 0).Model().Graph()))
    assert name == "encoder" or (b"QLinearMatMul", onnx.TensorProto.UINT8) in operators
    assert {kind for _, kind in operators} == {onnx.TensorProto.UINT8}


def test_an_ort_file_is_the_same_in_whatever_order_onnxruntime_lists_kernels(tiny_bundles):
    """It does so in another order now and then, by which what follows the list begins elsewhere."""
    from capexport.export.ort import write

    model = tiny_bundles["onnx", "weight-int8"].graph("decoder")
    assert len({write(model) for _ in range(60)}) == 1


def test_nothing_is_overwritten_unasked_and_nothing_half_written(tiny_source, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    for force, problem in ((False, "exists already"), (True, "not replaced even with --force")):
        with pytest.raises(OutputError, match=problem):
            capexport.convert(tiny_source, out, force=force)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "letter.txt"]
    monkeypatch.setattr("capexport.bundle.read_bundle", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        capexport.convert(tiny_source, tmp_path / "stopped", calibration=photos[:2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_options_are_checked_before_the_work(tmp_path):
    with pytest.raises(OptionError, match="no recipe 'int4'"):
        capexport.convert("nowhere", tmp_path / "out", recipe="int4")
    with pytest.raises(OptionError, match="no format 'coreml'"):
        capexport.convert("nowhere", tmp_path / "out", to="coreml")
    with pytest.raises(SourceError, match="no captioner at nowhere"):
        capexport.convert("nowhere", tmp_path / "out")


class Anything:
    """An object with some of the tutorial's attributes."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def test_a_live_object_that_lacks_an_attribute_is_told_which(tiny, tmp_path):
    half = Anything(tokenizer=tiny.tokenizer, feature_extractor=tiny.feature_extractor, output_layer=tiny.output_layer)
    with pytest.raises(SourceError, match="seq_embedding"):
        capexport.convert(half, tmp_path / "out")
