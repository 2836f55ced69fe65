"""capexport caption DIR --out FILE, as its user meets it."""

import json
import os
import subprocess
import sys

import pytest

from tests.batch.conftest import folder  # noqa: F401
from tests.cli.test_cli import refused, run


def test_a_folder(capsys, tiny_bundle, folder, tmp_path):  # noqa: F811
    out = tmp_path / "captions.jsonl"
    arguments = ["caption", folder, "--out", out, "--bundle", tiny_bundle.directory, "--threads", "2", "--sidecar"]
    code, printed, err = run(capsys, *arguments)
    assert (code, printed) == (1, "")
    assert err == f"{out}: 30 photos, 2 of them could not be read\n"
    before = out.read_bytes()
    refused(capsys, "--resume", *arguments)
    assert run(capsys, *arguments, "--resume") == (code, printed, err)
    assert out.read_bytes() == before
    for broken in ("photo-05.jpg", "photo-22.jpg"):
        (folder / broken).unlink()
    assert run(capsys, *arguments, "--force", "--batch", "3", "--xmp")[0] == 0
    assert [json.loads(line)["error"] for line in out.read_text().splitlines()] == [None] * 28


def test_folders_in_the_folder(capsys, tiny_bundle, photos, tmp_path):
    inner = tmp_path / "photos" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.jpg").symlink_to(photos[0])
    arguments = ["caption", tmp_path / "photos", "--out", tmp_path / "a.csv", "--bundle", tiny_bundle.directory]
    refused(capsys, "no photos in", *arguments)
    assert run(capsys, *arguments, "--recursive")[0] == 0
    assert str(inner / "a.jpg") in (tmp_path / "a.csv").read_text()


def test_what_is_refused(capsys, tiny_bundle, folder, photos, tmp_path):  # noqa: F811
    out = tmp_path / "captions.jsonl"
    for match, arguments in (
        ("is a folder", [folder]),
        ("are for a folder", [photos[0], "--recursive"]),
        ("are for a folder", [photos[0], "--min-confidence", "0"]),
        ("one folder", [folder, folder, "--out", out]),
        ("goes without", [folder, "--out", out, "--json"]),
        ("no folder at", [photos[0], "--out", out]),
        (".jsonl, .csv", [folder, "--out", tmp_path / "captions.xls"]),
        ("not both", [folder, "--out", out, "--resume", "--force"]),
        ("--threads", [folder, "--out", out, "--threads", "0"]),
        ("--threads", [photos[0], "--threads", "-1"]),
    ):
        refused(capsys, match, "caption", *arguments, "--bundle", tiny_bundle.directory)
    assert not out.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of Unix")
def test_progress_is_shown_on_a_terminal(tiny_bundle, folder, tmp_path):  # noqa: F811
    ours, theirs = os.openpty()
    arguments = ["caption", folder, "--out", tmp_path / "a.jsonl", "--bundle", tiny_bundle.directory]
    code = f"import sys; from capexport.cli.main import main; sys.exit(main({[str(one) for one in arguments]!r}))"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait() == 1
    assert b"30/30" in shown
    assert b"photos/s, 2 failed" in shown
