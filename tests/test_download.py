"""Fetching from a real server: what comes, what is refused, what is tried again."""

import functools
import socket
import threading
import time

import pytest

import capexport.download
from capexport.download import download, is_url
from capexport.errors import DownloadError
from tests.web import hangs_up, in_turn, redirects, sends, trickles, waits

fetch = functools.partial(capexport.download.fetch, private=True)  # the server is on loopback
BODY = bytes(range(256)) * 40


def refused(reason, url, **options):
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch(url, **options)
    assert str(caught.value).startswith(f"{url} cannot be fetched: ")
    return caught.value


def test_what_is_there(web):
    web.answers["/a"] = sends(BODY)
    web.answers["/moved"] = redirects("/a")
    assert fetch(web.url("/a")) == fetch(web.url("/moved")) == BODY
    web.answers["/caf%C3%A9%20x.jpg"] = sends(b"coffee")
    assert fetch(web.url("/café x.jpg")) == fetch(web.url("/caf%C3%A9%20x.jpg")) == b"coffee"


def test_a_body_of_unknown_length(web):
    web.answers["/a"] = trickles(b"slow but sure", 0)
    assert fetch(web.url("/a")) == b"slow but sure"


@pytest.mark.parametrize(
    ("first", "reason"),
    [(sends(b"", 500), "HTTP 500"), (hangs_up, "closed connection"), (sends(BODY, length=99_999), "cut off")],
)
def test_what_may_pass_is_tried_again(web, first, reason):
    web.answers["/passes"] = in_turn(first, sends(BODY))
    web.answers["/stays"] = first
    assert fetch(web.url("/passes")) == BODY
    assert refused(reason, web.url("/stays"), retries=1).transient
    assert web.requests == {"/passes": 2, "/stays": 2}


def test_what_will_not_pass_is_asked_once(web):
    web.answers["/secret"] = sends(b"", 403)
    for path, reason in (("/none", "HTTP 404"), ("/secret", "HTTP 403")):
        assert not refused(reason, web.url(path)).transient
    assert web.requests == {"/none": 1, "/secret": 1}


def test_a_host_that_lets_one_wait(web):
    web.answers["/silent"] = waits(2, sends(BODY))
    web.answers["/trickle"] = trickles(BODY, 0.02)
    for path in ("/silent", "/trickle"):
        started = time.monotonic()
        assert refused("took too long", web.url(path), timeout=0.3, retries=0).transient
        assert time.monotonic() - started < 1.5


def test_more_than_the_limit(web):
    web.answers["/claims"] = sends(b"x", length=10**12)
    web.answers["/endless"] = trickles(BODY, 0)
    web.answers["/exact"] = sends(BODY)
    for path in ("/claims", "/endless"):
        assert not refused("larger than 0.005 MB", web.url(path), limit=5000).transient
    assert fetch(web.url("/exact"), limit=len(BODY)) == BODY


def test_nothing_but_http(web, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("local")
    for url in (secret.as_uri(), "ftp://127.0.0.1/a", "data:,hello", "photo.jpg", "", "http://", "http://[::1/a"):
        assert not refused("not an address of http", url).transient
    for target in (secret.as_uri(), "ftp://127.0.0.1/a", "data:,hello"):
        web.answers["/away"] = redirects(target)
        refused("HTTP 302|not an address of http", web.url("/away"))


def test_a_circle_of_redirects(web):
    web.answers["/round"] = redirects("/round")
    refused("HTTP 302", web.url("/round"))
    assert web.requests["/round"] < 20


def test_hosts_that_are_not_there():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert refused("refused", f"http://127.0.0.1:{port}/a", retries=0).transient
    refused("host is not known", "http://no-such-host.invalid/a", retries=0)


def test_what_does_not_speak_http():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"://127.0.0.1:{server.getsockname()[1]}/a"

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-hello\r\n\r\n")

        for scheme, reason in (("http", "not HTTP"), ("https", "certificate or encryption")):
            thread = threading.Thread(target=answer)
            thread.start()
            assert not refused(reason, scheme + url).transient
            thread.join()


def test_a_download_is_whole_or_not_there(web, tmp_path):
    web.answers["/data/set.zip"] = in_turn(sends(BODY, length=99_999), sends(BODY))
    with pytest.raises(DownloadError, match=r"set\.zip cannot be fetched: the answer was cut off"):
        download(web.url("/data/set.zip"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        assert download(web.url("/data/set.zip"), tmp_path).read_bytes() == BODY
    assert web.requests["/data/set.zip"] == 2


def test_addresses_and_files_are_told_apart():
    assert is_url("HTTPS://example.org/a")
    assert not any(map(is_url, ("photo.jpg", "/http/photo.jpg", "http.jpg", "ftp://example.org/a", "")))
