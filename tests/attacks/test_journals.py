"""Journals of runs that are resumed, and tables made of them: whatever they hold, and whoever wrote them."""

import contextlib
import json
import math
import os
import sqlite3
import subprocess
import tracemalloc
import xml.etree.ElementTree as ET

import pytest

from capexport import OutputError
from capexport.batch.journal import LONGEST, open_journal, read_rows
from capexport.batch.rows import NOTHING
from capexport.batch.run import Folder, caption_folder
from capexport.batch.sidecars import TEXT, XMP
from capexport.batch.tables import write_csv
from capexport.batch.walk import names_under
from capexport.runtime.captioner import load
from capexport.runtime.options import DecodingOptions

CAPTION = {"text": "a", "words": ["a"], "tokens": [1], "log_probabilities": [-1.0], "confidence": 0.5}
ROW = {"path": "a.jpg", **CAPTION, "alternatives": [], "error": None, "run": "0"}

ODD = {
    "nested deeply": "[" * 100_000,
    "a text": '"row"',
    "not a number": "NaN",
    "a huge number": "1" * 10_000,
    "not UTF-8": "\udcff",
    "without its words": json.dumps({key: value for key, value in ROW.items() if key != "words"}),
    "with other words": json.dumps({**ROW, "words": "a"}),
    "with tokens that are text": json.dumps({**ROW, "tokens": ["a"]}),
    "with a token that no table holds": json.dumps({**ROW, "tokens": [2**40]}),
    "with alternatives that are none": json.dumps({**ROW, "alternatives": ["a"]}),
    "with alternatives of alternatives": json.dumps(
        {**ROW, "alternatives": [{**CAPTION, "alternatives": [{**CAPTION, "alternatives": []}]}]}
    ),
    "with a token that is a truth value": json.dumps({**ROW, "tokens": [True]}),
    "with text that no file holds": json.dumps({**ROW, "text": "\ud800"}),
    "with a word that no file holds": json.dumps({**ROW, "words": ["\ud800"]}),
    "with a path that no file has": json.dumps({**ROW, "path": "\ud800"}),
    "with an error that no file holds": json.dumps({**ROW, **NOTHING, "error": "\ud800"}),
    "with a confidence that no float holds": json.dumps({**ROW, "confidence": 10**400}),
    "with a confidence that is none": json.dumps({**ROW, "confidence": float("nan")}),
    "with a confidence that is a truth value": json.dumps({**ROW, "confidence": True}),
    "with a log-probability that no float holds": json.dumps({**ROW, "log_probabilities": [-(10**400)]}),
    "with a log-probability that is none": json.dumps({**ROW, "log_probabilities": [1e5]}),
    "with a path that is none": json.dumps({**ROW, "path": ["a.jpg"]}),
    "with an error and a caption": json.dumps({**ROW, "error": "broken"}),
    "with neither": json.dumps({**ROW, **NOTHING}),
}


@pytest.mark.parametrize("name", ODD)
def test_lines_that_are_no_rows(name, tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + ODD[name].encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(OutputError, match=r"Line 2 of .* is no row"):
        list(read_rows(path))


def test_rows_as_they_are_written_are_read(tmp_path):
    rows = [ROW, {**ROW, **NOTHING, "error": "broken"}]
    rows += [{**ROW, "log_probabilities": [-math.inf], "confidence": 0}, {**ROW, "path": "\udcff.jpg"}]
    rows.append({**ROW, "alternatives": [{**CAPTION, "alternatives": []}]})
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_rows(tmp_path / "out.jsonl")) == rows


LETTERS = ("my letter, without a line break at its end", '{"mine": 2}', '{"pathos": "', "\0" * 100)


