"""Flickr8k: as a folder, as zips, from a server; and what is wrong with it."""

import zipfile

import pytest

from capexport import DataError
from capexport.datasets import load_dataset
from tests.web import sends

TOKENS = "Flickr8k_text/Flickr8k.token.txt"


def test_the_folder(small_flickr8k):
    train, dev = (load_dataset("flickr8k", small_flickr8k, split) for split in ("train", "dev"))
    assert (len(train), len(dev)) == (18, 6)
    assert train[0].path.is_file()
    assert train[0].captions[0] == "A red wall ."
    assert {len(photo.captions) for photo in train} == {5}


@pytest.fixture
def zips(small_flickr8k, tmp_path):
    """The two archives as the official ones are made: photos in their folder, texts at the root."""
    folder = tmp_path / "zips"
    folder.mkdir()
    with zipfile.ZipFile(folder / "Flickr8k_Dataset.zip", "w") as archive:
        for path in (small_flickr8k / "Flicker8k_Dataset").iterdir():
            archive.write(path, f"Flicker8k_Dataset/{path.name}")
    with zipfile.ZipFile(folder / "Flickr8k_text.zip", "w") as archive:
        for path in (small_flickr8k / "Flickr8k_text").iterdir():
            archive.write(path, path.name)
    return folder


def test_a_folder_with_the_two_zips(zips):
    assert len(load_dataset("flickr8k", zips, "dev")) == 6
    assert len(load_dataset("flickr8k", zips, "dev")) == 6  # from what was unpacked


def test_the_two_zips_by_name(zips, tmp_path):
    data = ",".join(str(zips / name) for name in ("Flickr8k_Dataset.zip", "Flickr8k_text.zip"))
    assert len(load_dataset("flickr8k", data, "train", workspace=tmp_path / "work")) == 18


@pytest.fixture
def server(web, zips):
    web.answers = {f"/{path.name}": sends(path.read_bytes()) for path in zips.iterdir()}
    return web.url("")


def test_a_url(server, tmp_path):
    assert len(load_dataset("flickr8k", server, "train", workspace=tmp_path / "work")) == 18


def test_a_url_with_nothing_behind_it(server, tmp_path):
    with pytest.raises(DataError, match="cannot be fetched"):
        load_dataset("flickr8k", server + "/nothing", "train", workspace=tmp_path / "work")
    assert not list((tmp_path / "work/flickr8k").glob("*.part"))


def test_a_broken_zip(zips):
    path = zips / "Flickr8k_text.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a whole zip"):
        load_dataset("flickr8k", zips, "dev")


def test_a_missing_photo(small_flickr8k):
    next((small_flickr8k / "Flicker8k_Dataset").glob("0003*")).unlink()
    with pytest.raises(DataError, match=r"trainImages\.txt, line 4: .*0003_photo\.jpg is missing"):
        load_dataset("flickr8k", small_flickr8k, "train")


@pytest.mark.parametrize("line", ["no tab", "name.jpg\tno number", "name.jpg#0\t   ", "#0\tno name"])
def test_a_malformed_caption_line(small_flickr8k, line):
    with (small_flickr8k / TOKENS).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"token\.txt, line 121: expected"):
        load_dataset("flickr8k", small_flickr8k, "train")


def test_a_photo_without_captions(small_flickr8k):
    path = small_flickr8k / TOKENS
    path.write_text("".join(line for line in path.open() if not line.startswith("0003")))
    with pytest.raises(DataError, match="no caption"):
        load_dataset("flickr8k", small_flickr8k, "train")


def test_captions_that_are_not_text(small_flickr8k):
    (small_flickr8k / TOKENS).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        load_dataset("flickr8k", small_flickr8k, "train")


def test_places_that_hold_no_data_set(tmp_path, small_flickr8k):
    with pytest.raises(DataError, match="There is no data set at"):
        load_dataset("flickr8k", tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match=r"has no Flickr8k\.token\.txt"):
        load_dataset("flickr8k", tmp_path, "train")
    with pytest.raises(DataError, match="no split 'all'"):
        load_dataset("flickr8k", small_flickr8k, "all")
    with pytest.raises(DataError, match=r"has no Flickr_8k\.testImages\.txt"):
        load_dataset("flickr8k", small_flickr8k, "test")
