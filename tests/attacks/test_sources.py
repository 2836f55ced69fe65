"""Source captioners with code in place of weights, or a config made to do harm: nothing is unpickled."""

import importlib
import json
import os
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

import capexport
from capexport import CapexportError, SourceError


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil-was-here",)


def keras_file(path, **options):
    """A whole model of Keras with a Lambda layer, whose code is part of the file."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.Input((1,)), tf_keras.layers.Lambda(lambda x: x + 1)])
    model.save(path, **options)
    return path.read_bytes()


@pytest.fixture
def source(tiny_source, tmp_path, monkeypatch):
    shutil.copytree(tiny_source, tmp_path / "source")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "source"


def refused(source, match):
    with pytest.raises(CapexportError, match=match):
        capexport.load_captioner(source)
    assert not (source.parent / "evil-was-here").exists()


def test_a_pickle(source):
    (source / "weights.safetensors").write_bytes(pickle.dumps(Evil()))
    refused(source, "cannot be read")


def test_arrays_that_are_pickles(source):
    np.save(source / "weights.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    (source / "weights.npy").rename(source / "weights.safetensors")
    refused(source, "cannot be read")


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_a_whole_model_of_keras(source, name, tmp_path):
    (source / "weights.safetensors").write_bytes(keras_file(tmp_path / name))
    refused(source, "cannot be read")
    (source / "weights.safetensors").rename(source / name)
    refused(source, "cannot be read")


@pytest.mark.parametrize("backbone", ["load_model", "__builtins__", "Lambda", "os.system", "mobilenet_v3", "", 7])
def test_a_backbone_that_is_none(source, backbone):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"backbone": backbone}))
    refused(source, r"backbone|config|\w+")


@pytest.mark.parametrize(
    "change",
    [
        {"units": 2**40},
        {"vocabulary_size": 10**30},
        {"image_size": [2**31, 2**31]},
        {"max_length": True},
        {"num_layers": -1},
        {"image_size": 7},
        {"lambda": "lambda x: x"},
    ],
)
def test_a_config_with_absurd_sizes(source, change):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | change))
    refused(source, "config|sizes")


@pytest.mark.parametrize(
    "change",
    [
        *({"dropout_rate": rate} for rate in (-5, float("nan"), float("inf"), "x", None, True, [1])),
        *({"image_size": size} for size in ([], [224], [64, 64, 3], "ab", {"a": 1}, [64.0, 64], [2**20, 2**20])),
        *({name: 2**20} for name in ("num_heads", "max_length", "units", "key_dim", "num_layers")),
        {"num_heads": 1000, "key_dim": 60_000, "units": 60_000},
        {"include_preprocessing": "no"},
        {"tied_embeddings": 1},
        {"resize": [1]},
        {"resize": "x" * 90_000},
        {"backbone": "x" * 90_000},
        {"x" * 90_000: 1},
    ],
)
def test_a_config_that_nothing_is_built_of(source, change, monkeypatch):
    monkeypatch.setattr("capexport.captioner.storage.build_backbone", lambda *_: pytest.fail("it was built"))
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(SourceError) as caught:
        capexport.load_captioner(source)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "change", [{"max_length": 2**13}, {"num_heads": 64}, {"units": 2048}, {"num_layers": 100}, {"key_dim": 4096}]
)
def test_sizes_that_are_not_the_weights(source, change, monkeypatch):
    monkeypatch.setattr("capexport.captioner.storage.build_backbone", lambda *_: pytest.fail("it was built"))
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | change))
    refused(source, "the config asks for|do not fit the config")


@pytest.mark.parametrize(
    ("backbone", "size"), [("InceptionV3", [32, 32]), ("MobileNetV3Small", [1, 1]), ("NASNetMobile", [8, 8])]
)
def test_photos_too_small_for_the_backbone(source, backbone, size):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"backbone": backbone, "image_size": size}))
    with pytest.raises(CapexportError) as caught:
        capexport.load_captioner(source)
    assert len(str(caught.value)) < 1000


def test_weights_with_a_hole_behind_them(source):
    path = source / "weights.safetensors"
    os.truncate(path, 3 * 2**30)
    importlib.import_module("capexport.captioner.storage")  # TensorFlow itself takes much
    tracemalloc.start()
    refused(source, "cannot be read")
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["output_layer.bias", "output_layer.dense.kernel"])
def test_weights_that_are_no_numbers_in_their_type(source, name):
    path = source / "weights.safetensors"
    arrays = safetensors.numpy.load_file(path)
    for value in (np.nan, np.inf, -np.inf, 1e300):
        changed = arrays[name].astype(np.float64)
        changed.ravel()[3] = value
        path.write_bytes(safetensors.numpy.save(arrays | {name: changed}))
        refused(source, "not numbers")


def test_names_without_end_are_not_repeated(source):
    path = source / "weights.safetensors"
    arrays = safetensors.numpy.load_file(path)
    arrays["x" * 90_000] = np.zeros(1, np.float32)
    path.write_bytes(safetensors.numpy.save(arrays))
    with pytest.raises(SourceError) as caught:
        capexport.load_captioner(source)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "NaN", "[]", '"config"', "\x00"])
def test_text_that_is_no_config(source, text):
    (source / "config.json").write_text(text)
    refused(source, "config")


def test_weights_that_lie_about_themselves(source):
    path = source / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes((2**60).to_bytes(8, "little") + data[8:])
    refused(source, "cannot be read")
    arrays = safetensors.numpy.load(data)
    name = max(arrays, key=lambda one: arrays[one].size)
    path.write_bytes(safetensors.numpy.save(arrays | {name: arrays[name].ravel()[:-1]}))
    refused(source, "shape")
    path.write_bytes(safetensors.numpy.save(arrays | {"__class__": np.zeros(3, np.float32)}))
    refused(source, "do not fit")


@pytest.mark.parametrize("name", ["config.json", "vocabulary.txt", "weights.safetensors"])
def test_pipes_devices_and_holes(source, name):
    path = source / name
    path.unlink()
    os.mkfifo(path)
    refused(source, "not a plain file|no captioner")
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(source, "not a plain file")
    path.unlink()
    path.touch()
    os.truncate(path, 2**40)
    refused(source, "larger than")


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "I64", "BOOL", "NONE"])
def test_weights_of_another_type(source, dtype):
    path = source / "weights.safetensors"
    name = min(safetensors.numpy.load_file(path))
    header = json.dumps({name: {"dtype": dtype, "shape": [1], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    refused(source, "cannot be read|do not fit|missing or not of")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(source, value):
    path = source / "weights.safetensors"
    arrays = safetensors.numpy.load_file(path)
    name = next(one for one in arrays if "dense" in one and arrays[one].ndim == 2)
    arrays[name] = np.full_like(arrays[name], value)
    path.write_bytes(safetensors.numpy.save(arrays))
    refused(source, "not numbers")
