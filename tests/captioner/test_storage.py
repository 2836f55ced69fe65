"""A captioner on disk."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import capexport
from capexport import OutputError, SourceError, VocabularyError
from capexport.captioner.storage import assign_mean


@pytest.fixture
def source(tiny_source, tmp_path):
    shutil.copytree(tiny_source, tmp_path / "copy")
    return tmp_path / "copy"


def inputs(captioner):
    return tf.ones([1, *captioner.feature_extractor.output_shape[1:]]), tf.constant([[3, 2, 9]])


def test_round_trip(tiny, source):
    loaded = capexport.load_captioner(source)
    np.testing.assert_allclose(loaded(inputs(loaded)), tiny(inputs(tiny)), atol=1e-6)
    assert loaded.config == tiny.config
    assert sorted(path.name for path in source.iterdir()) == ["config.json", "vocabulary.txt", "weights.safetensors"]


def test_half_precision_keeps_biases_whole(tiny, tmp_path):
    capexport.save_captioner(tiny, tmp_path / "half", half=True)
    arrays = safetensors.numpy.load_file(tmp_path / "half/weights.safetensors")
    assert {str(array.dtype) for array in arrays.values() if array.ndim > 1} == {"float16"}
    np.testing.assert_array_equal(arrays["output_layer.bias"], tiny.output_layer.bias)
    loaded = capexport.load_captioner(tmp_path / "half")
    np.testing.assert_allclose(loaded(inputs(loaded)), tiny(inputs(tiny)), atol=0.05)


def test_the_mean_of_saved_weights(tiny, source, tmp_path):
    """In half precision, too; weights that are no numbers or of another shape are refused before any is set."""
    name, captioner = "output_layer.dense.kernel", capexport.load_captioner(source)
    kernel = captioner.output_layer.dense.kernel
    mine = kernel.numpy()
    capexport.save_captioner(tiny, tmp_path / "half", half=True)
    assign_mean(captioner, [source, tmp_path / "half"])
    np.testing.assert_allclose(kernel, (mine + mine.astype(np.float16).astype(np.float32)) / 2, rtol=1e-7)
    arrays, set_last = safetensors.numpy.load_file(source / "weights.safetensors"), kernel.numpy()
    for wrong, problem in ((np.full_like(mine, np.nan), "not numbers"), (mine[1:], "has shape")):
        (source / "weights.safetensors").write_bytes(safetensors.numpy.save(arrays | {name: wrong}))
        with pytest.raises(SourceError, match=problem):
            assign_mean(captioner, [tmp_path / "half", source])
    np.testing.assert_array_equal(kernel, set_last)


def test_nothing_is_overwritten_unasked(tiny, source, tmp_path):
    with pytest.raises(OutputError, match="exists already"):
        capexport.save_captioner(tiny, source)
    capexport.save_captioner(tiny, source, force=True)
    (tmp_path / "letters").mkdir()
    with pytest.raises(OutputError, match="not replaced even with --force"):
        capexport.save_captioner(tiny, tmp_path / "letters", force=True)


def edit_config(source, **values):
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"units": 32}, "shape"),
        ({"num_layers": 1}, "only in one|in only one"),
        ({"num_layers": 0}, "above zero"),
        ({"vocabulary_size": 31}, "31 words"),
        ({"resize": "magic"}, "magic"),
        ({"unknown": 1}, "not a captioner's config"),
        ({"image_size": None}, "not a captioner's config"),
    ],
)
def test_a_config_that_does_not_fit(source, values, problem):
    edit_config(source, **values)
    with pytest.raises(SourceError, match=problem):
        capexport.load_captioner(source)


def test_an_unknown_backbone(source):
    edit_config(source, backbone="ResNet99")
    with pytest.raises(capexport.SourceError, match="ResNet99"):
        capexport.load_captioner(source)


@pytest.mark.parametrize("name", ["config.json", "vocabulary.txt", "weights.safetensors"])
def test_a_file_missing_or_cut(source, name):
    data = (source / name).read_bytes()
    (source / name).write_bytes(data[: len(data) // 2])
    with pytest.raises((SourceError, VocabularyError)):
        capexport.load_captioner(source)
    (source / name).unlink()
    with pytest.raises((SourceError, VocabularyError), match=name.split(".")[0]):
        capexport.load_captioner(source)


def test_no_captioner_at_all(tmp_path):
    with pytest.raises(SourceError, match="no captioner at"):
        capexport.load_captioner(tmp_path / "nothing")


def test_encoder_weights_that_do_not_fit(tmp_path):
    from capexport.captioner.backbone import build_backbone

    with pytest.raises(SourceError, match="no weights file"):
        build_backbone("MobileNetV3Small", (64, 64), tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(SourceError, match="do not fit"):
        build_backbone("MobileNetV3Small", (64, 64), tmp_path / "text.h5")
