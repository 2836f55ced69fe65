"""Exports against Keras: whole generations of the captioner that ships, on real photos."""

import dataclasses

import numpy as np
import pytest

import capexport
from capexport import BundleError, load_image
from capexport.captioner.reference import references
from capexport.datasets import load_dataset
from capexport.parity.checks import within_bounds
from capexport.parity.comparison import NEAR_TIE, Parity, compare, compare_all
from capexport.parity.vectors import unpack
from capexport.recipes import RECIPES
from tests.conftest import VARIANTS

FP32 = [("onnx", "fp32"), ("tflite", "fp32")]
CONVERTED = [variant for variant in VARIANTS if variant[0] != "ort"]  # whose graphs are ONNX's, see test_convert
COUNT = 100


def crops(photos, count):
    """Random crops and flips of the sample photos: other photos than any data set's."""
    rng = np.random.default_rng(11)
    for k in range(count):
        whole = load_image(photos[k % len(photos)], (448, 448))
        side = int(rng.integers(180, 449))
        top, left = rng.integers(0, 449 - side, 2)
        crop = whole[top : top + side, left : left + side]
        yield load_image(np.ascontiguousarray(crop[:, :: rng.choice([-1, 1])]))


@pytest.fixture(scope="module")
def crop_references(shipped, photos):
    return list(references(shipped, list(crops(photos, COUNT))))


@pytest.fixture(scope="module")
def dev_references(shipped, flickr8k):
    pixels = [load_image(photo.path) for photo in load_dataset("flickr8k", flickr8k, "dev", COUNT)]
    return list(references(shipped, pixels))


def check_fp32(parity):
    assert parity.features_error < 1e-5
    assert all(c.identical or c.near_tie for c in parity.comparisons)
    assert parity.identical >= COUNT - 1
    assert parity.logits_error < 1e-3
    assert parity.attention_error < 1e-4


@pytest.mark.parametrize("photos_of", ["crop_references", "dev_references"])
@pytest.mark.parametrize("variant", CONVERTED)
def test_whole_generations(variant, photos_of, shipped_bundles, request, capsys):
    """On crops of the sample photos, which are in no data set, and on dev photos."""
    parity = compare_all(capexport.load(shipped_bundles[variant]), request.getfixturevalue(photos_of))
    with capsys.disabled():
        print(f"\n{' '.join(variant)}, {photos_of}: {parity}")
    checks = within_bounds(parity, RECIPES[variant[1]].bounds)
    assert [check for check in checks if not check.holds] == []
    if variant in FP32:
        check_fp32(parity)


def test_the_reference_is_simple_gen(shipped, dev_references):
    """The reference's own loop says what the tutorial's does; 10 photos, since eager Keras is slow."""
    words = shipped.tokenizer.get_vocabulary()
    for vector in dev_references[:10]:
        text = " ".join(words[token] for token in vector.tokens if words[token] != "[END]")
        assert shipped.simple_gen(vector.pixels, temperature=0) == text


@pytest.mark.parametrize("variant", FP32)
def test_bundles_carry_vectors_that_prove_them(variant, shipped_bundles):
    bundle = shipped_bundles[variant]
    vectors = unpack(bundle.files["parity.npz"], bundle.manifest)
    assert len(vectors) == 3
    assert compare_all(capexport.load(bundle), vectors).identical == 3
    for vector in vectors:
        probabilities = np.exp(vector.logits.astype(np.float64))
        probabilities /= probabilities.sum(-1, keepdims=True)
        picked = probabilities[np.arange(len(vector.tokens)), vector.tokens]
        np.testing.assert_allclose(vector.log_probabilities, np.log(picked), atol=1e-6)


def test_sampled_captions_follow_keras(shipped, shipped_bundles, photos):
    """The first word's log-probability under the export is Keras' own, whatever word was drawn."""
    captioner = capexport.load(shipped_bundles["onnx", "fp32"])
    [vector] = references(shipped, [load_image(photos[0])])
    shifted = vector.logits[0].astype(np.float64) - vector.logits[0].max()
    expected = shifted - np.log(np.exp(shifted).sum())
    drawn = [captioner.caption(photos[0], temperature=2.0, seed=seed, max_length=2) for seed in range(50)]
    assert len({caption.words[0] for caption in drawn}) > 5
    for caption in drawn:
        assert caption.log_probabilities[0] == pytest.approx(expected[caption.tokens[0]], abs=1e-3)


def test_a_wrong_bundle_does_not_pass(tiny, tiny_bundles, photos):
    """The comparison sees a difference where there is one."""
    [other] = references(tiny, [load_image(photos[1], (64, 64))])
    mixed = type(other)(**{**vars(other), "pixels": load_image(photos[2], (64, 64))})
    captioner = capexport.load(tiny_bundles["onnx", "fp32"])
    assert compare(captioner, other).identical
    assert compare(captioner, mixed).logits_error > 1e-3
    assert compare(captioner, mixed).features_error > 1e-3


def test_errors_are_as_large_as_what_was_changed(tiny_bundle):
    captioner = capexport.load(tiny_bundle)
    vector = unpack(tiny_bundle.files["parity.npz"], tiny_bundle.manifest)[0]
    same = compare(captioner, vector)
    assert same.features_error < 1e-5
    assert same.logits_rms < same.logits_error < 1e-3
    allowed = vector.logits[0] > -1e8
    logits = vector.logits.copy()
    logits[0, allowed.argmax()] += 1
    memory = {name: values * np.float32(1.1) for name, values in vector.memory.items()}
    other = compare(captioner, dataclasses.replace(vector, memory=memory, logits=logits))
    assert other.features_error == pytest.approx(0.1 / 1.1, rel=1e-4)
    assert other.logits_error == pytest.approx(1, rel=1e-4)
    assert other.logits_rms == pytest.approx((len(logits) * allowed.sum()) ** -0.5, rel=1e-4)


def test_keys_are_not_values(tiny_bundle):
    """Nor is one layer another: each stands under its name in a vector."""
    captioner = capexport.load(tiny_bundle)
    vector = unpack(tiny_bundle.files["parity.npz"], tiny_bundle.manifest)[0]
    for order in ([1, 0, 2, 3], [2, 3, 0, 1]):
        values = [*vector.memory.values()]
        memory = {name: values[k] for name, k in zip(vector.memory, order, strict=True)}
        assert compare(captioner, dataclasses.replace(vector, memory=memory)).features_error > 0.1
    with pytest.raises(BundleError, match="the reference says nothing"):
        compare(captioner, dataclasses.replace(vector, memory={}))


def test_sums_over_photos(tiny_bundle):
    captioner = capexport.load(tiny_bundle)
    one = compare(captioner, unpack(tiny_bundle.files["parity.npz"], tiny_bundle.manifest)[0])
    parted = [
        dataclasses.replace(one, identical=False, divergence=step, margin=margin, logits_rms=rms)
        for step, margin, rms in ((4, NEAR_TIE / 2, 3.0), (2, 0.5, 4.0))
    ]
    parity = Parity((one, *parted))
    assert (parity.identical, parity.near_ties) == (1, 1)
    assert (parity.divergences, parity.margins) == ([4, 2], [NEAR_TIE / 2, 0.5])
    assert parity.logits_rms == pytest.approx((25 / 3) ** 0.5)
    assert "\n" not in str(parity)
