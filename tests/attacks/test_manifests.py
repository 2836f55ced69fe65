"""Manifests, vocabularies and odd files of a bundle, correctly signed where that is possible."""

import json
import os
import shutil
import socket

import pytest

from capexport import BundleError, read_bundle
from capexport.errors import printable
from capexport.manifest import parse_manifest
from capexport.shipped import shipped_bundle
from capexport.vocabulary import Vocabulary
from tests.attacks.bundles import edit, refused, sign

ODD_WORDS = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "a\rb",
    "a\u2028b",
    "\u202egnp.exe",
    "\x00",
    "two words",
    "\u2066x",
    "\x9b31m",
    "\uffff",
    "<script>alert(1)</script>",
    "<img",
    "</b>",
    "<!--",
    "x" * 2000,
]


@pytest.mark.parametrize("word", ODD_WORDS)
def test_words_that_steer_a_terminal(copy, tiny_bundle, word):
    words = list(tiny_bundle.vocabulary.words)
    words[10] = word
    sign(copy, "vocabulary.txt", "".join(f"{one}\n" for one in words).encode())
    refused(copy, "unusable vocabulary")


def test_words_that_are_not_utf8(copy, tiny_bundle):
    sign(copy, "vocabulary.txt", tiny_bundle.files["vocabulary.txt"].replace(b"word7", b"w\xff\xfe7"))
    refused(copy, "unusable vocabulary")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(source_sha256="\x1b[31mred"),
        lambda m: m["made_with"].update({"\x1b]0;x\x07": "1"}),
        lambda m: m["gate"].append({"name": "a\nb", "found": "1", "allowed": "", "holds": True}),
        lambda m: m["graphs"]["encoder"]["inputs"][0].update(name="\x1b[2J"),
    ],
)
def test_texts_that_steer_a_terminal(copy, change):
    edit(copy, change)
    refused(copy, "printed")


LONG = "x" * 900_000


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(schema=LONG),
        lambda m: m.update(format=LONG),
        lambda m: m["preprocessing"].update(resize=LONG),
        lambda m: m["made_with"].update(capexport=LONG),
        lambda m: m["files"].update({LONG: m["files"]["decoder.onnx"]}),
        lambda m: m["files"].update({LONG: 5}),
        lambda m: m["graphs"].update({LONG: 5}),
        lambda m: m["shape"].update({LONG: 5}),
        lambda m: m["shape"].update(layers=int("1" * 4000)),
    ],
)
def test_long_texts_are_cut_where_they_are_quoted(copy, change):
    edit(copy, change)
    with pytest.raises(BundleError) as caught:
        read_bundle(copy)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("depth", [10, 900, *range(940, 996, 5)])
def test_a_deep_list_in_a_shape(copy, depth):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["graphs"]["encoder"]["inputs"][0]["shape"][0] = "@"
    text = json.dumps(manifest).replace('"@"', "[" * depth + "]" * depth, 1)
    (copy / "manifest.json").write_text(text)
    refused(copy, "a list, which is not what belongs there|not JSON")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 100_000, "a\0b", "\ud800"])
