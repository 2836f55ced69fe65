"""Files on disk, or in storage that pyarrow knows by a URI: S3 and the like. pyarrow is imported for a URI alone."""

from __future__ import annotations

import functools
import glob
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

from ..atomic import check_absent
from ..errors import DataError, ImageError, MissingExtraError, OutputError
from ..image import MOST_BYTES, Held
from ..plain import open_plain

DAY = 86_400.0
BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")  # schemes whose paths begin with a bucket
MOST_TEXT = 1 << 20  # bytes of a small file; what is longer is cut, and then no JSON


def is_uri(location: str) -> bool:
    """Whether it is in storage, as s3://bucket/photos/a.jpg, and no path."""
    return "://" in location


def join(folder: str, name: str) -> str:
    """The location of what has this name in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_uri(folder) else str(Path(folder) / name)


def name_of(location: str) -> str:
    """Its last part."""
    return location.rstrip("/").rpartition("/")[2] if is_uri(location) else Path(location).name


def read_whole(file: BinaryIO, name: str) -> bytes:
    """A photo's file; raises ImageError for more than MOST_BYTES."""
    body = file.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise ImageError(f"{name} is too large: more than {MOST_BYTES >> 20} MiB.")
    return body


@dataclass(frozen=True)
class Remote:
    """A photo in storage, read when it is asked for: see image.Readable."""

    name: str

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """Its bytes; raises OSError, ImageError for more than MOST_BYTES."""
        with open_input(self.name) as file:
            return read_whole(file, self.name)


Source = Path | Remote | Held  # of a photo; as a string it is the path of its row


def is_folder(location: str) -> bool:
    """Whether there is a folder; in storage without folders, whether names begin with it and a slash."""
    if not is_uri(location):
        return Path(location).is_dir()
    filesystem, path = _at(location)
    return bool(filesystem.get_file_info(path).type == _fs().FileType.Directory)


def size(location: str) -> int | None:
    """The size of a file in bytes; None if there is none."""
    if not is_uri(location):
        path = Path(location)
        return path.stat().st_size if path.is_file() else None
    filesystem, path_there = _at(location)
    info = filesystem.get_file_info(path_there)
    return info.size if info.is_file else None


def listing(folder: str) -> Iterator[tuple[str, bool]]:
    """The names in a folder of a URI, in no order, and whether each is a folder."""
    filesystem, path = _at(folder)
    for info in filesystem.get_file_info(_fs().FileSelector(path)):
        if info.base_name:
            yield info.base_name, info.type == _fs().FileType.Directory


@contextmanager
def open_input(location: str) -> Iterator[BinaryIO]:
    """The file, to be read from its beginning or anywhere; raises OSError, for a pipe or a device, too."""
    if is_uri(location):
        filesystem, path = _at(location)
        with filesystem.open_input_file(path) as file:
            yield file
    else:
        with open_plain(Path(location)) as opened:
            yield opened


def read_text(location: str) -> str:
    """A small file; raises OSError, ValueError if it is no UTF-8."""
    with open_input(location) as file:
        return file.read(MOST_TEXT).decode()


@contextmanager
def new_output(location: str, force: bool) -> Iterator[Path]:
    """Write to the yielded path; it becomes the file at the end, whole, or vanishes if anything is raised.

    Raises OutputError if there is such a file and force is not set, or if it cannot be written.
    """
    if not is_uri(location):
        with _new_local(Path(location), force) as partial:
            yield partial
        return
    if not force and size(location) is not None:
        raise OutputError(f"{location} exists already; choose another place, or pass --force to replace it.")
    with tempfile.TemporaryDirectory() as near:
        partial = Path(near) / "partial"
        yield partial
        filesystem, path = _at(location)
        try:
            with partial.open("rb") as whole, filesystem.open_output_stream(path) as there:  # appears when it is closed
                while chunk := whole.read(1 << 22):
                    there.write(chunk)
        except OSError as error:
            raise OutputError(f"{location} cannot be written: {error}.") from error


@contextmanager
def _new_local(target: Path, force: bool) -> Iterator[Path]:
    """As atomic.new_file, for several processes, of several machines even, that may write the same file at once."""
    check_absent(target, force)
    partial = target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for other in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
            if not _in_use(other):
                other.unlink(missing_ok=True)
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _in_use(partial: Path) -> bool:
    """Whether the process that writes it may be alive: of another machine's, whether it wrote within a day."""
    host, _, process = partial.name.removesuffix(".part").rpartition(".")
    try:
        if not host.endswith(f".{platform.node()}"):
            return time.time() - partial.stat().st_mtime < DAY
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:  # it is another user's, or it is gone
        return True
    return True


def remove(location: str) -> None:
    """Remove a file, if it is there."""
    if not is_uri(location):
        Path(location).unlink(missing_ok=True)
    elif size(location) is not None:
        filesystem, path = _at(location)
        filesystem.delete_file(path)


def _at(location: str) -> tuple[Any, str]:
    """The filesystem and the path in it. The URI is taken as it is: a `%` or `?` is one of the name's own.

    Raises DataError for a URI without a bucket, or of a kind that there is not.
    """
    scheme, _, path = location.partition("://")
    bucket = path.partition("/")[0]
    if not bucket and scheme in BUCKETS:
        raise DataError(f"{location[:80]} names no bucket: {scheme}://BUCKET/NAME is how it is written.")
    # Behind a `?` settings would follow, such as another server, which a row's path must not choose.
    if not bucket.isprintable() or set(bucket) & set("?#% "):
        raise DataError(f"{location[:80]} names no bucket: {bucket[:80]} is no name of one.")
    filesystem, root = _filesystem(scheme, bucket)
    return filesystem, path if root else f"/{path.lstrip('/')}"


@functools.lru_cache
def _filesystem(scheme: str, bucket: str) -> tuple[Any, bool]:
    """That of a scheme and bucket, and whether its paths begin with the bucket."""
    fs = _fs()
    try:
        filesystem, path = fs.FileSystem.from_uri(f"{scheme}://{bucket}{_endpoint(scheme)}")
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{scheme}://{bucket} cannot be reached: {error}.") from error
    return filesystem, path == bucket


def _endpoint(scheme: str) -> str:
    """What a URI says of a server other than Amazon's, which the variables of Amazon's own tools name."""
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme != "s3" or not address:
        return "" if scheme == "s3" else "/"
    parts = urlsplit(address)
    return "?" + urlencode({"scheme": parts.scheme, "endpoint_override": parts.netloc})


def _fs() -> Any:
    try:
        import pyarrow.fs
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    return pyarrow.fs
