"""Conversion: the contract of the graphs, repeatability, refusals."""

import os
import subprocess
import sys

import numpy as np
import pytest

import capexport
from capexport import OptionError, OutputError, SourceError
from tests.conftest import VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_contract_holds_in_the_graph_itself(variant, tiny_bundles):
    bundle = tiny_bundles[variant]
    decoder = bundle.manifest.graphs["decoder"]
    names = [f"{kind}_{part}_{i}" for kind in ("cross", "self") for i in range(2) for part in ("keys", "values")]
    assert {tensor.name for tensor in decoder.inputs} == {"tokens", "position", *names}
    grown = {name.replace("self_", "next_") for name in names if name.startswith("self_")}
    assert {tensor.name for tensor in decoder.outputs} == {"logits", "attention", *grown}
    assert actual_tensors(bundle, "decoder") == stated_tensors(decoder)
    assert actual_tensors(bundle, "encoder") == stated_tensors(bundle.manifest.graphs["encoder"])


def stated_tensors(graph):
    return {t.name: (t.dtype, tuple(t.shape)) for t in (*graph.inputs, *graph.outputs)}


def actual_tensors(bundle, name):
    if bundle.manifest.format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(bundle.graph(name))
        kinds = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(uint8)": "uint8"}
        return {t.name: (kinds[t.type], tuple(t.shape)) for t in (*session.get_inputs(), *session.get_outputs())}
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=bundle.graph(name)).get_signature_runner()
    details = runner.get_input_details() | runner.get_output_details()
    return {
        key: (np.dtype(d["dtype"]).name, tuple("B" if n < 0 else int(n) for n in d["shape_signature"]))
        for key, d in details.items()
    }


@pytest.mark.parametrize("recipe", ["fp32", "dynamic-int8"])
def test_onnx_uses_known_operators_alone(recipe, tiny_bundles):
    """The standard's, and in int8 onnxruntime's own."""
    import onnx

    allowed = {"", "com.microsoft"} if recipe == "dynamic-int8" else {""}

    for name in ("encoder", "decoder"):
        model = onnx.load_from_string(tiny_bundles["onnx", recipe].graph(name))
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} <= allowed
        assert not any(tensor.external_data for tensor in model.graph.initializer)


@pytest.mark.parametrize("recipe", ["fp32", "dynamic-int8"])
def test_tflite_uses_built_in_operators_alone(recipe, tiny_bundles):
    from ai_edge_litert.interpreter import Interpreter

    for name in ("encoder", "decoder"):
        interpreter = Interpreter(model_content=tiny_bundles["tflite", recipe].graph(name))
        operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
        assert not {name for name in operators if name.startswith("Flex") or name == "CUSTOM"}


def test_int8_is_int8(tiny_bundles):
    import onnx

    for recipe, expected in (("fp32", False), ("dynamic-int8", True)):
        model = onnx.load_from_string(tiny_bundles["onnx", recipe].graph("decoder"))
        assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in model.graph.initializer) == expected
        assert any(node.op_type == "MatMulNBits" for node in model.graph.node) == expected


def test_the_shipped_captioner_shrinks(shipped_bundles):
    for to in ("onnx", "tflite"):
        assert shipped_bundles[to, "dynamic-int8"].size < 0.45 * shipped_bundles[to, "fp32"].size


def test_exports_in_two_other_processes_give_the_same_bytes(tiny_source, tmp_path):
    code = "import sys, capexport\nfor to, recipe in zip(sys.argv[3::2], sys.argv[4::2]):\n"
    code += "    capexport.convert(sys.argv[1], f'{sys.argv[2]}/{to}-{recipe}', to, recipe)"
    variants = [name for variant in VARIANTS for name in variant]
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(tiny_source), str(tmp_path / seed), *variants]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    for to, recipe in VARIANTS:
        one, two = (capexport.read_bundle(tmp_path / seed / f"{to}-{recipe}") for seed in ("1", "2"))
        assert one.manifest == two.manifest


def test_a_source_on_disk_and_the_live_model_give_the_same_bundle(tiny_source, tiny_bundle, tmp_path):
    assert capexport.convert(tiny_source, tmp_path / "again").manifest == tiny_bundle.manifest


def test_nothing_is_overwritten_unasked_and_nothing_half_written(tiny_source, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    for force, problem in ((False, "exists already"), (True, "not replaced even with --force")):
        with pytest.raises(OutputError, match=problem):
            capexport.convert(tiny_source, out, force=force)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "letter.txt"]
    monkeypatch.setattr("capexport.bundle.read_bundle", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        capexport.convert(tiny_source, tmp_path / "stopped")
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
