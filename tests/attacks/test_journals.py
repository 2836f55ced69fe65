"""Journals of runs that are resumed, and tables made of them: whatever they hold, and whoever wrote them."""

import json

import pytest

from capexport import OutputError
from capexport.batch.journal import open_journal, read_rows
from capexport.batch.rows import NOTHING
from capexport.batch.run import Folder, caption_folder
from capexport.batch.tables import write_csv
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
    rows.append({**ROW, "alternatives": [{**CAPTION, "alternatives": []}]})
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_rows(tmp_path / "out.jsonl")) == rows


@pytest.mark.parametrize("text", ['{"mine": 1}\n{"mine": 2}', "my letter, without a line break at its end"])
def test_a_file_of_somebody_elses_stays_as_it_is(text, tiny_bundle, photos, tmp_path):
    """--resume with the wrong file: its last line, which has no end, is not torn off."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").symlink_to(photos[0])
    out = tmp_path / "mine.jsonl"
    out.write_text("{}\n" + text)
    with pytest.raises(OutputError, match="no row"):
        caption_folder(load(tiny_bundle), Folder(tmp_path / "photos", out, resume=True), DecodingOptions())
    assert out.read_text() == "{}\n" + text


def test_a_torn_line_goes_when_the_rows_are_read(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(ROW) + '\n{"path": "b.jp')
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


@pytest.mark.parametrize("text", ["=HYPERLINK(0)", "+1", "-2+3", "@SUM(1)", "\t=1", "\r=1"])
def test_formulas_of_spreadsheets(text, tmp_path):
    write_csv([{**ROW, "path": text, "text": text}], tmp_path / "out.csv")
    written = (tmp_path / "out.csv").read_bytes().decode()
    assert written.count(f"'{text}") == 2