def test_directories_that_cannot_be(name, tmp_path):
    with pytest.raises(BundleError, match=r"cannot be read|no bundle") as caught:
        read_bundle(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("words", [None, 2**23])
def test_more_words_than_a_manifest_says_are_not_made(copy, words, monkeypatch):
    sign(copy, "vocabulary.txt", b"\n[UNK]\n[START]\n[END]\n" + b"a\n" * 2**22)
    edit(copy, lambda manifest: manifest["shape"].update({} if words is None else {"vocabulary": words}))
    monkeypatch.delattr(Vocabulary, "from_text")
    refused(copy, "more words")


def test_a_bundle_that_may_not_be_listed(copy):
    if os.geteuid() == 0:
        pytest.skip("root may list everything")
    copy.chmod(0o100)
    try:
        refused(copy, "cannot be read")
    finally:
        copy.chmod(0o700)


SIZES = [
    *(
        ("shape", name, size)
        for name in ("layers", "heads", "key_dim", "vocabulary", "max_length")
        for size in (0, 2**39)
    ),
    ("shape", "feature_map", [2**39, 2**39]),
    ("shape", "feature_map", [0, 7]),
    ("preprocessing", "size", [2**39, 2**39]),
    ("preprocessing", "size", [0, 64]),
    ("preprocessing", "size", [65, 64]),
]


@pytest.mark.parametrize(("part", "name", "size"), SIZES)
def test_sizes_whose_product_overflows(copy, part, name, size):
    edit(copy, lambda manifest: manifest[part].update({name: size}))
    refused(copy, "impossible|vocabulary|other inputs|another type or shape")


@pytest.mark.parametrize("shape", [["S", 1, "P", 16], ["B", 1, 2**39, 16], ["B", 1, "T", 16], ["B"], ["B", 3, "P", 16]])
def test_a_cache_of_another_shape(copy, shape):
    def change(manifest):
        cache = next(t for t in manifest["graphs"]["decoder"]["inputs"] if t["name"] == "self_states_0")
        cache["shape"] = shape

    edit(copy, change)
    refused(copy, "another type or shape|more than")


@pytest.mark.parametrize(
    "shape", [["B", 49, 0], ["B", 49, "C"], ["B", 49, -1], ["B", 49], [], ["B", 48, 576], ["B", 49, 575]]
)
@pytest.mark.parametrize("side", [("encoder", "outputs"), ("decoder", "inputs")])
def test_features_of_another_shape(shape, side, tmp_path):
    """Where an encoder gives features, it says how many channels they have, and nothing else does."""
    copy = tmp_path / "shipped"
    shutil.copytree(shipped_bundle("onnx", "dynamic-int8"), copy)

    def change(manifest):
        [features] = [t for t in manifest["graphs"][side[0]][side[1]] if t["name"] == "cross_features"]
        features["shape"] = shape

    edit(copy, change)
    refused(copy, "another type or shape|other inputs|not what belongs there")


def test_an_unknown_resizer(copy):
    edit(copy, lambda manifest: manifest["preprocessing"].update(resize="os.system"))
    refused(copy, "resized in an unknown way")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "-0.0", "1" + "0" * 5000, "1.5", "-1", "2e0"])
def test_numbers_that_are_none_for_a_manifest(copy, number):
    text = (copy / "manifest.json").read_text().replace('"layers": 2', f'"layers": {number}')
    (copy / "manifest.json").write_text(text)
    refused(copy, r"manifest")


@pytest.mark.parametrize("text", ['{"a":' * 50_000, '{"schema": 3, "shape": ' + "[" * 50_000])
def test_deep_nesting(text):
    with pytest.raises(BundleError, match="not JSON"):
        parse_manifest(text.encode())


def test_a_socket_and_a_device_in_place_of_a_file(copy, monkeypatch):
    (copy / "decoder.onnx").unlink()
    monkeypatch.chdir(copy)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("decoder.onnx")
        refused(copy, "cannot be read|not a plain file")
    (copy / "decoder.onnx").unlink()
    try:
        os.mknod("decoder.onnx", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero, which has no end
    except PermissionError:
        pytest.skip("devices can be made by root alone")
    refused(copy, "not a plain file|cannot be read")


def test_a_folder_in_place_of_a_file(copy):
    (copy / "decoder.onnx").unlink()
    (copy / "decoder.onnx").mkdir()
    refused(copy, "cannot be read|not a plain file")


def test_a_hard_link_gives_nothing_but_its_bytes(copy, tmp_path):
    """It cannot be told from a file, and need not be: its bytes must have the hash, and are never written to."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (copy / "decoder.onnx").unlink()
    os.link(secret, copy / "decoder.onnx")
    refused(copy, r"decoder\.onnx is damaged")
    assert secret.read_bytes() == b"secret"


def test_names_of_photos_are_printed_with_escapes():
    assert printable("a\x1b[2Jb\n\u202e") == "a\\x1b[2Jb\\n\\u202e"
    assert printable("Käse 写真.jpg") == "Käse 写真.jpg"


def test_a_file_of_holes_is_not_read(copy):
    """Of a terabyte that takes no room on the disk."""
    os.truncate(copy / "decoder.onnx", 2**40 - 1)
    refused(copy, "larger than")
    edit(copy, lambda manifest: manifest["files"]["decoder.onnx"].update(bytes=2**40 - 1))
    refused(copy, "a bundle's may have")
    os.truncate(copy / "manifest.json", 2**40)
    refused(copy, "larger than")


def test_a_pipe_in_place_of_the_manifest(copy):
    (copy / "manifest.json").unlink()
    os.mkfifo(copy / "manifest.json")
    refused(copy, "not a plain file")


def test_a_link_in_place_of_the_manifest(copy, tmp_path):
    (copy / "manifest.json").rename(tmp_path / "elsewhere.json")
    (copy / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    refused(copy, "cannot be read")


@pytest.mark.parametrize("word", ["<3", "1<2", "<", ">", "&amp;", "'", '"'])
def test_signs_of_html_that_begin_no_element(word):
    assert Vocabulary(("", "[UNK]", "[START]", "[END]", word)).id(word) == 4
