"""Bundles that are damaged or made to do harm: refused before an engine sees them."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capexport import BundleError, VocabularyError, read_bundle
from capexport.manifest import parse_manifest
from tests.attacks.bundles import edit, refused


def test_the_copy_itself_is_fine(copy, tiny_bundle):
    assert read_bundle(copy).manifest == tiny_bundle.manifest


def test_no_bundle_at_all(tmp_path):
    refused(tmp_path / "nothing", "There is no bundle at")
    refused(tmp_path, "manifest.json cannot be read")


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "vocabulary.txt", "parity.npz", "manifest.json"])
def test_a_missing_file(copy, name):
    (copy / name).unlink()
    refused(copy, name)


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "vocabulary.txt", "parity.npz"])
def test_a_flipped_bit_and_a_cut(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    refused(copy, f"{name} is damaged")
    (copy / name).write_bytes(data[:-1])
    refused(copy, f"{name} is damaged")


def test_an_extra_file(copy):
    (copy / "weights.bin").write_bytes(b"x")
    refused(copy, "weights.bin")


@pytest.mark.parametrize("version", [0, 2, 4, "3", None, True, 3.0])
def test_another_schema(copy, version):
    edit(copy, lambda manifest: manifest.update(schema=version))
    refused(copy, "schema")


@pytest.mark.parametrize("name", ["../decoder.onnx", "/etc/passwd", "a/b", "..", "", "C:\\x", "x\0y", "\x1b[2J"])
def test_names_that_leave_the_bundle(copy, name):
    def change(manifest):
        manifest["files"][name] = manifest["files"].pop("decoder.onnx")
        manifest["graphs"]["decoder"]["file"] = name

    edit(copy, change)
    refused(copy, "bare file name")


def test_a_link_in_place_of_a_file(copy, tmp_path):
    (copy / "decoder.onnx").rename(tmp_path / "outside.onnx")
    (copy / "decoder.onnx").symlink_to(tmp_path / "outside.onnx")
    refused(copy, "decoder.onnx cannot be read")


def test_a_pipe_in_place_of_a_file(copy):
    (copy / "decoder.onnx").unlink()
    os.mkfifo(copy / "decoder.onnx")
    refused(copy, "not a plain file")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(extra=1),
        lambda m: m.pop("recipe"),
        lambda m: m.update(recipe="int3"),
        lambda m: m.update(format="coreml"),
        lambda m: m["shape"].update(layers=-1),
        lambda m: m["shape"].update(layers="two"),
        lambda m: m["shape"].update(max_length=2**70),
        lambda m: m["shape"].update(vocabulary=29),
        lambda m: m["shape"].update(feature_map=[7]),
        lambda m: m["preprocessing"].update(size=[True, 64]),
        lambda m: m["special_tokens"].update(end=5),
        lambda m: m["graphs"].pop("encoder"),
        lambda m: m["files"].pop("parity.npz"),
        lambda m: m["files"]["decoder.onnx"].update(bytes=3),
        lambda m: m["files"]["decoder.onnx"].update(sha256="0" * 64),
    ],
)
def test_a_manifest_that_does_not_describe_the_bundle(copy, change):
    edit(copy, change)
    refused(copy, r"\w+")


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b"\xff", b'{"schema": 1, "schema": 1}', b'{"schema": NaN}', b"[" * 100_000, b" " * 2_000_000],
)
def test_text_that_is_no_manifest(text):
    with pytest.raises(BundleError):
        parse_manifest(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_to_a_manifest_is_refused_or_harmless(tiny_bundle, data):
    manifest = json.loads((tiny_bundle.directory / "manifest.json").read_text())
    place = manifest
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    try:
        parse_manifest(json.dumps(manifest).encode())
    except (BundleError, VocabularyError) as error:
        assert str(error)
