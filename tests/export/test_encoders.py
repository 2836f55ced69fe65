"""Encoders of odd measures and layers: converted with the words that they have, or refused in a sentence."""

import pytest
import tensorflow as tf
import tf_keras

from capexport import OptionError, SourceError
from capexport.captioner.backbone import build_backbone
from capexport.captioner.distillation import estimate_statistics
from capexport.captioner.measures import multiplications
from capexport.export.exporter import Exporter
from capexport.image import load_image
from tests.conftest import tiny_captioner

layers = tf_keras.layers


def encoder(*inner):
    return tf_keras.Sequential([layers.Rescaling(1 / 255, input_shape=(64, 64, 3)), *inner])


def lively(photos, *inner):
    """An encoder whose features vary, so that attention is decided: on even one, roundings choose the cells."""
    made = encoder(*inner, layers.BatchNormalization(gamma_initializer=tf_keras.initializers.Constant(10)))
    made.trainable = True
    estimate_statistics(made, [load_image(photo, (64, 64)) for photo in photos], batch=len(photos))
    made.trainable = False
    return made


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_feature_map_of_one_place(to, photos):
    """All attention is on it, and so never varies, whatever rounding does to it."""
    captioner = tiny_captioner(build_backbone("MobileNetV3Small", (32, 32), None), image_size=(32, 32))
    exporter = Exporter(captioner, photos)
    assert all(check.holds for check in exporter.export(to, "fp32").bundle.manifest.gate)
    export = exporter.export(to, "dynamic-int8")
    assert export.choices["decoder"][-1].share > 0.5
    assert all(check.holds for check in export.bundle.manifest.gate)


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_several_kernels_of_a_channel(to, photos):
    tf.keras.utils.set_random_seed(0)  # before layers are made, which draw their seeds then
    several = layers.DepthwiseConv2D(3, 4, depth_multiplier=2, activation="relu")
    inner = lively(photos, layers.Conv2D(8, 3, 4, activation="relu"), several, layers.Conv2D(12, 1))
    captioner = tiny_captioner(inner)
    exporter = Exporter(captioner, photos)
    for recipe in ("weight-int8", "int8"):
        assert all(check.holds for check in exporter.export(to, recipe).bundle.manifest.gate)


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_layer_that_is_used_twice(to, photos):
    """On maps of two sizes; its multiplications are those of both."""
    tf.keras.utils.set_random_seed(0)
    twice = layers.Conv2D(8, 3, 2, "same", activation="relu")
    inner = lively(photos, layers.Conv2D(8, 1), twice, twice, layers.Conv2D(12, 1))
    export = Exporter(tiny_captioner(inner), photos).export(to, "weight-int8")
    assert all(check.holds for check in export.bundle.manifest.gate)
    expected = 64 * 64 * 3 * 8 + (32 * 32 + 16 * 16) * 9 * 8 * 8 + 16 * 16 * 8 * 12
    assert multiplications(inner) == expected


@pytest.mark.parametrize(
    ("to", "message"), [("onnx", "computes RGBToHSV, which tf2onnx cannot write"), ("tflite", "TFLite cannot say")]
)
def test_what_a_format_lacks(to, message, photos, capfd):
    captioner = tiny_captioner(encoder(layers.Lambda(tf.image.rgb_to_hsv), layers.Conv2D(12, 8, 32)))
    exporter = Exporter(captioner, photos)
    capfd.readouterr()
    with pytest.raises(SourceError, match=message):
        exporter.export(to, "fp32")


def test_half_precision(photos):
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        half = encoder(layers.Conv2D(12, 8, 32))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    with pytest.raises(SourceError, match="feature_extractor computes in half precision"):
        Exporter(tiny_captioner(half), photos)


def test_photos_that_are_too_small():
    with pytest.raises(OptionError, match="InceptionV3 cannot be built for photos of 40x40 pixels"):
        build_backbone("InceptionV3", (40, 40), None)
