"""TFLite graphs under LiteRT: rooms for rows, which are made anew as seldom as can be."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import capexport
from capexport import BundleError
from capexport.export.exporter import Exporter
from capexport.runtime import tflite
from tests.conftest import tiny_captioner


@pytest.fixture
def encoder(tiny_bundles):
    return tiny_bundles["tflite", "fp32"].graph("encoder")


def opened(model):
    found = tflite.Model(model, 1, "the encoder")
    _, outputs = found.declared()
    return found, found.runner([*outputs])


def test_rows_that_have_ended_leave_their_room(encoder, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    _, alone = opened(encoder)
    expected = [alone({"image": images[k : k + 1]}) for k in range(len(images))]
    model, run = opened(encoder)
    made, resize = [], model._interpreter.resize_tensor_input
    monkeypatch.setattr(
        model._interpreter, "resize_tensor_input", lambda place, shape: (made.append(shape[0]), resize(place, shape))
    )
    for first, rows in enumerate((4, 3, 2, 1, 1, 3, 2, 2)):
        given = images[first % 4 : first % 4 + rows]
        for name, values in run({"image": given}).items():
            assert values.shape[0] == rows
            for k, value in enumerate(values):
                np.testing.assert_allclose(value, expected[first % 4 + k][name][0], rtol=0, atol=1e-5)
    assert made == [4, 2, 1, 3]


def test_what_was_made_stays_as_it_is(encoder):
    """Whatever is run later, in the same room."""
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    _, run = opened(encoder)
    first, *_ = run({"image": images[:4]}).values()
    kept = first.copy()
    for k in (3, 4):
        run({"image": images[4 : 4 + k]})
        np.testing.assert_array_equal(first, kept)


def test_threads_that_share_a_room_get_their_own_rows(encoder):
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    _, run = opened(encoder)
    wanted = [4, 3, 8, 3, 5, 1] * 50
    with ThreadPoolExecutor(6) as pool:
        made = pool.map(lambda rows: run({"image": images[:rows]}), wanted)
        for rows, outputs in zip(wanted, made, strict=True):
            assert {len(values) for values in outputs.values()} == {rows}


def test_what_has_no_rows_is_refused(encoder, monkeypatch):
    images = np.zeros((4, 64, 64, 3), np.uint8)
    model, run = opened(encoder)
    run({"image": images})
    monkeypatch.setattr(model._interpreter, "get_tensor", lambda _: np.float32(0))
    with pytest.raises(BundleError, match="cannot run the encoder"):
        run({"image": images[:3]})


def test_captions_that_are_longer_than_the_caches_first_room(lively_encoder, photos, tmp_path):
    """What does not change from step to step is handed over again when room is made for more words."""
    longest = 40  # tokens, and two more rooms than the first
    exporter = Exporter(tiny_captioner(lively_encoder, max_length=longest), photos[:2])
    theirs, ours = (
        capexport.load(exporter.export(to, "fp32").write(tmp_path / to, gate=False), threads=1)
        for to in ("onnx", "tflite")
    )
    for options in ({"min_length": longest}, {"min_length": longest, "beams": 3}):
        expected = [one.tokens for one in theirs.caption(photos, **options)]
        assert {len(tokens) for tokens in expected} == {longest}
        assert [one.tokens for one in ours.caption(photos, **options)] == expected
        assert [ours.caption(photo, **options).tokens for photo in photos] == expected
