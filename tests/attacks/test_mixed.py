"""Files of different captioners in one bundle, correctly signed: load(verify=True) refuses what hashes cannot tell."""

import dataclasses
import subprocess
import sys

import pytest

import capexport
from capexport import BundleError
from capexport.bundle import write_bundle
from capexport.cli.main import main
from capexport.parity.vectors import pack, unpack
from capexport.vocabulary import Vocabulary


@pytest.fixture
def bundle(tiny_bundles):
    return tiny_bundles["onnx", "fp32"]


def mixed(bundle, tmp_path, manifest=None, **files):
    renamed = {name.replace("_", "."): data for name, data in files.items()}
    return write_bundle(tmp_path / "mixed", manifest or bundle.manifest, bundle.files | renamed)


def refused(bundle, match):
    capexport.load(bundle)
    with pytest.raises(BundleError, match=match):
        capexport.load(bundle, verify=True)


@pytest.mark.parametrize("to", ["onnx", "ort", "tflite"])
def test_a_bundle_as_it_was_made_is_loaded(to, tiny_bundles, photos):
    bundle = tiny_bundles[to, "fp32"]
    said = capexport.load(bundle).caption(photos[3]).text
    assert capexport.load(bundle.directory, verify=True).caption(photos[3]).text == said


def test_words_in_another_order(bundle, tmp_path):
    words = list(bundle.vocabulary.words)
    words[10], words[20] = words[20], words[10]
    refused(mixed(bundle, tmp_path, vocabulary_txt=Vocabulary(tuple(words)).to_text().encode()), "vocabulary as when")


def test_another_captioners_decoder(bundle, tmp_path):
    """Its embeddings are the first one's, times two."""
    from onnx import numpy_helper

    from tests.graphfiles import edit_onnx

    def change(model):
        words = bundle.manifest.shape.vocabulary
        [tensor] = [one for one in model.graph.initializer if list(one.dims[:1]) == [words] and len(one.dims) == 2]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, tensor.name))

    refused(mixed(bundle, tmp_path, decoder_onnx=edit_onnx(bundle.graph("decoder"), change)), "logit")


def test_a_decoder_of_another_recipe(bundle, tiny_bundles, tmp_path):
    other = tiny_bundles["onnx", "dynamic-int8"].graph("decoder")
    refused(mixed(bundle, tmp_path, decoder_onnx=other), "largest error of a logit")


def test_another_preprocessing(bundle, tmp_path):
    changed = dataclasses.replace(bundle.manifest.preprocessing, resize="bilinear")
    refused(mixed(bundle, tmp_path, dataclasses.replace(bundle.manifest, preprocessing=changed)), "pixels as when")


def test_vectors_of_another_captioner(bundle, tmp_path):
    first, *others = unpack(bundle.files["parity.npz"], bundle.manifest)
    data = pack([dataclasses.replace(first, logits=first.logits * 1.5), *others])
    refused(mixed(bundle, tmp_path, parity_npz=data), "does not say what it said")


def test_a_whole_graph_of_another_recipe(tiny_bundles, tmp_path):
    bundle = tiny_bundles["onnx", "fp32", "fused"]
    other = tiny_bundles["onnx", "dynamic-int8", "fused"].graph("captioner")
    refused(mixed(bundle, tmp_path, captioner_onnx=other), "whole captions as step by step")


def test_vectors_from_before_they_named_the_vocabulary(bundle, tmp_path):
    old = [dataclasses.replace(v, vocabulary="") for v in unpack(bundle.files["parity.npz"], bundle.manifest)]
    assert capexport.load(mixed(bundle, tmp_path, parity_npz=pack(old)), verify=True)


def test_the_command(bundle, photos, tmp_path, capsys):
    arguments = ["caption", str(photos[0]), "--verify", "--bundle"]
    assert main([*arguments, str(bundle.directory)]) == 0
    words = list(bundle.vocabulary.words)
    words[10], words[20] = words[20], words[10]
    hostile = mixed(bundle, tmp_path, vocabulary_txt=Vocabulary(tuple(words)).to_text().encode())
    capsys.readouterr()
    assert main([*arguments, str(hostile.directory)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_it_needs_no_tensorflow(bundle):
    code = f"import sys, capexport; capexport.load({str(bundle.directory)!r}, verify=True); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "onnx", "tf_keras"} & set(done.stdout.split())
