"""Shards: what is a photo in them, what is damaged, done once, done by whom, killed and begun anew."""

import gzip
import io
import json
import signal
import subprocess
import sys
import tarfile
import time

import pytest

import capexport
from capexport import DataError, DecodingOptions, OptionError, OutputError
from capexport.batch.run import Folder, caption_folder
from capexport.batch.shard_run import Shards, caption_shards
from capexport.batch.shards import Share, find_shards, photos_of, read_from_shard, split_shard
from tests.batch.conftest import BROKEN, write_tar

GREEDY = DecodingOptions()
SLOWLY = """
import sys, time
from pathlib import Path
import capexport
from capexport.batch import shard_run

rows = shard_run.rows_ahead
def slowly(*arguments):
    for batch in rows(*arguments):
        time.sleep(0.04)
        yield batch
shard_run.rows_ahead = slowly
bundle, out, *shards = sys.argv[1:]
what = shard_run.Shards(tuple(shards), out, batch=4)
shard_run.caption_shards(capexport.load(bundle, threads=1), what, capexport.DecodingOptions())
"""


@pytest.fixture
def captioner(tiny_bundle):
    return capexport.load(tiny_bundle, threads=2)


@pytest.fixture
def shards(folder, tmp_path):
    """Three tar shards of ten photos each."""
    photos = sorted(folder.iterdir())
    for k in range(3):
        write_tar(tmp_path / "shards" / f"{k:04d}.tar", photos[10 * k : 10 * k + 10])
    return tuple(find_shards([str(tmp_path / "shards")]))


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def outputs(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".stats.json")}


def test_a_shard_says_what_its_photos_say(captioner, folder, shards, tmp_path):
    tally = caption_shards(captioner, Shards(shards, str(tmp_path / "out"), batch=5), GREEDY)
    assert (tally.shards, tally.photos, tally.failed, tally.earlier, tally.damaged) == (3, 30, 2, 0, ())
    caption_folder(captioner, Folder(folder, tmp_path / "folder.jsonl", batch=5), GREEDY)
    rows = [row for k in range(3) for row in rows_of(tmp_path / "out" / f"{k:04d}.jsonl")]
    for row, alone in zip(rows, rows_of(tmp_path / "folder.jsonl"), strict=True):
        name = alone["path"].rpartition("/")[2]
        assert row["path"].endswith(f".tar/{name}")
        assert {**row, "path": "", "run": "", "error": ""} == {**alone, "path": "", "run": "", "error": ""}
        assert bool(row["error"]) == (name in BROKEN)
    stats = json.loads((tmp_path / "out" / "0000.stats.json").read_text())
    assert (stats["photos"], stats["failed"], stats["captions"]) == (10, 1, "0000.jsonl")
    assert stats["bytes"] == (tmp_path / "out" / "0000.jsonl").stat().st_size


def test_only_keys_with_a_photo_s_suffix_are_photos(tmp_path):
    names = ("b.jpg", "a.JPEG", "in/c.webp", "d.mask.png", "e.txt", ".jpg", ".hidden.jpg", "f.jpg/", "g.json")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.size = 0 if name.endswith("/") else len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = list(photos_of(str(tmp_path / "a.tar")))
    assert [str(photo) for photo in found] == [
        str(tmp_path / "a.tar" / name) for name in ("b.jpg", "a.JPEG", "in/c.webp")
    ]
    assert [photo.read() for photo in found] == [b"b.jpg", b"a.JPEG", b"in/c.webp"]
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    for shard in ("a.tar", "a.tar.gz"):
        path = str(tmp_path / shard / "in/c.webp")
        assert split_shard(path) == (str(tmp_path / shard), "in/c.webp")
        assert read_from_shard(str(tmp_path / shard), path) == b"in/c.webp"


