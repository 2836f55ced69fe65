"""COCO captions: the official layout, its years, and what is wrong with it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capexport import DataError
from capexport.datasets import CaptionedPhoto, load_dataset
from tests.datasets.test_folder import photos_or_data_error
from tests.web import jpeg

IMAGES = [{"id": 9, "file_name": "000000000009.jpg", "height": 32}, {"id": 4, "file_name": "000000000004.jpg"}]
ANNOTATIONS = [
    {"id": 1, "image_id": 4, "caption": "A bowl of fruit."},
    {"id": 2, "image_id": 9, "caption": "Two dogs\nrun."},
    {"id": 3, "image_id": 4, "caption": "Fruit on a table"},
]


@pytest.fixture(scope="session")
def coco(tmp_path_factory):
    data = tmp_path_factory.mktemp("coco")
    (data / "annotations").mkdir()
    for photos in ("train2014", "train2017", "val2017"):
        (data / photos).mkdir()
        for image in IMAGES:
            (data / photos / image["file_name"]).write_bytes(jpeg())
    return data


def load(data, document, split="train", year=2017):
    for path in (data / "annotations").iterdir():
        path.unlink()
    part = "train" if split == "train" else "val"
    text = document if isinstance(document, str) else json.dumps(document)
    (data / f"annotations/captions_{part}{year}.json").write_text(text)
    return load_dataset("coco", data, split)


@pytest.mark.parametrize(("split", "year", "folder"), [("train", 2017, "train2017"), ("dev", 2017, "val2017")])
def test_the_official_layout(coco, split, year, folder):
    assert load(coco, {"images": IMAGES, "annotations": ANNOTATIONS, "info": {}}, split, year) == [
        CaptionedPhoto(coco / folder / "000000000009.jpg", ("Two dogs run.",)),
        CaptionedPhoto(coco / folder / "000000000004.jpg", ("A bowl of fruit.", "Fruit on a table")),
    ]


def test_the_latest_year(coco):
    document = {"images": IMAGES, "annotations": ANNOTATIONS}
    assert load(coco, document, year=2014)[0].path.parent.name == "train2014"
    (coco / "annotations/captions_train2017.json").write_text(json.dumps(document))
    assert load_dataset("coco", coco, "train")[0].path.parent.name == "train2017"


@pytest.mark.parametrize(
    ("images", "annotations", "match"),
    [
        (None, ANNOTATIONS, r"captions_train2017\.json has no list 'images'"),
        (IMAGES, {}, r"has no list 'annotations'"),
        ([*IMAGES, 3], ANNOTATIONS, r"json, images\[2\]: expected an object, found 3"),
        ([*IMAGES, {"id": 5, "file_name": "a.jpg"}], ANNOTATIONS, r"images\[2\]: the photo has no caption"),
        ([{"id": 4, "file_name": "a.jpg"}], ANNOTATIONS, r"images\[0\]: the photo .*train2017/a\.jpg is missing"),
        ([{"id": 4}], ANNOTATIONS, r"images\[0\]: expected str under 'file_name', found None"),
        ([{"file_name": "a.jpg"}], ANNOTATIONS, r"images\[0\]: expected int under 'id', found None"),
        (IMAGES, [{"caption": "a dog"}], r"annotations\[0\]: expected int under 'image_id', found None"),
        (IMAGES, [{"image_id": [4], "caption": "a dog"}], r"annotations\[0\]: expected int .* found \[4\]"),
        (IMAGES, [{"image_id": 4, "caption": " "}], r"annotations\[0\]: expected a caption, found ' '"),
        ([], [], "no photos for the split 'train'"),
    ],
)
def test_a_malformed_document(coco, images, annotations, match):
    with pytest.raises(DataError, match=match):
        load(coco, {"images": images, "annotations": annotations})


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"images": [}'])
def test_not_json(coco, text):
    with pytest.raises(DataError, match=r"captions_train2017\.json is not JSON"):
        load(coco, text)


KEYS = st.sampled_from(["images", "annotations", "id", "image_id", "file_name", "caption"])
LEAF = st.text() | st.none() | st.integers() | st.floats() | st.sampled_from([4, 9, *(i["file_name"] for i in IMAGES)])
VALUE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner))
IMAGE = st.sampled_from(IMAGES) | VALUE
ANNOTATION = st.sampled_from(ANNOTATIONS) | VALUE


@given(st.fixed_dictionaries({"images": st.lists(IMAGE), "annotations": st.lists(ANNOTATION)}) | VALUE)
def test_any_document(coco, document):
    photos_or_data_error(load, coco, json.dumps(document))
