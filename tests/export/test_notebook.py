"""A notebook's own captioner, handed over live: converted, saved, or told what it lacks."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import capexport
from capexport import SourceError, load_image
from capexport.captioner.backbone import build_backbone
from capexport.captioner.weights import decoder_variables, encoder_variables, fingerprint
from capexport.export.convert import prepare
from tests import notebook
from tests.notebook import build_notebook, lively_backbone

DECODERS = {
    "one layer, one head, a wide feed-forward": {"num_layers": 1, "num_heads": 1, "width": 70},
    "four layers, eight heads, a key_dim of its own": {"num_layers": 4, "num_heads": 8, "key_dim": 6},
}
BACKBONES = {
    "EfficientNetV2B0, 256 pixels, 20,000 words": ("EfficientNetV2B0", 256, 20_000),
    "MobileNetV2, 160 pixels": ("MobileNetV2", 160, 50),
}


@pytest.fixture(scope="module")
def live(lively_encoder):
    return build_notebook(lively_encoder)


def check_same_words(live, photos, tmp_path):
    """Both formats say what the model's own simple_gen says, which leaves the last token out."""
    size = live.feature_extractor.input_shape[1:3]
    pixels = [tf.cast(load_image(photo, size, "bilinear"), tf.float32) for photo in photos]
    spoken = [live.simple_gen(photo, temperature=0) for photo in pixels]
    assert len(set(spoken)) > 2
    outs = {("onnx", "fp32"): tmp_path / "onnx", ("tflite", "fp32"): tmp_path / "tflite"}
    for export, out in zip(prepare(live, outs, calibration=photos), outs.values(), strict=True):
        captioner = capexport.load(export.write(out))
        assert captioner.bundle.manifest.preprocessing.resize == "bilinear"
        assert [" ".join(captioner.caption(photo).words[:-1]) for photo in photos] == spoken


@pytest.mark.parametrize("decoder", DECODERS)
def test_any_shape_of_decoder_says_the_same(decoder, lively_encoder, photos, tmp_path):
    check_same_words(build_notebook(lively_encoder, **DECODERS[decoder]), photos, tmp_path)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_other_backbones_and_sizes_say_the_same(backbone, photos, tmp_path):
    name, size, vocabulary = BACKBONES[backbone]
    live = build_notebook(lively_backbone(name, size, photos), vocabulary, units=32, max_length=6)
    check_same_words(live, photos, tmp_path)


def test_the_live_model_stays_as_it_was(live, tmp_path):
    variables = encoder_variables(live.feature_extractor) | decoder_variables(live)
    before = fingerprint(variables)
    bias = live.output_layer.bias.copy()
    capexport.save_captioner(live, tmp_path / "saved")
    assert fingerprint(variables) == before
    np.testing.assert_array_equal(bias, live.output_layer.bias)
    assert not hasattr(live, "config")


def scaled():
    """MobileNetV2 behind a Rescaling layer, as a notebook puts it there."""
    bare = build_backbone("MobileNetV2", SMALL, None, include_preprocessing=False)
    return tf_keras.Sequential([tf_keras.layers.Rescaling(1 / 127.5, offset=-1, input_shape=(*SMALL, 3)), bare])


SMALL = (32, 64)
ENCODERS = {
    "MobileNetV3Small without preprocessing": lambda: build_backbone("MobileNetV3Small", SMALL, None, False),
    "EfficientNetV2B0": lambda: build_backbone("EfficientNetV2B0", SMALL, None),
    "MobileNetV2 without preprocessing": lambda: build_backbone("MobileNetV2", SMALL, None, False),
    "MobileNetV2": scaled,
}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_saved_and_loaded_it_has_the_same_logits(encoder, photos, tmp_path):
    live = build_notebook(ENCODERS[encoder](), num_layers=3, num_heads=4, key_dim=6, units=24)
    capexport.save_captioner(live, tmp_path / "saved")
    loaded = capexport.load_captioner(tmp_path / "saved")
    config = loaded.config
    name, *without = encoder.split(" without ")
    assert (config.backbone, config.include_preprocessing) == (name, not without)
    assert (config.num_layers, config.num_heads, config.key_dim, config.units) == (3, 4, 6, 24)
    assert (config.max_length, config.vocabulary_size, config.dropout_rate) == (9, 50, pytest.approx(0.3))
    assert config.resize == "bilinear"
    assert loaded.tokenizer.get_vocabulary() == live.tokenizer.get_vocabulary()
    assert set(notebook.ODD_WORDS) <= set(loaded.tokenizer.get_vocabulary())
    pixels = np.stack([load_image(photo, SMALL, "bilinear") for photo in photos[:3]]).astype(np.float32)
    for i in range(len(pixels)):
        inputs = (pixels[i : i + 1], tf.constant([[3, 2, 9, 20]], tf.int64))
        np.testing.assert_allclose(loaded(inputs), live(inputs), rtol=1e-4, atol=1e-3)


def test_what_no_config_describes_is_not_saved(lively_encoder, tmp_path):
    def refused(problem, encoder=lively_encoder, **changes):
        with pytest.raises(SourceError, match=problem):
            capexport.save_captioner(build_notebook(encoder, **changes), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    refused(r"ff.first.kernel has the shape \(16, 70\).*\(16, 32\).*convert takes", width=70)
    refused("compute something else", activation="gelu")
    thin = tf_keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, include_top=False, weights=None)
    refused("feature_extractor .mobilenetv2.* is none of the backbones.*convert takes", encoder=thin)
    own = tf_keras.Sequential([tf_keras.layers.Conv2D(4, 3, input_shape=(20, 20, 3))])
    refused("feature_extractor .sequential.* is none of the backbones", encoder=own)