@pytest.mark.parametrize("begin", ["", "{}\n", json.dumps(ROW) + "\n"])
@pytest.mark.parametrize("text", LETTERS)
def test_a_file_of_somebody_elses_stays_as_it_is(begin, text, tiny_bundle, photos, tmp_path):
    """--resume with the wrong file: its last line, which has no end, is not torn off."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").symlink_to(photos[0])
    out = tmp_path / "mine.jsonl"
    out.write_text(begin + text)
    with pytest.raises(OutputError, match="no row"):
        caption_folder(load(tiny_bundle), Folder(tmp_path / "photos", out, resume=True), DecodingOptions())
    assert out.read_text() == begin + text


@pytest.mark.parametrize("begin", [b"", json.dumps(ROW).encode() + b"\n"])
def test_a_line_without_end(begin, tmp_path):
    """A file of holes takes no room on the disk, and would take all of the memory."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(begin)
    os.truncate(path, 1 << 31)
    tracemalloc.start()
    with pytest.raises(OutputError, match="no row"), open_journal(path, resume=True, force=False):
        pass
    with pytest.raises(OutputError, match="no row"):
        list(read_rows(path))
    assert tracemalloc.get_traced_memory()[1] < 4 * LONGEST
    tracemalloc.stop()
    assert path.stat().st_size == 1 << 31


def test_a_torn_line_goes_when_the_rows_are_read(tmp_path):
    path = tmp_path / "out.jsonl"
    for torn in ("{", '{"path": ', '{"path": "b.jp', json.dumps(ROW)):
        path.write_text(json.dumps(ROW) + "\n" + torn)
        with open_journal(path, resume=True, force=False) as journal:
            assert list(journal.read()) == [ROW]
            journal.append([{**ROW, "path": "b.jpg"}])
            assert len(list(journal.read())) == 2
        assert [row["path"] for row in read_rows(path)] == ["a.jpg", "b.jpg"]


def test_a_journal_that_names_other_photos(tiny_bundle, photos, tmp_path):
    """Its rows are kept as they are; nothing that they name is read or written."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").symlink_to(photos[0])
    captioner, out = load(tiny_bundle), tmp_path / "out.jsonl"
    what = Folder(tmp_path / "photos", out, resume=True)
    caption_folder(captioner, what, DecodingOptions())
    [row] = read_rows(out)
    out.write_text(json.dumps({**row, "path": "/etc/passwd"}) + "\n")
    assert caption_folder(captioner, what, DecodingOptions()).photos == 2


FORMULAS = (
    "\t=1",
    "\r=1",
    "\n=1",
    "\r\n =1",
    " =1",
    "\x00=1",
    "\ufeff=1",
    "\u200b=1",
    "＝1",
    "＋1",
    "－1",
    "＠1",
    " ＝1",
)


@pytest.mark.parametrize("text", ["=HYPERLINK(0)", "+1", "-2+3", "@SUM(1)", *FORMULAS])
def test_formulas_of_spreadsheets(text, tmp_path):
    write_csv([{**ROW, "path": text, "text": text}], tmp_path / "out.csv")
    written = (tmp_path / "out.csv").read_bytes().decode()
    assert written.count(f"'{text}") == 2


def test_text_is_no_formula(tmp_path):
    write_csv([{**ROW, "path": "photos/a=1.jpg", "text": "a dog = a cat"}], tmp_path / "out.csv")
    assert "'" not in (tmp_path / "out.csv").read_text()


PLACES = ("out.jsonl", "out.csv", "out.csv.partial.jsonl", "photos/a.xmp", "photos/a.jpg.txt", "cache")


@pytest.mark.parametrize("how", [{"force": True}, {"resume": True}, {}])
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_where_files_are_written(place, kind, how, tiny_bundle, photos, tmp_path):
    """Pipes wait for ever, and devices never end."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").symlink_to(photos[0])
    if kind == "pipe":
        os.mkfifo(tmp_path / place)
    else:
        (tmp_path / place).symlink_to("/dev/zero")
    out = tmp_path / ("out.csv" if place.startswith("out.csv") else "out.jsonl")
    what = Folder(tmp_path / "photos", out, sidecars=(TEXT, XMP), **how)
    cache = tmp_path / "cache" if place == "cache" else None
    with pytest.raises(OutputError, match=r"no plain file|exists already"):
        caption_folder(load(tiny_bundle), what, DecodingOptions(), cache=cache)
    assert not (tmp_path / place).is_file()


