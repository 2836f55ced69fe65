"""A plain folder with a file of captions: both forms of the file, the splits, and what is wrong with it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capexport import DataError
from capexport.datasets import CaptionedPhoto, load_dataset
from tests.web import jpeg

NAMES = ("a.jpg", "b.jpg", "trips/c.jpg")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    (folder / "trips").mkdir()
    for name in NAMES:
        (folder / name).write_bytes(jpeg())
    return folder


def load(folder, text, split="train", file="captions.csv"):
    for name in ("captions.csv", "captions.jsonl"):
        (folder / name).unlink(missing_ok=True)
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_dataset("folder", folder, split)


def lines(*records):
    return "\n".join(json.dumps(record) for record in records)


def test_csv(folder):
    text = (
        "split,file_name,caption,source\n"
        "train,a.jpg,a dog,me\n"
        'dev,b.jpg,"a cat, ""asleep""\non a chair",me\n'
        "train,trips/c.jpg,ein Hügel,me\n"
        "\n"
        "train,a.jpg,one wet dog,\n"
    )
    for saved in (text, "\ufeff" + text, text.replace("\n", "\r\n")):
        assert load(folder, saved) == [
            CaptionedPhoto(folder / "a.jpg", ("a dog", "one wet dog")),
            CaptionedPhoto(folder / "trips/c.jpg", ("ein Hügel",)),
        ]
    [photo] = load(folder, text, "dev")
    assert photo.captions == ('a cat, "asleep" on a chair',)


def test_json_lines(folder):
    text = lines(
        {"file_name": "a.jpg", "caption": ["a dog", "one wet dog"], "split": "test"},
        {"file_name": "b.jpg", "caption": "a cat", "split": "test", "id": 7},
        {"file_name": "a.jpg", "caption": "a dog again", "split": "test"},
    )
    assert load(folder, text, "test", "captions.jsonl") == [
        CaptionedPhoto(folder / "a.jpg", ("a dog", "one wet dog", "a dog again")),
        CaptionedPhoto(folder / "b.jpg", ("a cat",)),
    ]


def test_without_splits_a_tenth_is_for_dev_always_the_same(tmp_path):
    names = [f"{i:03d}.jpg" for i in range(300)]
    for name in names:
        (tmp_path / name).touch()
    text = "file_name,caption\n" + "".join(f"{name},a dog\n" for name in names)
    train, dev = ({photo.path.name for photo in load(tmp_path, text, split)} for split in ("train", "dev"))
    assert train | dev == set(names)
    assert not train & dev
    assert 15 < len(dev) < 45
    fewer = "file_name,caption,split\n" + "".join(f"{name},a dog,\n" for name in names[100:])
    assert {photo.path.name for photo in load(tmp_path, fewer, "dev")} == dev - set(names[:100])


def test_signs_that_no_vocabulary_can_hold_are_spaces(folder):
    text = lines({"file_name": "a.jpg", "caption": "a\u00a0dog\u200band\ta\x00cat \ud800", "split": "train"})
    assert load(folder, text, file="captions.jsonl")[0].captions == ("a dog and a cat  ",)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("file_name,text\na.jpg,a dog\n", r"captions\.csv, line 2: expected a caption, found None"),
        ("image,caption\na.jpg,a dog\n", r"line 2: expected the photo's path as 'file_name', found None"),
        ("file_name,caption\na.jpg\n", r"line 2: expected a caption"),
        ("file_name,caption\na.jpg,a dog\na.jpg,  \n", r"line 3: expected a caption, found '  '"),
        ("file_name,caption\na.jpg,a big, wet dog\n", r"line 2: more fields than the header"),
        ("file_name,caption\nd.jpg,a dog\n", r"line 2: the photo .*d\.jpg is missing"),
        (f"file_name,caption\n{'d' * 5000},a dog\n", r"line 2: the photo .* is missing"),
        ("file_name,caption\na\0.jpg,a dog\n", r"line 2: the photo .* is missing"),
        ("file_name,caption\ntrips,a dog\n", r"line 2: the photo .*trips is missing"),
        ("file_name,caption,split\na.jpg,a dog,val\n", r"line 2: there is no split 'val'; there are: train, dev, test"),
        ("file_name,caption,split\na.jpg,x,dev\na.jpg,y,train\n", r"line 3: the photo a\.jpg is in dev already"),
        ('file_name,caption\na.jpg,"a dog\n', r"captions\.csv, line 2: "),
        (f"file_name,caption\na.jpg,{'x' * 200_000}\n", r"captions\.csv, line 2: field larger"),
        ("", "no photos for the split 'train'"),
        (b"file_name,caption\na.jpg,\xff\n", r"captions\.csv is not UTF-8"),
    ],
)
def test_a_malformed_csv(folder, text, match):
    with pytest.raises(DataError, match=match):
        load(folder, text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{}", r"captions\.jsonl, line 1: expected the photo's path"),
        ("\n{", r"captions\.jsonl, line 2 is not JSON"),
        ("[" * 100_000, r"line 1 is not JSON"),
        ("3", r"line 1: expected an object, found 3"),
        (lines({"file_name": 3, "caption": "a dog"}), "line 1: expected the photo's path as 'file_name', found 3"),
        (lines({"file_name": "\ud800", "caption": "a dog"}), "line 1: the photo .* is missing"),
        (lines({"file_name": "a.jpg", "caption": []}), "line 1: expected a caption"),
        (lines({"file_name": "a.jpg", "caption": ["a dog", 3]}), "line 1: expected a caption, found 3"),
        (lines({"file_name": "a.jpg", "caption": "a dog", "split": ["dev"]}), r"line 1: there is no split \['dev'\]"),
    ],
)
def test_malformed_json_lines(folder, text, match):
    with pytest.raises(DataError, match=match):
        load(folder, text, file="captions.jsonl")


def photos_or_data_error(load, *arguments):
    try:
        photos = load(*arguments)
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert photos
    for photo in photos:
        assert photo.path.is_file()
        assert photo.captions
        assert all(text.strip() and text.isprintable() for text in photo.captions)


FIELD = st.sampled_from([*NAMES, "a dog", "train", "dev", "", '"', '""', "\n", "\r", "\0", "file_name"]) | st.text()
ROWS = st.lists(st.lists(FIELD, max_size=4).map(",".join), max_size=5).map("\n".join)


@given(st.text() | ROWS | ROWS.map("file_name,caption,split\n{}".format))
def test_any_csv(folder, text):
    photos_or_data_error(load, folder, text.encode(errors="replace"))


VALUE = st.recursive(FIELD | st.none() | st.integers() | st.floats(), lambda inner: st.lists(inner, max_size=3))
RECORD = st.dictionaries(st.sampled_from(["file_name", "caption", "split"]), VALUE) | VALUE


@given(st.text() | st.lists(RECORD.map(json.dumps), max_size=4).map("\n".join))
def test_any_json_lines(folder, text):
    photos_or_data_error(load, folder, text.encode(errors="replace"), "train", "captions.jsonl")
