"""A folder captioned into a file: killed and resumed, refused, in each format."""

import csv
import fcntl
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import capexport
from capexport import DecodingOptions, ImageError, MissingExtraError, OptionError, OutputError
from capexport.batch.run import Folder, caption_folder
from capexport.batch.sidecars import TEXT
from capexport.batch.tables import COLUMNS
from tests.batch.conftest import BROKEN, make_photo

GREEDY = DecodingOptions()
SLOWLY = """
import sys, time
from pathlib import Path
import capexport
from capexport.batch.run import Folder, caption_folder
from capexport.batch.sidecars import TEXT

bundle, folder, out = map(Path, sys.argv[1:])
what = Folder(folder, out, batch=4, sidecars=(TEXT,), resume=True)
options = capexport.DecodingOptions()
caption_folder(capexport.load(bundle, threads=2), what, options, lambda tally: time.sleep(0.02))
"""


@pytest.fixture
def captioner(tiny_bundle):
    return capexport.load(tiny_bundle, threads=2)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_killed_and_resumed_it_is_as_if_undisturbed(suffix, captioner, folder, tmp_path):
    """kill -9 at whatever it is doing just then, three times."""
    out, bundle = tmp_path / f"killed{suffix}", captioner.bundle.directory
    command = [sys.executable, "-c", SLOWLY, str(bundle), str(folder), str(out)]
    journal = Folder(folder, out).journal
    for least in (3, 9, 18):
        process = subprocess.Popen(command)
        while lines(journal) < least and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert least <= lines(journal) < 30
    subprocess.run(command, check=True)
    sidecars = {path.name: path.read_bytes() for path in folder.glob("*.txt")}

    undisturbed = tmp_path / f"undisturbed{suffix}"
    what = Folder(folder, undisturbed, batch=4, sidecars=(TEXT,), force=True)
    tally = caption_folder(captioner, what, GREEDY)
    assert (tally.photos, tally.failed) == (30, 2)
    assert out.read_bytes() == undisturbed.read_bytes()
    assert sidecars == {path.name: path.read_bytes() for path in folder.glob("*.txt")}
    assert len(sidecars) == 28
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed" + suffix, "photos", "undisturbed" + suffix]
    assert not list(folder.glob(".*"))


def test_rows_and_broken_photos(captioner, folder, tmp_path):
    out = tmp_path / "new" / "captions.jsonl"
    shown = []
    tally = caption_folder(captioner, Folder(folder, out), GREEDY, lambda tally: shown.append(tally.photos))
    rows = rows_of(out)
    assert [row["path"] for row in rows] == [str(folder / f"photo-{k:02d}.jpg") for k in range(30)]
    assert (tally.photos, tally.failed, shown) == (30, 2, [0, 16, 30])
    for row in rows:
        if Path(row["path"]).name in BROKEN:
            assert (row["text"], row["tokens"], row["confidence"]) == (None, None, None)
            assert "cannot be read" in row["error"]
        else:
            caption = captioner.caption(row["path"])
            assert (row["text"], tuple(row["tokens"]), row["error"]) == (caption.text, caption.tokens, None)
            assert row["confidence"] == pytest.approx(caption.confidence, abs=1e-5)


@pytest.mark.parametrize("cut", [1, 30, -1])
def test_a_torn_last_line_is_dropped(cut, captioner, folder, tmp_path):
    out = tmp_path / "captions.jsonl"
    caption_folder(captioner, Folder(folder, out, batch=4), GREEDY)
    whole = out.read_bytes()
    kept = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(kept[:13]) + kept[13][:cut])
    caption_folder(captioner, Folder(folder, out, batch=4, resume=True), GREEDY)
    assert out.read_bytes() == whole
    caption_folder(captioner, Folder(folder, out, batch=4, resume=True), GREEDY)
    assert out.read_bytes() == whole


def test_photos_that_came_meanwhile_are_captioned_once(captioner, folder, photos, tmp_path):
    out = tmp_path / "captions.jsonl"
    caption_folder(captioner, Folder(folder, out), GREEDY)
    before = out.read_bytes()
    make_photo(folder / "photo-10-and-a-half.jpg", photos[0], 99)
    tally = caption_folder(captioner, Folder(folder, out, resume=True), GREEDY)
    assert out.read_bytes().startswith(before)
    assert [Path(row["path"]).name for row in rows_of(out)[30:]] == ["photo-10-and-a-half.jpg"]
    assert tally.photos == 31


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_that_is_finished_stays_as_it_is(suffix, captioner, folder, photos, tmp_path):
    """A run may be killed after its last change to a file; a scheduler then begins it again."""
    what = Folder(folder, tmp_path / f"captions{suffix}", resume=True)
    assert caption_folder(captioner, what, GREEDY).earlier == 0
    table = what.out.read_bytes()
    tally = caption_folder(captioner, what, GREEDY)
    assert (tally.photos, tally.failed, tally.earlier) == (30, 2, 30)
    with pytest.raises(OutputError, match="another bundle, other options"):
        caption_folder(captioner, what, DecodingOptions(beams=2))
    make_photo(folder / "photo-10-and-a-half.jpg", photos[0], 99)
    with pytest.raises(OutputError, match="30 photos, and there are 31 now: pass --force"):
        caption_folder(captioner, what, GREEDY)
    assert what.out.read_bytes() == table
    for wrong in (b"", b"path,text\n", table[:-50], b"\xff" * 100):
        what.out.write_bytes(wrong)
        with pytest.raises(OutputError, match=re.escape(str(what.out))):
            caption_folder(captioner, what, GREEDY)
        assert what.out.read_bytes() == wrong
    assert [path.name for path in tmp_path.glob("captions*")] == [what.out.name]


