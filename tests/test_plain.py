"""Files that others made, and values in messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capexport.plain import open_plain, quoted, read_plain, shortened

WHOLE = 1000


@pytest.mark.parametrize("size", [0, 1, WHOLE - 1, WHOLE, WHOLE + 1, 100 * WHOLE])
@pytest.mark.parametrize("whole", [0, WHOLE])
def test_a_file_is_the_same_however_it_is_read(tmp_path: Path, size: int, whole: int) -> None:
    path, body = tmp_path / "file", os.urandom(size)
    path.write_bytes(body)
    with open_plain(path, whole=whole) as file:
        assert file.seek(0, os.SEEK_END) == size
        file.seek(0)
        assert file.read() == body


def test_a_small_file_is_read_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with open_plain(path, whole=WHOLE) as file:
        path.write_bytes(b"after!")
        assert file.read() == b"before"


def test_a_file_that_reads_come_short_of_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, body, read = tmp_path / "file", os.urandom(WHOLE), os.read
    path.write_bytes(body)
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 7)))
    with open_plain(path, whole=WHOLE) as file:
        assert file.read() == body


@pytest.mark.parametrize("whole", [0, WHOLE])
def test_what_is_no_plain_file_is_refused_at_once_and_closed(tmp_path: Path, whole: int) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    (tmp_path / "file").write_bytes(b"body")
    link.symlink_to("file")
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(OSError, match="not a plain file"), open_plain(pipe, whole=whole):
        pass
    with pytest.raises(OSError), open_plain(link, links=False, whole=whole):
        pass
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    with open_plain(link, whole=whole) as file:
        assert file.read() == b"body"


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_plain(path, 10) == b"x" * 10
    with pytest.raises(OSError, match="larger than 9 bytes"):
        read_plain(path, 9)


def test_a_file_without_a_size_is_read_to_the_bound() -> None:
    assert b"python" in read_plain(Path("/proc/self/cmdline"), 10_000)
    with pytest.raises(OSError, match="larger than 3 bytes"):
        read_plain(Path("/proc/self/cmdline"), 3)


def test_values_in_messages_stay_short() -> None:
    assert quoted("a" * 100, 5) == "'aaaaa' and so on"
    assert quoted(["a"]) == "a list"
    assert shortened("a" * 100, 5) == "aaaaa and so on"
