"""The table of data sets, and what holds for all of them."""

import pytest

from capexport import DataError, OptionError
from capexport.datasets import DATASETS, load_dataset


def test_names():
    assert list(DATASETS) == ["flickr8k", "conceptual-captions", "coco", "folder"]
    with pytest.raises(OptionError, match=r"no data set 'flickr30k'; there are: flickr8k, conceptual-captions"):
        load_dataset("flickr30k", "anywhere", "train")


def test_a_limit(small_flickr8k):
    whole = load_dataset("flickr8k", small_flickr8k, "train")
    assert load_dataset("flickr8k", small_flickr8k, "train", limit=5) == whole[:5]
    assert load_dataset("flickr8k", small_flickr8k, "train", limit=500) == whole
    for limit in (0, -1):
        with pytest.raises(OptionError, match=f"at least 1, not {limit}"):
            load_dataset("flickr8k", small_flickr8k, "train", limit=limit)


@pytest.mark.parametrize("name", DATASETS)
def test_places_and_splits_that_are_not_there(name, tmp_path):
    with pytest.raises(DataError, match="no split 'all'; there are: train, dev"):
        load_dataset(name, tmp_path, "all")
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=str(place)):
            load_dataset(name, place, "train")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_split(small_flickr8k):
    (small_flickr8k / "Flickr8k_text/Flickr_8k.devImages.txt").write_text("\n")
    with pytest.raises(DataError, match="no photos for the split 'dev'"):
        load_dataset("flickr8k", small_flickr8k, "dev")
