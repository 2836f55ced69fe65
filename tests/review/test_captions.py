"""What a person decided is on disk at once, survives kill -9, and is saved whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from capexport import OptionError, OutputError
from capexport.batch.sidecars import TEXT, XMP
from capexport.review.captions import ACCEPTED, EDITED, EMPTIED, OPEN, UNREADABLE, open_captions

DECIDE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from capexport.review.captions import open_captions

with open_captions(Path(sys.argv[1])) as captions:
    captions.decide(0, "accepted", "")
    captions.decide(1, "edited", "a red wall")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_decisions_are_saved_into_the_rows(captioned):
    before = rows_of(captioned)
    with open_captions(captioned) as captions:
        assert captions.counts() == {OPEN: 28, ACCEPTED: 0, EDITED: 0, EMPTIED: 0, UNREADABLE: 2}
        captions.decide(0, ACCEPTED, "")
        captions.decide(1, EDITED, "  a  red\nwall ")
        captions.decide(2, EMPTIED, "")
        captions.decide(3, EDITED, "a mistake")
        captions.decide(3, OPEN, "")
        assert captions.row(1)["text"] == "a red wall"
        assert captions.counts() == {OPEN: 25, ACCEPTED: 1, EDITED: 1, EMPTIED: 1, UNREADABLE: 2}
    after = rows_of(captioned)
    for number, (fields, row) in enumerate(zip(before, after, strict=True)):
        changed = {
            0: {"review": ACCEPTED},
            1: {"text": "a red wall", "review": EDITED},
            2: {"text": "", "review": EMPTIED},
        }
        assert row == {**fields, **changed.get(number, {})}
    assert [path.name for path in captioned.parent.iterdir() if path.is_file()] == [captioned.name]
    with open_captions(captioned) as captions:  # and again, from there
        assert captions.counts()[OPEN] == 25
        captions.decide(1, OPEN, "")
    assert rows_of(captioned)[1] == before[1]


def test_killed_it_loses_nothing(captioned):
    before = captioned.read_bytes()
    done = subprocess.run([sys.executable, "-c", DECIDE_AND_DIE, str(captioned)])
    assert done.returncode == -9
    assert captioned.read_bytes() == before
    with captioned.with_name("captions.jsonl.review.jsonl").open("ab") as file:
        file.write(b'{"number": 2, "pa')  # torn
    told = []
    with open_captions(captioned, told=told.append) as captions:
        assert captions.counts()[OPEN] == 26
    assert told == [2]
    assert [row.get("review") for row in rows_of(captioned)[:3]] == [ACCEPTED, EDITED, None]


def test_doubtful_ones_come_first(captions):
    confidences = [captions.row(number)["confidence"] for number in captions.find(OPEN, "doubtful", None, 100)]
    assert confidences == sorted(confidences)
    assert len(confidences) == 28
    first = captions.find(None, "file", None, 4)
    assert (first, captions.find(None, "file", first[-1], 3)) == ([0, 1, 2, 3], [4, 5, 6])
    assert captions.find(UNREADABLE, "file", None, 9) == [5, 22]


def test_sidecars_follow(captioned, folder):
    for k in range(4):
        photo = folder / f"photo-{k:02d}.jpg"
        TEXT.write(photo, rows_of(captioned)[k]["text"], force=False)
    theirs = folder / "photo-03.jpg.txt"
    theirs.write_text("somebody's own\n")
    with open_captions(captioned, (TEXT, XMP)) as captions:
        captions.decide(0, ACCEPTED, "")
        captions.decide(1, EDITED, "a red wall")
        captions.decide(2, EMPTIED, "")
        captions.decide(3, EDITED, "a green wall")
    assert (folder / "photo-00.jpg.txt").read_text() == rows_of(captioned)[0]["text"] + "\n"
    assert (folder / "photo-01.jpg.txt").read_text() == "a red wall\n"
    assert "a red wall" in (folder / "photo-01.xmp").read_text()
    assert not (folder / "photo-02.jpg.txt").exists()
    assert theirs.read_text() == "somebody's own\n"
    assert not (folder / "photo-04.xmp").exists()


def test_what_cannot_be_decided(captions):
    for number, state, text in (
        (5, ACCEPTED, ""),
        (0, UNREADABLE, ""),
        (0, "nonsense", ""),
        (0, EDITED, " "),
        (99, OPEN, ""),
    ):
        with pytest.raises(OptionError):
            captions.decide(number, state, text)
    with pytest.raises(OptionError, match="2000 signs"):
        captions.decide(0, EDITED, "x" * 2001)
    assert captions.counts()[OPEN] == 28


def test_what_cannot_be_reviewed(captioned, tmp_path):
    with pytest.raises(OutputError, match=r"no \.jsonl of captions"), open_captions(tmp_path / "none.jsonl"):
        pass
    with open_captions(captioned), pytest.raises(OutputError, match="another run"), open_captions(captioned):
        pass
    whole = captioned.read_bytes()
    captioned.write_bytes(whole[:-5])
    with pytest.raises(OutputError, match=r"ends within a line|no row"), open_captions(captioned):
        pass
    captioned.write_bytes(whole)
    saved = Path(f"{captioned}.review.jsonl")
    saved.write_text('{"number": 0, "path": "other.jpg", "text": "", "review": "emptied"}\n')
    with pytest.raises(OutputError, match="of other captions"), open_captions(captioned):
        pass
    assert captioned.read_bytes() == whole