def test_a_sidecar_that_is_too_large_to_be_ours(tmp_path):
    (tmp_path / "a.xmp").touch()
    os.truncate(tmp_path / "a.xmp", 1 << 31)
    with pytest.raises(OutputError, match="exists already"):
        XMP.write(tmp_path / "a.jpg", "a dog", force=False)
    XMP.replace(tmp_path / "a.jpg", {"a dog"}, "a cat")
    assert (tmp_path / "a.xmp").stat().st_size == 1 << 31


def test_a_packet_is_xml_whatever_the_text(tmp_path):
    XMP.write(tmp_path / "a.jpg", "a\x1b\x00 do\ufffeg\n😀", force=False)
    assert "a dog\n😀" in ET.parse(tmp_path / "a.xmp").getroot().itertext()


def cached(tiny_bundle, photos, tmp_path, *commands):
    """Two captions by a cache that somebody changed in between."""
    (tmp_path / "photos").mkdir(exist_ok=True)
    for k, name in enumerate(("a.jpg", "b.jpg")):
        (tmp_path / "photos" / name).unlink(missing_ok=True)
        (tmp_path / "photos" / name).symlink_to(photos[k])
    captioner, what = load(tiny_bundle), Folder(tmp_path / "photos", tmp_path / "out.jsonl", force=True)
    if not commands[0].startswith("create"):
        caption_folder(captioner, what, DecodingOptions(), cache=tmp_path / "cache", near_copies=3)
    with contextlib.closing(sqlite3.connect(tmp_path / "cache")) as base, base:
        for command in commands:
            base.execute(command)
    caption_folder(captioner, what, DecodingOptions(), cache=tmp_path / "cache", near_copies=3)


COUNTING = "with recursive t(key, row) as (select 'a', 'b' union all select key || 'x', row from t) select * from t"
SCHEMAS = {
    "other columns": ("create table exact (a, b)",),
    "other columns of ours": ("create table exact (key text primary key, row text)",),
    "a view": ("create view exact as select 1 as key, 2 as row",),
    "a view without end": (
        "create table near (part integer, bits integer, hash integer, key text)",
        f"create view exact as {COUNTING}",
    ),
    "a trigger": (
        "create table exact (key text primary key, row text) without rowid",
        "create trigger x before insert on exact begin select raise(abort, 'x'); end",
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_cache_of_other_tables(name, tiny_bundle, photos, tmp_path):
    with pytest.raises(OutputError, match=r"cache.*(remove it|cannot be used)"):
        cached(tiny_bundle, photos, tmp_path, *SCHEMAS[name])


CACHED = ("'{'", "'[]'", "'{}'", "null", "5", "x'ff00'", "cast(x'ff' as text)", f"'{'[' * 100_000}'", "'{\"path\": 1}'")


@pytest.mark.parametrize("value", CACHED)
def test_a_cache_of_rows_that_are_no_captions(value, tiny_bundle, photos, tmp_path):
    with pytest.raises(OutputError, match="cache"):
        cached(tiny_bundle, photos, tmp_path, f"update exact set row = {value}")


def test_a_cache_of_hashes_that_are_none(tiny_bundle, photos, tmp_path):
    commands = "update near set hash = 'x'", "update exact set key = key || 'x'"
    with pytest.raises(OutputError, match="cache"):
        cached(tiny_bundle, photos, tmp_path, *commands)


def test_folders_in_folders_without_end(tmp_path):
    deep = tmp_path
    for _ in range(1100):  # one by one: Python's own makers of folders call themselves
        deep /= "d"
        deep.mkdir()
    (deep / "a.jpg").touch()
    [photo] = names_under(tmp_path, recursive=True)
    assert photo.endswith("/d/d/a.jpg")
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)
