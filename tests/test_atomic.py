"""Outputs appear whole or not at all."""

import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from capexport import OutputError
from capexport.atomic import clear_partials, new_directory, new_file


def test_a_directory_appears_at_the_end(tmp_path):
    with new_directory(tmp_path / "deep/out", mark="m") as partial:
        (partial / "m").write_text("x")
        assert not (tmp_path / "deep/out").exists()
    assert (tmp_path / "deep/out/m").read_text() == "x"


def test_a_files_folder_is_made(tmp_path):
    with new_file(tmp_path / "deep/file", tidy=True) as partial:
        partial.write_text("x")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_nothing_is_left_after_an_error(tmp_path, error):
    with pytest.raises((ValueError, KeyboardInterrupt, OutputError)), new_directory(tmp_path / "out", "m") as partial:
        (partial / "m").write_text("x")
        raise error
    with pytest.raises((ValueError, KeyboardInterrupt, OutputError)), new_file(tmp_path / "file") as partial:
        partial.write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_threads_that_write_the_same_file(tmp_path):
    def write(text):
        with new_file(tmp_path / "file", tidy=True) as partial:
            partial.write_text(str(text) * 10_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [1, 2, 3, 4] * 25))
    assert (tmp_path / "file").read_text() in {digit * 10_000 for digit in "1234"}
    assert len(list(tmp_path.iterdir())) == 1


def test_force_replaces_ours_and_nothing_else(tmp_path):
    target = tmp_path / "out"
    for text in ("old", "new"):
        with new_directory(target, mark="m", force=True) as partial:
            (partial / "m").write_text(text)
    assert (target / "m").read_text() == "new"
    (target / "m").unlink()
    with pytest.raises(OutputError, match="has no m"), new_directory(target, mark="m", force=True):
        pass


def test_what_is_replaced_is_there_until_the_new_is(tmp_path):
    target = tmp_path / "out"
    with new_directory(target, mark="m") as partial:
        (partial / "m").write_text("old")
    with pytest.raises(ValueError, match="stop"), new_directory(target, mark="m", force=True) as partial:
        (partial / "m").write_text("new")
        assert (target / "m").read_text() == "old"
        raise ValueError("stop")
    assert (target / "m").read_text() == "old"


def test_what_came_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(OutputError, match="exists already"), new_directory(target, mark="m"):
        target.mkdir()
    assert list(target.iterdir()) == []


def test_what_a_running_process_writes_stays(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        theirs, dead = (tmp_path / f".out.{number}.part" for number in (f"{process.pid}-3", 2**22 + 1))
        theirs.touch()
        dead.touch()
        clear_partials(tmp_path)
        assert [theirs.exists(), dead.exists()] == [True, False]
        process.communicate(b"\n")
    clear_partials(tmp_path)
    assert not theirs.exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), new_directory(tmp_path / "file/out", mark="m"):
        pass