@pytest.mark.parametrize("name", ["ResNet50", "VGG16", "DenseNet121"])
def test_backbones_of_unknown_preprocessing(name):
    with pytest.raises(capexport.OptionError, match=f"How {name} wants its pixels"):
        build_backbone(name, (64, 64), None)


def test_a_scaled_backbone_is_the_application_on_scaled_pixels():
    ours = build_backbone("MobileNetV2", (64, 64), None)
    bare = tf_keras.applications.MobileNetV2((64, 64, 3), include_top=False, weights=None)
    bare.set_weights(ours.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    expected = bare(tf_keras.applications.mobilenet_v2.preprocess_input(pixels.copy()))
    np.testing.assert_allclose(ours(pixels), expected, atol=1e-4)


NEEDED = [
    "tokenizer",
    "feature_extractor",
    "seq_embedding",
    "seq_embedding.token_embedding",
    "seq_embedding.pos_embedding",
    "decoder_layers",
    *(
        f"decoder_layers.1.{attribute}"
        for block in ("self_attention", "cross_attention")
        for attribute in (block, f"{block}.mha", f"{block}.layernorm")
    ),
    "decoder_layers.0.ff",
    "decoder_layers.0.ff.seq",
    "decoder_layers.0.ff.layernorm",
    "output_layer",
    "output_layer.dense",
    "output_layer.bias",
]


def check_refused(captioner, folder, problem):
    for hand_over in (capexport.convert, capexport.save_captioner):
        with pytest.raises(SourceError, match=problem):
            hand_over(captioner, folder / "out")
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("path", NEEDED)
def test_a_missing_attribute_is_named(path, live, tmp_path, monkeypatch):
    owner, names = live, path.split(".")
    for name in names[:-1]:
        owner = owner[int(name)] if name.isdecimal() else getattr(owner, name)
    monkeypatch.delattr(owner, names[-1])
    check_refused(live, tmp_path, f"it has no {path}".replace(".", r"\.") + r"(\.0)?\.$")


def test_a_layer_that_keeps_no_attention_is_named(live, tmp_path, monkeypatch):
    keeps_nothing = property(lambda layer: layer.nothing, lambda layer, value: None)
    monkeypatch.setattr(notebook.Block, "last_attention_scores", keeps_nothing, raising=False)
    with pytest.raises(SourceError, match=r"no decoder_layers\.0\.last_attention_scores"):
        capexport.convert(live, tmp_path / "out")


def test_a_model_that_is_not_ready(lively_encoder, tmp_path):
    unused = build_notebook(lively_encoder, ready=False)
    check_refused(unused, tmp_path, "token_embedding has no weights yet: call the model once first")
    unused.output_layer.bias = np.zeros(50)
    unused((tf.zeros([1, *lively_encoder.output_shape[1:]]), tf.constant([[2]], tf.int64)))
    unused.output_layer.bias = None
    check_refused(unused, tmp_path, "output_layer has no bias yet: call its adapt")


def test_attention_of_another_shape_is_told_so(lively_encoder, tmp_path):
    check_refused(
        build_notebook(lively_encoder, value_dim=4),
        tmp_path,
        r"decoder_layers\.0\.self_attention\.mha\.value\.kernel should have the shape \(16, 2, 16\).* \(16, 2, 4\)",
    )
    check_refused(
        build_notebook(lively_encoder, use_bias=False), tmp_path, "mha.query.bias should have .* there is none"
    )


def test_layers_that_compute_something_else(lively_encoder, tmp_path):
    with pytest.raises(SourceError, match="decoder layer 0 uses gelu; only relu"):
        capexport.convert(build_notebook(lively_encoder, activation="gelu"), tmp_path / "out")
    residual = build_notebook(lively_encoder)
    attend = residual.decoder_layers[0].ff.call
    residual.decoder_layers[0].ff.call = lambda words: attend(words) + 0.5 * words
    check_refused(residual, tmp_path, "layers compute something else")


def test_a_feature_extractor_without_a_fixed_shape(lively_encoder, tmp_path):
    live = build_notebook(lively_encoder)
    live.feature_extractor = tf_keras.applications.MobileNetV3Small((None, None, 3), include_top=False, weights=None)
    check_refused(live, tmp_path, r"feature_extractor has the output_shape \(None, None, None, 576\).*input_shape")

    class Encoder(tf_keras.Model):
        def call(self, pixels):
            return lively_encoder(pixels)

    live.feature_extractor = Encoder()
    check_refused(live, tmp_path, r"no feature_extractor\.output_shape")
    live.feature_extractor = tf_keras.Sequential([lively_encoder, tf_keras.layers.GlobalAveragePooling2D()])
    check_refused(live, tmp_path, r"output_shape \(None, 576\); \(None, height, width, channels\) is expected")


def test_a_tokenizer_of_other_words(lively_encoder, tmp_path):
    live = build_notebook(lively_encoder)
    live.tokenizer = build_notebook(lively_encoder, vocabulary=40, ready=False).tokenizer
    check_refused(live, tmp_path, "tokenizer has 40 words and output_layer.bias 50, but seq_embedding was made for 50")
