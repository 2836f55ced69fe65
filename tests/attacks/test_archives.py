"""Zip archives made to do harm: those of a data set, and the .npz of a bundle."""

import io
import stat
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
