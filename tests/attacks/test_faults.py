"""Broken machines: a full disk, an output that cannot be written, too little memory, photos that vanish, Ctrl-C."""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from PIL import Image

from capexport.batch.journal import Journal
from capexport.batch.run import Folder, caption_folder
from capexport.batch.sidecars import TEXT
from capexport.cli.main import main
from capexport.quiet import uninterrupted
from capexport.runtime.captioner import load
from capexport.runtime.options import DecodingOptions
from tests.batch.conftest import folder  # noqa: F401

COMMAND = [sys.executable, "-c", "import sys; from capexport.cli.main import main; sys.exit(main())"]


@contextmanager
def full_disk(size):
    """No file can be larger than so many bytes: to write more fails, as on a disk that is full (but with EFBIG).

    Python would keep what it could write of the bytecode of modules that are imported meanwhile.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(sys, "dont_write_bytecode", True)
        changed.setenv("PYTHONDONTWRITEBYTECODE", "1")
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def ends(arguments, capsys, match):
    """A command ends with exit code 2 and one line."""
    assert main([str(one) for one in arguments]) == 2
    err = capsys.readouterr().err
    assert match in err
    assert err.count("\n") == 1


def left(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_disk_that_is_full_while_a_folder_is_captioned(tiny_bundle, folder, tmp_path, capsys):  # noqa: F811
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    arguments = ["caption", folder, "--bundle", tiny_bundle.directory, "--threads", 1, "--batch", 4, "--out"]
    main([str(one) for one in (*arguments, whole)])
    capsys.readouterr()
    with full_disk(whole.stat().st_size // 2):
        ends([*arguments, out], capsys, "cannot be written")
    assert 0 < out.stat().st_size < whole.stat().st_size
    main([str(one) for one in (*arguments, out, "--resume")])
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("size", [0, 9_000, 30_000])
def test_a_disk_that_is_full_while_a_cache_is_written(size, tiny_bundle, folder, tmp_path, capsys):  # noqa: F811
    arguments = ["caption", folder, "--bundle", tiny_bundle.directory, "--threads", 1, "--batch", 4]
    with full_disk(size):
        ends([*arguments, "--out", tmp_path / "out.jsonl", "--cache", tmp_path / "cache"], capsys, "cannot be")


@pytest.mark.parametrize("error", [TypeError("odd"), struct.error("odd"), RecursionError("odd")])
def test_a_photo_that_its_decoder_trips_over(error, tiny_bundle, photos, tmp_path, monkeypatch, capsys):
    """The others on the command line are captioned all the same."""
    bad, opened = tmp_path / "bad.png", Image.open
    bad.write_bytes(b"bad")

    def open_but_bad(file, *arguments, **fields):
        if file.read(3) == b"bad":
            raise error
        file.seek(0)
        return opened(file, *arguments, **fields)

    monkeypatch.setattr(Image, "open", open_but_bad)
    assert main(["caption", str(bad), str(photos[0]), "--bundle", str(tiny_bundle.directory)]) == 2
    out, err = capsys.readouterr()
    assert (out.count("\n"), out.startswith(f"{photos[0]}: ")) == (1, True)
    assert (err.count("\n"), "bad.png cannot be read" in err) == (1, True)


def test_a_disk_that_is_full_when_the_table_is_written(tiny_bundle, folder, tmp_path, capsys):  # noqa: F811
    arguments = ["caption", folder, "--bundle", tiny_bundle.directory, "--out", tmp_path / "out.csv"]
    main([str(one) for one in arguments])
    capsys.readouterr()
    whole = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()
    with full_disk(len(whole) - 1000):
        ends(arguments, capsys, "cannot be written")
    assert main([str(one) for one in (*arguments, "--resume")]) == 1  # two photos are broken
    assert (tmp_path / "out.csv").read_bytes() == whole
    assert left(tmp_path) == ["out.csv", "photos"]


@pytest.mark.parametrize("size", [3000, 100_000])
def test_a_disk_that_is_full_while_a_bundle_is_written(size, tiny_source, tmp_path, capsys):
    with full_disk(size):
        ends(["convert", tiny_source, "--out", tmp_path / "bundle"], capsys, "")
    assert left(tmp_path) == []


def test_an_output_that_cannot_be_printed(tiny_bundle, photos):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [*COMMAND, "caption", str(photos[0]), "--bundle", str(tiny_bundle.directory)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "capexport: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "bundle"])
def test_an_output_that_is_read_only(name, tiny_bundle, tiny_source, folder, capsys):  # noqa: F811
    """/sys is no place for files, whoever one is."""
    out = f"/sys/{name}"
    if name == "bundle":
        ends(["convert", tiny_source, "--out", out], capsys, "cannot be written")
    else:
        ends(["caption", folder, "--bundle", tiny_bundle.directory, "--out", out], capsys, "cannot be written")


def test_too_little_memory(tiny_bundle, photos):
    """To load the engine, or the graphs: one line, or the words. In between, native code may end the process itself."""
    outcomes = {megabytes: _captioned_within(megabytes, tiny_bundle, photos[0]) for megabytes in range(150, 225, 10)}
    for code, words, said in outcomes.values():
        assert code in (0, 2, -signal.SIGABRT)
        assert (words == "") == (code != 0)
        assert "Traceback" not in said
        assert code != 2 or said.splitlines()[-1].startswith("capexport: ")  # before it, libraries may say theirs
    codes = [code for code, _, _ in outcomes.values()]
    assert codes.count(2) > codes.count(-signal.SIGABRT)


def _captioned_within(megabytes, bundle, photo):
    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20, megabytes * 2**20))

    command = [*COMMAND, "caption", str(photo), "--bundle", str(bundle.directory), "--threads", "1"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited, env=environment)
    return done.returncode, done.stdout, done.stderr


def test_no_memory_left(monkeypatch, tiny_bundle, photos, capsys):
    def none_left(*_, **__):
        raise MemoryError

    monkeypatch.setattr("capexport.runtime.captioner.load_image", none_left)
    ends(["caption", photos[0], "--bundle", tiny_bundle.directory], capsys, "not enough memory")


def test_photos_that_vanish_in_mid_run(tiny_bundle, folder, tmp_path):  # noqa: F811
    captioner = load(tiny_bundle, threads=1)
    what = Folder(folder, tmp_path / "out.jsonl", batch=2, sidecars=(TEXT,))

    def steal(tally):
        if tally.photos == 2:
            for k in (27, 28, 29):
                (folder / f"photo-{k}.jpg").unlink(missing_ok=True)

    tally = caption_folder(captioner, what, DecodingOptions(), steal)
    assert (tally.photos, tally.failed) == (30, 5)
    rows = [json.loads(line) for line in what.out.read_text().splitlines()]
    assert [row["error"].startswith("There is no photo at") for row in rows[27:]] == [True] * 3


def test_ctrl_c_between_the_first_sidecars_and_their_rows(tiny_bundle, folder, tmp_path, monkeypatch):  # noqa: F811
    """There is no row, but the sidecars are known to be the run's."""
    what = Folder(folder, tmp_path / "out.csv", batch=4, sidecars=(TEXT,), resume=True)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Journal, "append", interrupted)
        caption_folder(load(tiny_bundle, threads=1), what, DecodingOptions())
    assert list(folder.glob("*.txt"))
    assert caption_folder(load(tiny_bundle, threads=1), what, DecodingOptions()).photos == 30
    assert [path.name for path in tmp_path.glob("out*")] == ["out.csv"]


def test_ctrl_c_while_a_folder_is_captioned(tiny_bundle, folder, tmp_path):  # noqa: F811
    for k in range(3000):  # more than it captions until it is interrupted
        (folder / f"more-{k:04d}.jpg").symlink_to(folder / "photo-00.jpg")
    out = tmp_path / "out.jsonl"
    command = [*COMMAND, "caption", str(folder), "--bundle", str(tiny_bundle.directory), "--out", str(out), "--xmp"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (out.exists() and out.stat().st_size > 1000):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "capexport: interrupted.\n")
    assert all(json.loads(line)["path"] for line in out.read_text().splitlines())
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_ctrl_c_waits_until_an_engine_is_loaded():
    done = []

    def load_it():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("loaded")

    with pytest.raises(KeyboardInterrupt):
        load_it()
    assert done == ["loaded"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: uninterrupted().__enter__()).result()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
