"""Copies and near copies of photos share one caption; whichever they are, whatever the threads do."""

import json
import shutil
import sqlite3

import numpy as np
import pytest
from PIL import Image

import capexport
from capexport import DecodingOptions, OptionError, OutputError
from capexport.batch.duplicates import Cache, Found, difference_hash, open_cache
from capexport.batch.run import Folder, caption_folder

GREEDY = DecodingOptions()


class Counting:
    """A captioner that counts the photos that go through its graphs."""

    def __init__(self, captioner):
        self.captioned = 0
        self._captioner = captioner

    def __getattr__(self, name):
        return getattr(self._captioner, name)

    def caption_pixels(self, pixels, options):
        self.captioned += len(pixels)
        return self._captioner.caption_pixels(pixels, options)


@pytest.fixture
def captioner(tiny_bundle):
    return Counting(capexport.load(tiny_bundle, threads=2))


def rows_of(path):
    return {row["path"].rpartition("/")[2]: row for row in map(json.loads, path.read_text().splitlines())}


def test_a_file_that_is_no_cache_stays_as_it_is(tmp_path):
    base = sqlite3.connect(tmp_path / "mine.db")
    base.execute("create table photos (path text)")
    base.close()
    before = (tmp_path / "mine.db").read_bytes()
    with pytest.raises(OutputError, match="has other tables than a cache"):
        Cache(tmp_path / "mine.db", "scope")
    assert (tmp_path / "mine.db").read_bytes() == before


def test_copies_are_captioned_once(captioner, tiny_bundles, folder, tmp_path):
    shutil.copy(folder / "photo-00.jpg", folder / "copy-1.jpg")  # in the same group, and before it
    shutil.copy(folder / "photo-29.jpg", folder / "z-copy.jpg")
    caption_folder(captioner._captioner, Folder(folder, tmp_path / "a.jsonl", batch=4), GREEDY)
    caption_folder(captioner, Folder(folder, tmp_path / "b.jsonl", batch=4), GREEDY, cache=tmp_path / "cache")
    assert captioner.captioned == 28
    plain, shared = rows_of(tmp_path / "a.jsonl"), rows_of(tmp_path / "b.jsonl")
    assert [row["tokens"] for row in plain.values()] == [row["tokens"] for row in shared.values()]
    assert [row["error"] for row in plain.values()] == [row["error"] for row in shared.values()]
    copies = {name: row["copy_of"] for name, row in shared.items() if "copy_of" in row}
    assert copies == {"photo-00.jpg": str(folder / "copy-1.jpg"), "z-copy.jpg": str(folder / "photo-29.jpg")}
    again = Folder(folder, tmp_path / "c.jsonl", batch=3, min_confidence=1.0)
    caption_folder(captioner, again, GREEDY, cache=tmp_path / "cache")  # another run: all are known
    assert captioner.captioned == 28
    third = rows_of(tmp_path / "c.jsonl")
    assert {row["text"] for row in third.values()} == {"", None}
    assert [row["tokens"] for row in third.values()] == [row["tokens"] for row in shared.values()]
    other = Folder(folder, tmp_path / "d.jsonl")
    caption_folder(captioner, other, DecodingOptions(max_length=4), cache=tmp_path / "cache")  # of other options: none
    assert captioner.captioned == 56
    another = Counting(capexport.load(tiny_bundles["onnx", "dynamic-int8"], threads=2))
    caption_folder(another, Folder(folder, tmp_path / "e.jsonl"), GREEDY, cache=tmp_path / "cache")
    assert another.captioned == 28


def test_near_copies_share_a_caption_if_asked_for(captioner, photos, tmp_path):
    (tmp_path / "photos").mkdir()
    with Image.open(photos[0]) as image:
        image.convert("RGB").resize((300, 300)).save(tmp_path / "photos" / "a.png")
        image.convert("RGB").resize((280, 280)).save(tmp_path / "photos" / "b.jpg", quality=60)
    with Image.open(photos[1]) as image:
        image.convert("RGB").resize((300, 300)).save(tmp_path / "photos" / "c.jpg")
    for near, captioned in ((0, 3), (3, 2)):
        captioner.captioned = 0
        out = tmp_path / f"{near}.jsonl"
        caption_folder(
            captioner, Folder(tmp_path / "photos", out), GREEDY, cache=tmp_path / f"{near}", near_copies=near
        )
        assert captioner.captioned == captioned
        assert rows_of(out)["b.jpg"].get("copy_of") == (str(tmp_path / "photos" / "a.png") if near else None)


@pytest.mark.parametrize("distance", [0, 1, 2, 3])
def test_the_nearest_is_found_wherever_the_bits_differ(distance, tmp_path):
    rng = np.random.default_rng(distance)
    lists = {"words": [], "tokens": [], "log_probabilities": [], "alternatives": []}
    caption = {"text": "", "confidence": 1.0, **lists}
    with (
        open_cache(tmp_path / "cache", "ours", distance) as cache,
        open_cache(tmp_path / "cache", "theirs", 3) as other,
    ):
        for k in range(50):
            bits = int(rng.integers(0, 2**64, dtype=np.uint64))
            kept = {**caption, "path": str(k)}
            cache.add(Found("", None, f"sha-{k}", bits), kept)
            cache.commit()
            for differing in range(5):
                flipped = bits
                for place in rng.choice(64, differing, replace=False):
                    flipped ^= 1 << int(place)
                row = cache.find(Found("", None, "another", flipped))
                assert row == (kept if differing <= distance and distance else None)
                assert other.find(Found("", None, f"sha-{k}", bits)) is None
            assert cache.find(Found("", None, f"sha-{k}", 0)) == kept


def test_a_hash_bears_noise_and_tells_photos_apart(photos):
    hashes = [difference_hash(capexport.load_image(photo)) for photo in photos]
    rng = np.random.default_rng(0)
    for photo, hash_ in zip(photos, hashes, strict=True):
        pixels = capexport.load_image(photo)
        noisy = np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
        assert (difference_hash(noisy) ^ hash_).bit_count() <= 3
    assert min((a ^ b).bit_count() for a in hashes for b in hashes if a != b) > 9


def test_what_makes_no_sense(tmp_path):
    with pytest.raises(OptionError, match="1 to 3 bits"):
        Cache(tmp_path / "cache", "", 4)
    (tmp_path / "photo.jpg").write_bytes(b"no database" * 100)
    with pytest.raises(OutputError, match="cannot be used as a cache"):
        Cache(tmp_path / "photo.jpg", "")
