"""Bundles under their real engines."""

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import capexport
from capexport import BundleError, DecodingOptions, ImageError, OptionError
from capexport.runtime.backend import GraphBackend
from capexport.runtime.engines import formats_on, open_graph
from tests.conftest import VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_captions(variant, tiny_bundles, photos):
    captioner = capexport.load(tiny_bundles[variant].directory, threads=1)
    one, two = captioner.caption(photos[:2])
    assert captioner.caption(photos[0]).tokens == one.tokens
    for caption in (one, two):
        assert caption.attention.shape == (len(caption.words), 2, 2)
        np.testing.assert_allclose(caption.attention.sum(axis=(1, 2)), 1, atol=1e-5)
        assert 0 < caption.confidence < 1
        assert not {"", "[UNK]", "[START]"} & set(caption.words)


def test_a_seed_gives_the_same_words_on_both_engines(tiny_bundles, photos):
    onnx, tflite = (capexport.load(tiny_bundles[to, "fp32"]) for to in ("onnx", "tflite"))
    texts = {seed: onnx.caption(photos[0], temperature=1.0, seed=seed).text for seed in range(25)}
    assert len(set(texts.values())) > 5
    assert texts == {seed: tflite.caption(photos[0], temperature=1.0, seed=seed).text for seed in range(25)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_processor_encodes_photos_one_by_one(variant, tiny_bundles, photos, monkeypatch):
    captioner, seen = capexport.load(tiny_bundles[variant]), []
    encode = captioner.backend._encode
    monkeypatch.setattr(
        captioner.backend, "_encode", lambda inputs: seen.append(len(inputs["image"])) or encode(inputs)
    )
    captioner.backend.encode(np.stack([captioner.preprocess(photo) for photo in photos]))
    assert seen == [1] * len(photos)


@pytest.mark.parametrize("apart", [False, True])
def test_photos_are_encoded_together_or_one_by_one(apart, tiny_bundle, photos):
    captioner, graphs, seen = capexport.load(tiny_bundle), tiny_bundle.manifest.graphs, []
    names = [tensor.name for tensor in graphs["encoder"].outputs]
    run = open_graph("onnx", tiny_bundle.graph("encoder"), names, None, "an encoder")

    def encode(inputs):
        seen.append(len(inputs["image"]))
        return run(inputs)

    pixels = np.stack([captioner.preprocess(photo) for photo in photos])
    features = GraphBackend(graphs["decoder"], encode, run, apart).encode(pixels)
    assert seen == ([1] * len(photos) if apart else [len(photos)])
    expected = captioner.backend.encode(pixels)
    assert features.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(features[name], values, atol=1e-5)


OPTIONS = [
    {},
    {"temperature": 1.0, "seed": 4, "captions": 2},
    {"temperature": 1.2, "seed": 4, "top_p": 0.9, "top_k": 12},
    {"beams": 3, "captions": 3},
    {"beams": 2, "forced_words": ("word3",)},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("options", OPTIONS)
def test_a_batch_says_what_single_photos_say(variant, options, tiny_bundles, photos):
    captioner = capexport.load(tiny_bundles[variant])
    alone = [captioner.caption(photo, **options) for photo in photos]
    for batch in (1, 4, 16):
        together = captioner.caption(photos, batch=batch, **options)
        assert [said(caption) for caption in together] == [said(caption) for caption in alone]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one.cross_attention, other.cross_attention, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("variant", [("onnx", "dynamic-int8"), ("onnx", "dynamic-int8", "fused"), ("tflite", "fp32")])
def test_threads_share_a_batch(variant, threads, tiny_bundles, photos):
    captioner = capexport.load(tiny_bundles[variant], threads=threads)
    alone = {photo: captioner.caption(photo) for photo in photos}
    many = [photos[(k * k) % len(photos)] for k in range(41)]
    together = captioner.caption(many, batch=41)
    assert [caption.tokens for caption in together] == [alone[photo].tokens for photo in many]
    for caption, photo in zip(together, many, strict=True):
        np.testing.assert_allclose(caption.cross_attention, alone[photo].cross_attention, atol=1e-5)
    with pytest.raises(OptionError, match="this captioner was made for 9"):
        captioner.caption(many, batch=41, max_length=10)


def said(caption):
    return [caption.tokens, *(other.tokens for other in caption.alternatives)]


def test_a_broken_photo_in_a_list(tiny_bundle, photos, tmp_path):
    captioner = capexport.load(tiny_bundle)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photos[0].read_bytes()[:2000])
    hundred = [*photos * 16, broken, *photos[:3]]
    with pytest.raises(ImageError, match=r"broken\.jpg cannot be read"):
        captioner.caption(hundred)
    captions = captioner.caption(hundred, on_error="skip")
    assert isinstance(captions[96], ImageError)
    expected = [captioner.caption(photo).tokens for photo in photos]
    assert [caption.tokens for caption in captions[:96]] == expected * 16
    assert [caption.tokens for caption in captions[97:]] == expected[:3]
    assert captioner.caption([broken], on_error="skip")[0].args == captions[96].args


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_one_image_for_several_threads(kind, tiny_bundle, photos):
    """Pillow reads an image when it is first asked for, which two threads must not do at once."""
    captioner, stream = capexport.load(tiny_bundle, threads=4), io.BytesIO()
    Image.open(photos[0]).convert("RGB").resize((900, 900)).save(stream, kind)
    expected = captioner.caption(stream.getvalue()).tokens
    for _ in range(5):
        image = Image.open(io.BytesIO(stream.getvalue()))
        assert [one.tokens for one in captioner.caption([image] * 4)] == [expected] * 4


def test_captions_that_are_equal(tiny_bundle, photos):
    captioner = capexport.load(tiny_bundle)
    first, second = captioner.caption(photos[0]), captioner.caption(photos[0])
    assert first == second
    assert len({first, second}) == 1
    assert first != dataclasses.replace(second, text="another")


def test_lists_and_options_that_are_refused(tiny_bundle, photos):
    captioner = capexport.load(tiny_bundle)
    with pytest.raises(ImageError, match="the list is empty"):
        captioner.caption([])
    with pytest.raises(OptionError, match="batch must be a whole number from 1 up"):
        captioner.caption(photos, batch=0)
    with pytest.raises(OptionError, match="threads must be a whole number from 1 to 1024"):
        capexport.load(tiny_bundle, threads=0)
    with pytest.raises(OptionError, match="raise or skip"):
        captioner.caption(photos, on_error="ignore")
    with pytest.raises(ImageError, match="must be uint8"):
        captioner.caption(np.full((64, 64, 3), np.nan))


def test_any_number_of_photos_are_read_as_they_are_needed(tiny_bundle, photos):
    captioner = capexport.load(tiny_bundle)
    read = []

    def endless():
        while True:
            read.append(photos[len(read) % len(photos)])
            yield read[-1]

    captions = captioner.caption_each(endless(), batch=4)
    for _ in range(6):
        next(captions)
    assert len(read) == 8


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 2}, {"max_length": 3}])
def test_words_are_streamed(options, tiny_bundle, photos):
    captioner = capexport.load(tiny_bundle)
    for photo in photos:
        assert " ".join(captioner.stream(photo, **options)) == captioner.caption(photo, **options).text