def test_csv_and_parquet_say_what_jsonl_says(captioner, folder, tmp_path):
    options = DecodingOptions(beams=2, captions=2)
    caption_folder(captioner, Folder(folder, tmp_path / "a.jsonl"), options)
    expected = rows_of(tmp_path / "a.jsonl")
    for row in expected:
        row["alternatives"] = row["alternatives"] and [other["text"] for other in row["alternatives"]]
    caption_folder(captioner, Folder(folder, tmp_path / "a.csv"), options)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    for row, cell in zip(expected, cells, strict=True):
        texts = {"path", "text", "error", "run"}
        read = {name: text if name in texts else json.loads(text or "null") for name, text in cell.items()}
        assert read == {name: value if value is not None or name not in texts else "" for name, value in row.items()}
    parquet = pytest.importorskip("pyarrow.parquet")
    caption_folder(captioner, Folder(folder, tmp_path / "a.parquet"), options)
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == list(COLUMNS)
    assert table.to_pylist() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.jsonl", "a.parquet", "photos"]


def test_parquet_needs_its_extra(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"capexport\[parquet\]"):
        Folder(folder, tmp_path / "captions.parquet")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_nothing_is_overwritten_unasked(suffix, captioner, folder, tmp_path):
    out = tmp_path / f"captions{suffix}"
    out.write_text("precious\n")
    with pytest.raises(OutputError, match="exists already"):
        caption_folder(captioner, Folder(folder, out), GREEDY)
    with pytest.raises(OutputError, match=r"no row of such a run|no table of captions"):
        caption_folder(captioner, Folder(folder, out, resume=True), GREEDY)
    with pytest.raises(OptionError, match="nonsense"):
        caption_folder(captioner, Folder(folder, out, force=True), DecodingOptions(forced_words=("nonsense",)))
    assert out.read_text() == "precious\n"
    assert len(list(tmp_path.iterdir())) == 2
    assert caption_folder(captioner, Folder(folder, out, force=True), GREEDY).photos == 30
    assert "precious" not in out.read_text()


def test_killed_between_the_table_and_the_end(captioner, folder, tmp_path):
    """The table is there, and so are the rows it was made of."""
    rows, out = tmp_path / "rows.jsonl", tmp_path / "captions.csv"
    caption_folder(captioner, Folder(folder, rows), GREEDY)
    caption_folder(captioner, Folder(folder, out), GREEDY)
    table, journal = out.read_bytes(), tmp_path / "captions.csv.partial.jsonl"
    journal.write_bytes(rows.read_bytes())
    assert caption_folder(captioner, Folder(folder, out, resume=True), GREEDY).photos == 30
    assert out.read_bytes() == table
    assert not journal.exists()
    journal.write_bytes(rows.read_bytes())
    out.write_text("somebody else's\n")
    with pytest.raises(OutputError, match="exists already"):
        caption_folder(captioner, Folder(folder, out, resume=True), GREEDY)
    assert out.read_text() == "somebody else's\n"


def test_what_cannot_be_resumed(captioner, tiny_bundles, folder, tmp_path):
    out = tmp_path / "captions.jsonl"
    caption_folder(captioner, Folder(folder, out), GREEDY)
    before = out.read_bytes()
    again = Folder(folder, out, resume=True)
    with pytest.raises(OutputError, match="other options"):
        caption_folder(captioner, again, DecodingOptions(max_length=4))
    with pytest.raises(OutputError, match="other options"):
        caption_folder(captioner, Folder(folder, out, min_confidence=0.5, resume=True), GREEDY)
    with pytest.raises(OutputError, match="another bundle"):
        caption_folder(capexport.load(tiny_bundles["onnx", "dynamic-int8"]), again, GREEDY)
    with out.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another run"):
            caption_folder(captioner, again, GREEDY)
    assert out.read_bytes() == before
    out.write_bytes(before.replace(b'"path"', b'"pa"', 1))
    with pytest.raises(OutputError, match=r"Line 1 of .* is no row"):
        caption_folder(captioner, again, GREEDY)


def test_doubtful_captions_are_left_empty(captioner, folder, tmp_path):
    caption_folder(captioner, Folder(folder, tmp_path / "all.jsonl"), GREEDY)
    rows = rows_of(tmp_path / "all.jsonl")
    least = sorted(row["confidence"] for row in rows if not row["error"])[14]
    what = Folder(folder, tmp_path / "sure.jsonl", min_confidence=least, sidecars=(TEXT,))
    caption_folder(captioner, what, GREEDY)
    for row, sure in zip(rows, rows_of(tmp_path / "sure.jsonl"), strict=True):
        kept = not row["error"] and row["confidence"] >= least
        assert sure["text"] == (row["text"] if kept or row["error"] else "")
        assert sure["tokens"] == row["tokens"]
        assert Path(row["path"] + ".txt").exists() == kept


def test_options_that_make_no_sense(captioner, folder, tmp_path):
    for fields in ({"batch": 0}, {"min_confidence": 1.5}, {"resume": True, "force": True}):
        with pytest.raises(OptionError):
            Folder(folder, tmp_path / "captions.jsonl", **fields)
    with pytest.raises(OptionError, match=r"\.jsonl, \.csv, \.parquet"):
        Folder(folder, tmp_path / "captions.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no photos"):
        caption_folder(captioner, Folder(tmp_path / "empty", tmp_path / "captions.jsonl"), GREEDY)
    assert not (tmp_path / "captions.jsonl").exists()
