"""Fetching one file over HTTP, whole or not at all."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from ..errors import DataError
from ..progress import track_bytes

TIMEOUT_SECONDS = 60


def download(url: str, folder: Path) -> Path:
    """Fetch url into folder under its own name, unless it is there already; raises DataError."""
    target = folder / Path(urllib.parse.urlparse(url).path).name
    if target.exists():
        return target
    partial = target.with_name(target.name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, partial.open("wb") as file:
            length = response.headers.get("Content-Length")
            with track_bytes(response, int(length) if length else None, target.name) as tracked:
                shutil.copyfileobj(tracked, file)
        if length and partial.stat().st_size != int(length):
            raise DataError(f"{url} ended early: {partial.stat().st_size} of {length} bytes; try again.")
        os.replace(partial, target)
    except (urllib.error.URLError, OSError) as error:
        raise DataError(f"{url} cannot be fetched: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return target