def test_a_stream_ends_at_logits_that_are_no_numbers(tiny_bundle, photos, monkeypatch):
    captioner = capexport.load(tiny_bundle)
    step = captioner.backend.step

    def broken_later(tokens, position, features, cache):
        outcome = step(tokens, position, features, cache)
        if position == 1:
            outcome.logits[0, -1] = np.nan
        return outcome

    monkeypatch.setattr(captioner.backend, "step", broken_later)
    words = captioner.stream(photos[0])
    next(words)
    with pytest.raises(BundleError, match="not numbers"):
        next(words)


def test_what_cannot_be_streamed(tiny_bundle, photos):
    captioner = capexport.load(tiny_bundle)
    for options in ({"beams": 2}, {"captions": 2, "temperature": 1.0}, {"forced_words": ("word1",)}):
        with pytest.raises(OptionError, match="streamed"):
            captioner.stream(photos[0], **options)


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_threads_share_a_captioner(to, tiny_bundles, photos):
    captioner = capexport.load(tiny_bundles[to, "fp32"], threads=1)
    expected = [captioner.caption(photo).tokens for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            assert [caption.tokens for caption in pool.map(captioner.caption, photos)] == expected


def test_options_reach_the_loop(tiny_bundle, photos):
    captioner = capexport.load(tiny_bundle)
    assert len(captioner.caption(photos[0], max_length=2).tokens) <= 2
    assert captioner.caption(photos[0], DecodingOptions(beams=2), captions=2).alternatives
    with pytest.raises(TypeError):
        captioner.caption(photos[0], nonsense=1)


def test_an_engine_that_is_not_installed(tiny_bundle, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    for name in ("capexport.runtime.onnx", "capexport.onnxruntime_setup"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    for open_it in (lambda: capexport.load(tiny_bundle), lambda: formats_on("cpu", ["tflite", "onnx"])):
        with pytest.raises(capexport.MissingExtraError, match=r"pip install 'capexport\[onnx\]'"):
            open_it()
