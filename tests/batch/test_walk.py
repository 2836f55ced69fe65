import os

import pytest

from capexport import ImageError
from capexport.batch.walk import photos_under


def names(folder, recursive=False):
    return [str(photo.relative_to(folder)) for photo in photos_under(folder, recursive)]


def test_photos_come_by_name_and_folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "z/c.webp", "z/a/d.gif", "y/e.jpeg", "notes.txt", ".hidden.jpg", ".thumbs/f.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["a.PNG", "b.jpg"]
    assert names(tmp_path, recursive=True) == ["a.PNG", "b.jpg", "y/e.jpeg", "z/c.webp", "z/a/d.gif"]


def test_what_is_no_file_is_left_out_and_a_link_to_nothing_is_not(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "folder.jpg").mkdir()
    os.mkfifo(inside / "pipe.jpg")
    (inside / "loop").symlink_to(inside)
    (tmp_path / "photo").touch()
    (inside / "link.jpg").symlink_to(tmp_path / "photo")
    (inside / "gone.jpg").symlink_to(tmp_path / "gone")
    assert names(inside, recursive=True) == ["gone.jpg", "link.jpg"]


def test_no_folder(tmp_path):
    with pytest.raises(ImageError, match="no folder at"):
        photos_under(tmp_path / "none")
