"""Shards that were made to do harm: names that lead elsewhere, sizes without end, headers and photos without bound."""

import gzip
import io
import json
import lzma
import os
import tarfile
import tracemalloc
import zlib
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import capexport
from capexport import DataError, DecodingOptions, ImageError
from capexport.batch import shard_run, shards, xz
from capexport.batch.shard_run import Shards, caption_shards
from capexport.batch.shards import photos_of, read_from_shard, split_shard
from capexport.batch.storage import is_folder, open_input
from capexport.batch.tar import LONGEST, LONGEST_NAME, MOST
from capexport.batch.xz import XzFile

GREEDY = DecodingOptions()
END = bytes(1024)


def header(name, size=0, kind=b"0", field=None):
    """A header of a tar file, of any size and kind."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = field or (b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big"))
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name, body=b"photo", **fields):
    return header(name, len(body), **fields) + body + bytes(-len(body) % 512)


def pax(fields, kind=b"x"):
    body = b""
    for key, value in fields.items():
        line = f" {key}={value}\n".encode()
        size = next(n for n in range(len(line), len(line) + 9) if n == len(line) + len(str(n)))
        body += str(size).encode() + line
    return member("pax", body, kind=kind)


def read(path, body):
    path.write_bytes(body)
    return {str(photo).removeprefix(str(path)): photo.read() for photo in photos_of(str(path))}


NAMES = {
    "/etc/a.jpg": "/etc/a.jpg",
    "../../etc/a.jpg": "/etc/a.jpg",
    "a/../../b/./c.jpg": "/a/b/c.jpg",
    "//a//b.jpg": "/a/b.jpg",
    "b.tar/c.jpg": "/b.tar/c.jpg",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [lambda name: member(name), lambda name: pax({"path": name}) + member("x.jpg")])
def test_names_that_lead_elsewhere(make, name, tmp_path):
    """A row's path is the shard's with a name after it: a review reads it in the shard, and nowhere else."""
    for shard in (tmp_path / "A.tar", tmp_path / "a.TAR"):
        assert read(shard, make(name) + END) == {NAMES[name]: b"photo"}
        assert split_shard(f"{shard}{NAMES[name]}") == (str(shard), NAMES[name][1:])
        assert read_from_shard(str(shard), f"{shard}{NAMES[name]}") == b"photo"
    with pytest.raises(ImageError, match="no photo"):
        read_from_shard(str(shard), f"{shard}/other.jpg")


def test_tar_files_as_others_write_them(tmp_path):
    names = ["a.jpg", "é" * 60 + ".jpg", "d/" * 120 + "b.jpg", "x" * 300 + ".jpg"]
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        for packing in ("", "gz", "bz2", "xz"):
            shard = str(tmp_path / f"{kind}{packing}.tar")
            with tarfile.open(shard, f"w:{packing}", format=kind) as tar:
                for name in names:
                    info = tarfile.TarInfo(name)
                    info.size = len(name)
                    info.mtime = -1.5 if kind == tarfile.PAX_FORMAT else 0
                    tar.addfile(info, io.BytesIO(b"x" * len(name)))
            found = {str(photo): photo.read() for photo in photos_of(shard)}
            assert found == {f"{shard}/{name}": b"x" * len(name) for name in names}
            for path, body in found.items():
                assert read_from_shard(shard, path) == body


@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=4),
    st.integers(1, 5000),
    st.sampled_from([0, 4, 512]),
    st.sampled_from([50, xz.CHUNK]),
)
def test_packed_files_as_python_reads_them(parts, size, padding, chunk):
    with mock.patch.object(xz, "CHUNK", chunk):
        check_unpacked(parts, size, padding)


def check_unpacked(parts, size, padding):
    packed = b"".join(lzma.compress(part) + bytes(padding) for part in parts)
    unpacked = io.BufferedReader(XzFile(io.BytesIO(packed)))
    assert b"".join(iter(lambda: unpacked.read(size), b"")) == b"".join(parts)
    alone = lzma.compress(parts[0], lzma.FORMAT_ALONE)
    assert io.BufferedReader(XzFile(io.BytesIO(alone))).read() == parts[0]
    with pytest.raises((EOFError, lzma.LZMAError)):
        io.BufferedReader(XzFile(io.BytesIO(lzma.compress(parts[0])[:-3]))).read()


def test_a_dictionary_of_4_gb(tmp_path):
    """liblzma would fill as much memory, if there is as much to unpack."""
    packed = bytearray(lzma.compress(member("a.jpg") + END))
    packed[16] = 40  # of the block's header: LZMA2's dictionary, in steps of half a power of two
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")
    (tmp_path / "a.tar").write_bytes(packed)
    with pytest.raises(DataError, match="limit"):
        list(photos_of(str(tmp_path / "a.tar")))


HUGE = (2**33, 2**63, 2**80)
DAMAGED = {
    **{f"a member of {size} bytes": header("a.jpg", size) + bytes(2048) for size in HUGE},
    **{f"a text of {size} bytes": header("a.txt", size) + bytes(2048) for size in HUGE},
    "the largest size": header("a.jpg", field=b"\x80" + b"\xff" * 11) + END,
    "a size below nothing": header("a.jpg", field=b"\xff" * 12) + END,
    "a size that is none": header("a.jpg", field=b"z" * 12) + END,
    "another size beside it": pax({"size": "99999999999999"}) + member("a.jpg") + END,
    "a size beside it that is none": pax({"size": "-5"}) + member("a.jpg") + END,
    "another size for all": pax({"size": "99999999999999"}, b"g") + member("a.jpg") + END,
    "fields that are none": member("pax", b"5 path=a.jpg\n", kind=b"x") + member("a.jpg") + END,
    "fields of no length": member("pax", b"0 path=a.jpg\n", kind=b"x") + member("a.jpg") + END,
    "many headers": pax({"path": "b.jpg"}) * (MOST + 1) + member("a.jpg") + END,
    "many names": member("L", b"b.jpg\0", kind=b"L") * 3000 + member("a.jpg") + END,
    "a name without end": pax({"path": "a" * LONGEST_NAME + ".jpg"}) + member("a.jpg") + END,
    "a map without end": header("a.jpg", kind=b"S")[:482] + b"\1" * 30 + b"\1" * LONGEST + END,
    "an end in its headers": pax({"path": "b.jpg"}),
    "a wrong sum": member("a.jpg")[:148] + b"0" * 8 + member("a.jpg")[156:] + END,
}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("name", DAMAGED)
def test_tar_files_of_a_few_bytes(name, suffix, tmp_path):
    """None is waited for, or fills the memory."""
    body = DAMAGED[name] if suffix == ".tar" else gzip.compress(DAMAGED[name])
    with pytest.raises(DataError, match="no whole tar file"):
        (tmp_path / f"a{suffix}").write_bytes(body)
        list(photos_of(str(tmp_path / f"a{suffix}")))


def test_cuts_of_a_packed_file(tmp_path):
    packed = gzip.compress(member("a.jpg") + END)
    for cut in range(len(packed) // 2):
        with pytest.raises(DataError):
            read(tmp_path / "a.tar.gz", packed[:cut])
    for begin in (b"\x1f\x8b\x08\x04", b"BZh91AY&SY" + b"\xff" * 99, b"\xfd7zXZ\0" + b"\xff" * 99, b"\x5d\0\0\x80"):
        with pytest.raises(DataError):
            read(tmp_path / "a.tar", begin)


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_headers_without_bound(kind, tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        file.write(header("a", 1 << 30, kind))
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="a header has 1073741824 bytes"):
        list(photos_of(str(tmp_path / "a.tar.gz")))
    assert tracemalloc.get_traced_memory()[1] < 8 * LONGEST
    tracemalloc.stop()


def test_sparse_files_are_passed_over(tmp_path):
    sparse = pax({"GNU.sparse.map": "0,10", "GNU.sparse.size": "200000000"}) + member("a.jpg")
    assert read(tmp_path / "a.tar", sparse + member("b.jpg", kind=b"S") + member("c.jpg") + END) == {"/c.jpg": b"photo"}


@pytest.fixture
def most(monkeypatch):
    """A smaller bound for a photo's bytes, and for those of a batch."""
    monkeypatch.setattr(shards, "MOST_BYTES", 1 << 22)
    monkeypatch.setattr(shard_run, "LARGE", 1 << 19)
    return 1 << 22


