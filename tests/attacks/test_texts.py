"""Any options, vocabularies and files of captions: what is read is usable, all else is one of capexport's errors."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capexport import BundleError, CapexportError, DataError, DecodingOptions, OptionError
from capexport.captioner.config import CaptionerConfig
from capexport.datasets import load_dataset
from capexport.manifest import parse_manifest
from capexport.structure import check_graph
from capexport.vocabulary import Vocabulary
from tests.web import jpeg

VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=3))
FIELDS = st.sampled_from(list(DecodingOptions.__dataclass_fields__))
KEPT = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@KEPT
@given(st.dictionaries(FIELDS, VALUES, max_size=4))
def test_options(fields):
    try:
        options = DecodingOptions(**fields)
    except OptionError as error:
        assert str(error).isprintable()
    else:
        assert options.beams >= 1
        assert options.temperature >= 0


@KEPT
@given(st.lists(st.text(max_size=6), max_size=8))
def test_vocabularies(words):
    try:
        vocabulary = Vocabulary(("", "[UNK]", "[START]", "[END]", *words))
    except CapexportError as error:
        assert str(error).isprintable()
    else:
        assert Vocabulary.from_text(vocabulary.to_text()) == vocabulary
        assert not any(set(word) & set(" \n\r\x1b\x00\x07") for word in words)


@KEPT
@given(text=st.text(max_size=60), name=st.sampled_from(["captions.csv", "captions.jsonl"]))
def test_files_of_captions(text, name, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    for other in ("captions.csv", "captions.jsonl"):
        (tmp_path / other).unlink(missing_ok=True)
    head = "file_name,caption,split\na.jpg," if name.endswith("csv") else '{"file_name": "a.jpg", "split": "train", '
    (tmp_path / name).write_text(head + text, encoding="utf-8", errors="replace", newline="")
    try:
        photos = load_dataset("folder", tmp_path, "train")
    except DataError as error:
        assert str(error).isprintable()
    else:
        assert all(caption.isprintable() for photo in photos for caption in photo.captions)


@KEPT
@given(value=st.dictionaries(st.sampled_from(list(CaptionerConfig.__dataclass_fields__)), VALUES, max_size=4))
def test_configs(value, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"image_size": [64, 64]} | value))
    try:
        config = CaptionerConfig.read(tmp_path / "config.json")
    except CapexportError as error:
        assert str(error).isprintable()
    else:
        assert min(config.units, config.num_layers, *config.image_size) >= 1


@KEPT
@given(data=st.binary(max_size=200), to=st.sampled_from(["onnx", "ort", "tflite"]))
def test_graphs(data, to):
    """With the formats' identifiers, too, which random bytes hardly ever have."""
    for one in (data, data[:4] + {"onnx": b"", "ort": b"ORTM", "tflite": b"TFL3"}[to] + data[4:]):
        try:
            check_graph(to, one, "the graph")
        except BundleError as error:
            assert str(error).isprintable()


@KEPT
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_manifests(data):
    for one in (data, b'{"schema": 3, ' + data):
        try:
            parse_manifest(one)
        except BundleError as error:
            assert str(error).isprintable()
