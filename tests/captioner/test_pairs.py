"""What a decoder learns from."""

import numpy as np
import pytest

from capexport.captioner.features import FeatureCache
from capexport.captioner.pairs import Pairs
from capexport.datasets import load_dataset


@pytest.fixture
def pairs(tiny, small_flickr8k, tmp_path):
    return Pairs(tiny, load_dataset("flickr8k", small_flickr8k, "train"), tmp_path)


def rows(batches):
    return [(f.sum(), *t) for (fs, ts), _ in batches for f, t in zip(fs.numpy(), ts.numpy().tolist(), strict=True)]


def test_an_epoch_has_every_caption_once_with_its_photo(pairs, tiny):
    batches = list(pairs.batches(8, seed=1))
    assert sum(len(labels) for _, labels in batches) == 18 * 5
    for (features, tokens), labels in batches:
        assert features.shape[1:] == tiny.feature_extractor.output_shape[1:]
        np.testing.assert_array_equal(tokens[:, 1:], labels[:, :-1])
        assert (tokens[:, 0].numpy() == 3).all()


def test_the_order_changes_from_pass_to_pass(pairs):
    twice = rows(pairs.batches(9, seed=1).repeat(2))
    assert twice[:90] != twice[90:]
    assert sorted(row[0] for row in twice[:90]) == sorted(row[0] for row in twice[90:])


def test_what_a_killed_run_left_is_cleared_away(pairs, tiny):
    directory = pairs.features.directory
    shard = next(directory.glob("*.npy"))
    before = shard.stat().st_mtime_ns
    (directory / ".features-00001.npy.999999999.part").write_bytes(b"half")
    again = FeatureCache(directory.parent, tiny.feature_extractor, tiny.config.resize, pairs.features._photos)
    assert len(again) == 18
    assert (list(directory.glob(".*")), shard.stat().st_mtime_ns) == ([], before)


def test_a_sample_is_the_same_each_time_and_spread_over_photos(pairs):
    sample = rows(pairs.sample(18, 6, seed=0))
    assert sample == rows(pairs.sample(18, 6, seed=0))
    assert len({row[0] for row in sample}) == 18
    whole = rows(pairs.sample(1000, 6, seed=0))
    assert len(whole) == 90