def test_every_cut_of_a_tar_file_is_seen(folder, tmp_path):
    """A whole one ends with blocks of zeros: where they are missing, photos may be."""
    write_tar(tmp_path / "whole.tar", sorted(folder.iterdir())[:3])
    whole = (tmp_path / "whole.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    for cut in (0, 1, 511, 512, 700, 1024, end // 2, end // 2 + 512, end - 1):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"no whole tar file"):
            list(photos_of(str(tmp_path / "cut.tar")))
    packed = gzip.compress(whole)
    (tmp_path / "cut.tgz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError):
        list(photos_of(str(tmp_path / "cut.tgz")))
    flipped = bytearray(whole)
    second = whole.index(b"./photo-01.jpg")
    flipped[second : second + 512] = b"x" * 512  # a header
    (tmp_path / "cut.tar").write_bytes(flipped)
    with pytest.raises(DataError, match="no whole tar file"):
        list(photos_of(str(tmp_path / "cut.tar")))


def test_damaged_shards_are_told_of_and_leave_nothing(captioner, shards, tmp_path):
    whole = (tmp_path / "shards" / "0001.tar").read_bytes()
    (tmp_path / "shards" / "0001.tar").write_bytes(whole[: len(whole) // 2])
    what = Shards(shards, str(tmp_path / "out"))
    tally = caption_shards(captioner, what, GREEDY)
    assert (tally.shards, tally.photos) == (3, 20)
    assert "0001.tar is no whole tar file" in tally.damaged[0]
    assert {path.name[:4] for path in (tmp_path / "out").iterdir()} == {"0000", "0002"}
    (tmp_path / "shards" / "0001.tar").write_bytes(whole)
    tally = caption_shards(captioner, what, GREEDY)
    assert (tally.photos, tally.earlier, tally.damaged) == (30, 20, ())


def test_what_is_done_is_not_done_again(captioner, shards, tmp_path):
    what = Shards(shards, str(tmp_path / "out"), batch=4)
    caption_shards(captioner, what, GREEDY)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert caption_shards(captioner, what, GREEDY).earlier == 30
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    for other in (Shards(shards, str(tmp_path / "out"), min_confidence=0.5),):
        with pytest.raises(OutputError, match="other options"):
            caption_shards(captioner, other, GREEDY)
    with pytest.raises(OutputError, match=r"0000\.stats\.json is of 0000\.jsonl, its captions in another format"):
        caption_shards(captioner, Shards(shards, str(tmp_path / "out"), format=".csv"), GREEDY)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "0001.jsonl").unlink()
    assert caption_shards(captioner, what, GREEDY).earlier == 20
    (tmp_path / "out" / "0002.stats.json").unlink()
    with pytest.raises(OutputError, match=r"has no .stats.json"):
        caption_shards(captioner, what, GREEDY)
    forced = Shards(shards, str(tmp_path / "out"), min_confidence=0.5, force=True)
    assert caption_shards(captioner, forced, GREEDY).earlier == 0


def test_killed_and_begun_anew_it_is_as_if_undisturbed(captioner, shards, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", SLOWLY, str(captioner.bundle.directory), str(out), *shards]
    for done in (0, 1):
        process = subprocess.Popen(command)
        while len(list(out.glob("*.stats.json"))) < done or not list(out.glob(".*.part")):
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert len(list(out.glob("*.jsonl"))) < 3
    two = [subprocess.Popen(command) for _ in range(2)]  # at once, as schedulers do
    assert [process.wait() for process in two] == [0, 0]
    caption_shards(captioner, Shards(shards, str(tmp_path / "undisturbed"), batch=4), GREEDY)
    assert outputs(out) == outputs(tmp_path / "undisturbed")
    assert len(outputs(out)) == 3


def test_shares_are_the_whole(captioner, folder, shards, tmp_path):
    for index in range(2):
        share = Share(index, 2)
        caption_shards(captioner, Shards(shards, str(tmp_path / "out"), share=share), GREEDY)
        assert len(outputs(tmp_path / "out")) == (2, 3)[index]
        caption_folder(captioner, Folder(folder, tmp_path / f"{index}.jsonl", batch=4, share=share), GREEDY)
    caption_folder(captioner, Folder(folder, tmp_path / "all.jsonl", batch=4), GREEDY)
    parts = [(tmp_path / f"{index}.jsonl").read_bytes().splitlines() for index in range(2)]
    assert sorted(parts[0] + parts[1]) == (tmp_path / "all.jsonl").read_bytes().splitlines()
    empty = Folder(folder, tmp_path / "empty.jsonl", share=Share(98, 99))
    assert caption_folder(captioner, empty, GREEDY).photos == 0


def test_parquet(captioner, folder, tmp_path):
    """As datasets have photos: bytes, or structures of bytes and path; out as Parquet, row by row the same."""
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow (pip install 'capexport[parquet]')")
    import pyarrow.parquet as parquet

    bodies = [photo.read_bytes() for photo in sorted(folder.iterdir())] + [None]
    images = [{"bytes": body, "path": None} for body in bodies]
    parquet.write_table(pa.table({"id": range(31), "photo": bodies}), tmp_path / "a.parquet", row_group_size=7)
    parquet.write_table(pa.table({"image": images, "mask": [b"x"] * 31}), tmp_path / "b.parquet")
    shards = tuple(find_shards([str(tmp_path)]))
    tally = caption_shards(captioner, Shards(shards, str(tmp_path / "out"), ".parquet"), GREEDY)
    assert (tally.photos, tally.failed, tally.damaged) == (62, 6, ())
    found = [parquet.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist() for name in "ab"]
    assert [row["text"] for row in found[0]] == [row["text"] for row in found[1]]
    assert [row["path"] for row in found[0]] == [f"{tmp_path}/a.parquet/{number}" for number in range(31)]
    assert "no photo" in found[0][30]["error"]
    one = Shards(shards[:1], str(tmp_path / "one.csv"))
    assert caption_shards(captioner, one, GREEDY).photos == 31
    assert (tmp_path / "one.stats.json").exists()
    parquet.write_table(pa.table({"a": [b"x"], "b": [b"x"]}), tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    for name, match in (("c", "2 columns of bytes: a, b"), ("d", "no whole Parquet file")):
        with pytest.raises(DataError, match=match):
            list(photos_of(str(tmp_path / f"{name}.parquet")))


def test_what_makes_no_sense(shards, tmp_path):
    for text in ("3/3", "1", "a/b", "1/0", "-1/2", "1/"):
        with pytest.raises(OptionError, match="I/N"):
            Share.parse(text)
    assert Share.parse("2/3") == Share(2, 3)
    with pytest.raises(OptionError, match="3 shards go to a folder"):
        Shards(shards, "captions.csv")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="no shards"):
        find_shards([str(tmp_path / "other")])
    with pytest.raises(DataError, match="is no shard"):
        find_shards([str(tmp_path / "none")])
    with pytest.raises(OutputError, match="would share"):
        Shards((shards[0], "other/0000.parquet"), "out")
