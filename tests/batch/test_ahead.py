"""Batches are captioned ahead, but not far, in order, with the words of one photo alone."""

import threading
import time
from pathlib import Path

import pytest

import capexport
from capexport import DecodingOptions, ImageError, OptionError
from capexport.batch.ahead import AHEAD, rows_ahead

GREEDY = DecodingOptions()


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize("options", [GREEDY, DecodingOptions(temperature=1.0, seed=3), DecodingOptions(beams=2)])
def test_the_words_are_those_of_one_by_one(to, options, together, tiny_bundles, folder):
    captioner = capexport.load(tiny_bundles[to, "fp32"], threads=3)
    photos = sorted(folder.iterdir())
    batches = [photos[k : k + 3] for k in range(0, len(photos), 3)]
    rows = [row for some in rows_ahead(captioner, batches, options, 0.0, "run", together) for row in some]
    alone = [captioner.caption([photo], options, on_error="skip")[0] for photo in photos]
    assert len({one.text for one in alone if not isinstance(one, ImageError)}) > 1
    assert [row["path"] for row in rows] == list(map(str, photos))
    for row, other in zip(rows, alone, strict=True):
        if isinstance(other, ImageError):
            assert row["error"] == str(other)
        else:
            assert row["tokens"] == other.tokens
            assert row["confidence"] == pytest.approx(other.confidence, rel=1e-4)


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_it_never_reads_far_ahead(threads, together, tiny_bundle, folder):
    """However long the list and however slow its reader: this is what bounds memory."""
    captioner = capexport.load(tiny_bundle, threads=threads)
    taken, given, furthest = 0, 0, 0

    def batches():
        nonlocal taken, furthest
        for _ in range(200):
            taken += 1
            furthest = max(furthest, taken - given)
            yield [folder / "photo-00.jpg"]

    for rows in rows_ahead(captioner, batches(), GREEDY, 0.0, "run", together):
        given += len(rows)
        time.sleep(0.002)
    assert given == 200
    assert furthest == AHEAD * together * threads + (together - 1) * (threads - 1)


def test_threads_work_at_the_same_time(tiny_bundle, folder):
    """Two batches are read at once: each of them waits for the other."""
    captioner = capexport.load(tiny_bundle, threads=2)
    met = threading.Barrier(2, timeout=20)
    preprocess = captioner.preprocess

    def wait_and_read(photo):
        met.wait()
        return preprocess(photo)

    captioner.preprocess = wait_and_read
    batches = [[folder / "photo-00.jpg"], [folder / "photo-01.jpg"]]
    assert all(row["text"] for [row] in rows_ahead(captioner, batches, GREEDY, 0.0, "run"))


def test_whatever_a_photo_does_to_its_decoder_is_its_error_alone(tiny_bundle, folder):
    captioner = capexport.load(tiny_bundle, threads=2)
    preprocess = captioner.preprocess

    def trip(photo):
        if photo.name == "photo-01.jpg":
            raise IndexError("list index out of range")
        return preprocess(photo)

    captioner.preprocess = trip
    photos = [folder / "photo-00.jpg", folder / "photo-01.jpg"]
    [[first, second]] = rows_ahead(captioner, [photos], GREEDY, 0.0, "run")
    assert first["text"]
    assert "photo-01.jpg cannot be read: IndexError" in second["error"]


def test_other_errors_end_it(tiny_bundle, folder):
    captioner = capexport.load(tiny_bundle, threads=2)
    batches = [[folder / "photo-00.jpg"]] * 9
    with pytest.raises(OptionError, match="nonsense"):
        list(rows_ahead(captioner, batches, DecodingOptions(forced_words=("nonsense",)), 0.0, "run"))

    def failing():
        yield [Path(folder / "photo-00.jpg")]
        raise PermissionError("a folder that must not be read")

    with pytest.raises(PermissionError):
        list(rows_ahead(captioner, failing(), GREEDY, 0.0, "run"))