def test_a_photo_that_is_too_large_is_not_read(most, tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        file.write(header("a.jpg", most + 512))
        file.write(bytes(most + 512) + member("b.jpg") + END)
    tracemalloc.start()
    large, small = photos_of(str(tmp_path / "a.tar.gz"))
    assert tracemalloc.get_traced_memory()[1] < most
    tracemalloc.stop()
    with pytest.raises(ImageError, match="too large"):
        large.read()
    assert small.read() == b"photo"


def test_a_shard_that_is_a_pipe(tmp_path):
    for name in ("a.tar", "a.tar.gz", "a.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="not a plain file"):
            list(photos_of(str(tmp_path / name)))
    with pytest.raises(DataError, match="not a plain file"):
        read_from_shard(str(tmp_path / "a.tar"), f"{tmp_path}/a.tar/b.jpg")


def test_photos_of_a_parquet_file_that_are_too_large(most, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow (pip install 'capexport[parquet]')")
    import pyarrow.parquet as parquet

    body = bytes(most + 1)
    for photos in ([body], [b"a", body, b"c"]):
        table = pa.table({"image": pa.array(photos, pa.large_binary())})
        parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
        for photo, expected in zip(photos_of(str(tmp_path / "a.parquet")), photos, strict=True):
            if expected is body:
                with pytest.raises(ImageError, match="too large"):
                    photo.read()
            else:
                assert photo.read() == expected


@pytest.mark.usefixtures("most")
def test_large_photos_are_not_held_all_at_once(tiny_bundle, photos, tmp_path):
    """A few bytes of a packed shard become many: those of a few photos are in memory, however many there are."""
    body = photos[0].read_bytes() + bytes(1 << 21)
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        for k in range(40):
            file.write(member(f"{k}.jpg", body))
        file.write(END)
    captioner = capexport.load(tiny_bundle, threads=1)
    tracemalloc.start()
    tally = caption_shards(captioner, Shards((str(tmp_path / "a.tar.gz"),), str(tmp_path / "out.jsonl")), GREEDY)
    assert (tally.photos, tally.damaged) == (40, ())
    assert tracemalloc.get_traced_memory()[1] < 12 * len(body)
    tracemalloc.stop()
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 40
    assert json.loads((tmp_path / "out.stats.json").read_text())["failed"] == 0


@pytest.mark.parametrize(
    "uri", ["s3:///x", "s3://", "gs:///x", "s3://b?region=us-east-1&endpoint_override=evil/x", "s3://a b/x"]
)
def test_addresses_in_storage_without_a_bucket(uri):
    pytest.importorskip("pyarrow", reason="needs pyarrow (pip install 'capexport[parquet]')")
    for ask in (is_folder, lambda uri: open_input(uri).__enter__()):
        with pytest.raises(DataError, match="no bucket"):
            ask(uri)
