"""Fetching over HTTP: a file, whole or not at all, or a photo's bytes, within bounds."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .atomic import new_file
from .errors import DownloadError
from .reach import PrivateHostError, Reach, as_named, opener

ARCHIVE_TIMEOUT = 60.0  # seconds without a byte
PHOTO_TIMEOUT = 20.0  # seconds for all tries
PHOTO_LIMIT = 20_000_000  # bytes
PHOTO_RETRIES = 2
FIRST_PAUSE = 0.5  # seconds, doubled before each further try
CHUNK = 65_536  # bytes
CUT_OFF = "the answer was cut off"
NO_ADDRESS = "it is not an address of http or https"


def is_url(text: str) -> bool:
    """Whether the text names something to fetch rather than a file."""
    return text.lower().startswith(("http://", "https://"))


def download(url: str, folder: Path) -> Path:
    """Fetch url into folder under its own name, unless it is there already; raises DownloadError.

    The user has named it: it may be on a private network, and take as long as it takes while bytes come.
    """
    from .progress import track_bytes  # here alone: what fetches photos has no progress to show, and needs no rich

    target = folder / Path(urllib.parse.urlparse(url).path).name
    if target.exists():
        return target
    with (
        new_file(target, tidy=True) as partial,
        _opened(url, ARCHIVE_TIMEOUT, as_named(url)) as response,
        partial.open("wb") as file,
    ):
        length = response.length
        with track_bytes(response, length, target.name) as tracked:
            shutil.copyfileobj(tracked, file)
        _check_whole(file.tell(), length)
    return target


def fetch(
    url: str,
    limit: int = PHOTO_LIMIT,
    timeout: float = PHOTO_TIMEOUT,
    retries: int = PHOTO_RETRIES,
    private: bool = False,
) -> bytes:
    """What is at an address of http or https, redirects followed.

    limit    bytes; more are refused
    timeout  seconds in all, from the first connection of the first try to the last byte of the last
    retries  further tries, after longer and longer pauses, where the failure may pass and time is left: an error of
             the server (5xx), a broken connection
    private  take hosts of this machine and of private networks, too; whoever chose the address need not be the one who
             may ask those

    Raises DownloadError.
    """
    reach = Reach(private, time.monotonic() + timeout)
    for pause in (FIRST_PAUSE * 2**k for k in range(retries)):
        try:
            return _body(url, limit, timeout, reach)
        except DownloadError as error:
            if not error.transient or reach.over(pause):
                raise
        time.sleep(pause)
    return _body(url, limit, timeout, reach)


def _body(url: str, limit: int, timeout: float, reach: Reach) -> bytes:
    body = bytearray()
    with _opened(url, timeout, reach) as response:
        length = response.length
        while chunk := response.read1(CHUNK):
            body += chunk
            if max(len(body), length or 0) > limit:
                raise DownloadError(url, f"it is larger than {limit / 1e6:g} MB")
        _check_whole(len(body), length)
    return bytes(body)


@contextmanager
def _opened(url: str, timeout: float, reach: Reach) -> Iterator[http.client.HTTPResponse]:
    """The answer, open for reading; whatever goes wrong until it is closed becomes a DownloadError."""
    try:
        quoted = urllib.parse.quote(url, safe=string.punctuation)
        request = urllib.request.Request(quoted, headers={"User-Agent": "capexport"})
        with opener(reach).open(request, timeout=timeout) as response:
            yield response
    except urllib.error.HTTPError as error:
        raise DownloadError(url, f"HTTP {error.code}", transient=error.code >= 500) from error
    except urllib.error.URLError as error:
        raise _failure(url, error.reason) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _failure(url, error) from error


def _failure(url: str, cause: object) -> DownloadError:
    """The error in a few words that are the same for all failures of a kind, so that they can be counted."""
    match cause:
        case TimeoutError():
            return DownloadError(url, "it took too long", transient=True)
        case PrivateHostError():
            return DownloadError(url, str(cause))
        case http.client.IncompleteRead():
            return DownloadError(url, CUT_OFF, transient=True)
        case ssl.SSLError():
            return DownloadError(url, "its certificate or encryption is not accepted")
        case socket.gaierror():
            return DownloadError(url, "its host is not known", transient=cause.errno == socket.EAI_AGAIN)
        case OSError():
            return DownloadError(url, cause.strerror or str(cause), transient=True)
        case http.client.InvalidURL() | ValueError() | str():
            return DownloadError(url, NO_ADDRESS)
    return DownloadError(url, "the answer is not HTTP")


def _check_whole(received: int, length: int | None) -> None:
    if length is not None and received < length:
        raise ConnectionError(CUT_OFF)
