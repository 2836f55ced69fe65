"""Bundles under their real engines."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import capexport
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
    with pytest.raises(TypeError):
        captioner.caption(photos[0], nonsense=1)


def test_an_engine_that_is_not_installed(tiny_bundle, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.delitem(__import__("sys").modules, "capexport.runtime.onnx", raising=False)
    with pytest.raises(capexport.MissingExtraError, match=r"pip install 'capexport\[onnx\]'"):
        capexport.load(tiny_bundle)
