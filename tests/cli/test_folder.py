"""capexport caption DIR --out FILE, as its user meets it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.batch.conftest import folder, write_tar  # noqa: F401
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
        ("is a folder or a shard", [folder]),
        ("is for a folder", [photos[0], "--recursive"]),
        ("is for a folder", [photos[0], "--min-confidence", "0"]),
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


def test_shards(capsys, tiny_bundle, folder, tmp_path):  # noqa: F811
    photos = sorted(folder.iterdir())
    for k in range(3):
        write_tar(tmp_path / "shards" / f"{k}.tar", photos[10 * k : 10 * k + 10])
    out, bundle = tmp_path / "out", ["--bundle", tiny_bundle.directory]
    shards = ["caption", tmp_path / "shards", "--out", out, *bundle]
    code, printed, err = run(capsys, *shards, "--shard", "0/2", "--format", ".csv")
    assert (code, printed) == (1, "")
    assert err == f"{out}: 2 shards, 20 photos, 2 of them could not be read\n"
    assert run(capsys, *shards, "--shard", "1/2", "--format", ".csv")[0] == 0
    names = [f"{k}{suffix}" for k in range(3) for suffix in (".csv", ".stats.json")]
    assert sorted(path.name for path in out.iterdir()) == names
    (tmp_path / "shards" / "3.tar").write_bytes(b"nonsense" * 200)
    code, printed, err = run(capsys, *shards, "--format", ".csv")
    assert (code, printed, err.count("\n")) == (1, "", 2)
    assert "3.tar is no whole tar file" in err
    assert "4 shards, 1 of them damaged, 30 photos" in err
    one = run(capsys, "caption", tmp_path / "shards" / "1.tar", "--out", tmp_path / "one.jsonl", *bundle)
    assert one == (0, "", f"{tmp_path / 'one.jsonl'}: 1 shards, 10 photos\n")
    for match, arguments in (
        ("is a folder or a shard", [tmp_path / "shards" / "1.tar"]),
        ("go to a folder", [tmp_path / "shards" / "0.tar", tmp_path / "shards" / "1.tar", "--out", "a.csv"]),
        ("not for shards", [tmp_path / "shards", "--out", out, "--xmp"]),
        ("I/N", [tmp_path / "shards", "--out", out, "--shard", "2/2"]),
        ("--cache is for", [tmp_path / "shards", "--out", out, "--cache", tmp_path / "cache"]),
        ("--near-copies needs", [folder, "--out", "a.csv", "--near-copies", "2"]),
        ("--workers is", [folder, "--out", "a.csv", "--workers", "2"]),
        ("--review saves into", [folder, "--out", "a.csv", "--review"]),
        ("--format is of shards", [folder, "--out", "a.csv", "--format", ".csv"]),
        ("no .jsonl of captions", None),
    ):
        refused(capsys, match, *(["caption", *arguments, *bundle] if arguments else ["review", tmp_path / "a.csv"]))


def test_copies(capsys, tiny_bundle, folder, tmp_path):  # noqa: F811
    (folder / "copy.jpg").write_bytes((folder / "photo-00.jpg").read_bytes())
    arguments = ["caption", folder, "--out", tmp_path / "a.jsonl", "--bundle", tiny_bundle.directory]
    assert run(capsys, *arguments, "--cache", tmp_path / "cache", "--near-copies", "1")[0] == 1
    rows = {row["path"]: row for row in map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())}
    assert rows[str(folder / "photo-00.jpg")]["copy_of"] == str(folder / "copy.jpg")


def test_review_until_ctrl_c(tiny_bundle, folder, tmp_path):  # noqa: F811
    """The address it prints answers; after Ctrl-C it says what was saved."""
    code = "import sys; from capexport.cli.main import main; sys.exit(main(sys.argv[1:]))"
    out, bundle = str(tmp_path / "captions.jsonl"), str(tiny_bundle.directory)
    command = [sys.executable, "-c", code, "caption", str(folder), "--out", out, "--bundle", bundle, "--review"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(address.replace("/?", "/rows?"), timeout=60) as answer:
            assert json.load(answer)["total"] == 30
        body = json.dumps({"number": 0, "state": "accepted"}).encode()
        urllib.request.urlopen(address.replace("/?", "/decide?"), body, timeout=60).close()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert f"{out}: 1 decisions saved" in err
    assert process.returncode == 1  # two photos are broken
    assert json.loads(Path(out).read_text().splitlines()[0])["review"] == "accepted"


def test_a_cache_that_is_the_captions_own_file(capsys, folder, tmp_path):  # noqa: F811
    same = ["--out", tmp_path / "a.jsonl", "--cache", tmp_path / "a.jsonl"]
    refused(capsys, "--cache and --out need a file each", "caption", folder, *same)
