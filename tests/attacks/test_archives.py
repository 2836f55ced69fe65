"""Zip archives made to do harm: those of a data set, and the .npz of a bundle."""

import io
import os
import stat
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from capexport import BundleError, DataError
from capexport.datasets import load_dataset
from capexport.structure import archive, check_archive
from tests.attacks.bundles import refused, sign


def member(name, data=b"x", mode=0, **fields):
    """A member with any name, mode and other fields."""
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.external_attr = mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def packed(*members, **options):
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", **options) as file:
        warnings.simplefilter("ignore")
        for info, data in members:
            file.writestr(info, data)
    return stream.getvalue()


ARCHIVES = {
    "a name that leads out": (packed(member("../evil.txt")), "leads out"),
    "a name that leads out further in": (packed(member("a/../../evil.txt")), "leads out"),
    "an absolute name": (packed(member("/tmp/evil.txt")), "leads out"),
    "a name of Windows": (packed(member("..\\evil.txt")), "leads out"),
    "a drive": (packed(member("C:evil.txt")), "leads out"),
    "a link": (packed(member("a.jpg", b"/etc/passwd", stat.S_IFLNK | 0o777)), "is no file"),
    "a device": (packed(member("a.jpg", b"", stat.S_IFCHR | 0o666)), "is no file"),
    "a pipe": (packed(member("a.jpg", b"", stat.S_IFIFO | 0o666)), "is no file"),
    "one name twice": (packed(member("a"), member("a", b"y")), "one name"),
    **{
        f"{first} and {second}": (packed(member(first), member(second, b"y")), match)
        for first, second, match in (
            ("a", "./a", "one name"),
            ("x/a", "x//a", "one name"),
            ("x/a", "x/./a", "one name"),
            ("a", "A", "one name"),
            ("a", "a/b", "a file and a folder"),
            ("a/b", "a", "a file and a folder"),
            ("a", "a/", "a file and a folder"),
            ("b", ".", "one name"),
        )
    },
    "a name that no file can have": (packed(member("x" * 300)), "cannot be unpacked"),
    "a path that no file can have": (packed(member("/".join(["y" * 200] * 40))), "too long"),
    "another packing": (packed(member("a", b"x" * 99, compress_type=zipfile.ZIP_LZMA)), "odd way"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_of_a_data_set(name, tmp_path):
    data, match = ARCHIVES[name]
    (tmp_path / "zips").mkdir()
    for archive_name in ("Flickr8k_Dataset.zip", "Flickr8k_text.zip"):
        (tmp_path / "zips" / archive_name).write_bytes(data)
    with pytest.raises(DataError, match=match) as caught:
        load_dataset("flickr8k", tmp_path / "zips", "train", workspace=tmp_path / "work")
    assert str(caught.value).isprintable()
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def data_set(folder, captions="", **files):
    """A data set in a folder, whose captions.csv has the lines."""
    folder.mkdir()
    (folder / "captions.csv").write_text(f"file_name,caption,split\n{captions}")
    for name, text in files.items():
        (folder / f"{name}.jpg").write_text(text)
    return folder


def test_photos_that_are_links_out_of_a_data_set(tmp_path):
    (tmp_path / "secret.jpg").write_text("secret")
    folder = data_set(tmp_path / "set", "l.jpg,x,train\n", a="a")
    for target, link in ((tmp_path / "secret.jpg", "l.jpg"), (tmp_path, "l")):
        (folder / link).symlink_to(target)
        with pytest.raises(DataError, match="leads out of"):
            load_dataset("folder", folder, "train")
        (folder / "captions.csv").write_text("file_name,caption,split\nl/secret.jpg,x,train\n")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "inside.jpg").symlink_to("a.jpg")
    (folder / "captions.csv").write_text("file_name,caption,split\ninside.jpg,x,train\n")
    (tmp_path / "linked").symlink_to(folder)
    assert load_dataset("folder", tmp_path / "linked", "train")[0].path.name == "inside.jpg"
    (folder / "captions.csv").write_text("file_name,caption,split\ncircle.jpg,x,train\n")
    with pytest.raises(DataError, match="missing"):
        load_dataset("folder", folder, "train")


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_captions_with_holes(tmp_path, name):
    folder = data_set(tmp_path / "set")
    (folder / "captions.csv").rename(folder / name)
    os.truncate(folder / name, 2**32)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"characters at most|is not JSON"):
        load_dataset("folder", folder, "train")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_annotations_with_holes_and_pipes(tmp_path, monkeypatch):
    monkeypatch.setattr("capexport.datasets.coco.MOST_TEXT", 2**20)
    path = tmp_path / "annotations/captions_train2017.json"
    path.parent.mkdir()
    path.touch()
    os.truncate(path, 2**32)
    with pytest.raises(DataError, match="larger than 1 MiB"):
        load_dataset("coco", tmp_path, "train")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a plain file"):
        load_dataset("coco", tmp_path, "train")


def test_names_without_end_are_not_repeated_in_messages(tmp_path):
    for name in ("x" * 100_000, "/" + "x" * 100_000):
        folder = data_set(tmp_path / f"set{len(name)}", f"{name},a caption,train\n")
        with pytest.raises(DataError) as caught:
            load_dataset("folder", folder, "train")
        assert len(str(caught.value)) < 1000


def test_bombs():
    bomb = packed(member("a", bytes(50_000_000), compress_type=zipfile.ZIP_DEFLATED))
    assert len(bomb) < 60_000
    with pytest.raises(archive.MalformedError, match="unpacks to more"):
        archive.check(bomb, most=10_000_000)
    with pytest.raises(archive.MalformedError, match="unpacks to more"):
        archive.check(packed(*(member(f"{k}") for k in range(1001))))


def test_members_that_share_bytes():
    """As of the bombs that unpack one run of bytes again and again (Fifield, 2019)."""
    data = bytearray(packed(member("a", b"x" * 1000), member("b", b"y" * 1000)))
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = bytes(4)  # its place: the first one's
    with pytest.raises(archive.MalformedError, match="share bytes"):
        archive.check(bytes(data))


def test_encrypted_members():
    data = bytearray(packed(member("a", b"x" * 100)))
    central = data.rindex(b"PK\x01\x02")
    data[central + 8] |= 1
    with pytest.raises(archive.MalformedError, match="encrypted"):
        archive.check(bytes(data))


def test_a_bomb_in_a_bundle(copy):
    stream = io.BytesIO()
    np.savez_compressed(stream, **{f"{k}.logits": np.zeros(2**28, np.uint8) for k in range(3)})
    sign(copy, "parity.npz", stream.getvalue())
    refused(copy, "unpacks to more than")


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + bytes(17), b"\x80\x04]", b"PK\x03\x04" * 100])
def test_no_archive_in_a_bundle(copy, data):
    sign(copy, "parity.npz", data)
    refused(copy, "no zip archive")


def test_its_error_is_of_capexport():
    with pytest.raises(BundleError, match="no zip archive"):
        check_archive(b"x", "the file")
