"""Addresses of photos that lead to this machine, to its network or to no end."""

import re
import socket
import time

import pytest

from capexport import DataError
from capexport.cli.main import main
from capexport.datasets import load_dataset
from capexport.download import download, fetch
from capexport.errors import DownloadError
from capexport.reach import Reach, as_named, is_public
from tests.web import jpeg, redirects, sends, trickles


def refused(match, url, **options):
    with pytest.raises(DownloadError, match=match) as caught:
        fetch(url, retries=0, **options)
    return caught.value


def slowly(lines, pause):
    """A server's headers, one small piece at a time."""

    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(lines):
            handler.wfile.write(b"X-Wait: a little\r\n")
            time.sleep(pause)
        handler.wfile.write(b"\r\nbody")

    return answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]"])
def test_this_machine_by_any_name(web, host):
    web.answers["/a"] = sends(b"secret")
    assert not refused("this machine or a private network|not known", f"http://{host}:{web.server_port}/a").transient
    assert not web.requests
    assert fetch(web.url("/a"), private=True) == b"secret"


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
        *("255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1"),
        *("::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "64:ff9b::a9fe:a9fe", "::127.0.0.1"),
        *("::169.254.169.254", "::10.0.0.1", "fec0::1", "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "200::1"),
        *("4000::1", "fe00::1", "5f00::", "3fff::1", "2001:db8::1", "2001:0:7f00:1::", "2002:808:808::1"),
    ],
)
def test_addresses_that_are_not_anybodys(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_addresses_that_are(address):
    assert is_public(address)


def test_a_name_that_leads_to_this_machine(web, monkeypatch):
    """As of a DNS entry that its owner has pointed there, at the first question or at the second."""
    here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", web.server_port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [here])
    web.answers["/a"] = sends(b"secret")
    refused("private network", f"http://photos.example:{web.server_port}/a")
    assert not web.requests


def test_a_redirect_from_a_public_host(web, monkeypatch):
    """The first host passes for a public one; the one that it leads to does not."""
    web.answers["/public"] = redirects(f"http://localhost:{web.server_port}/secret")
    web.answers["/secret"] = sends(b"secret")
    known, real = [], is_public
    monkeypatch.setattr("capexport.reach.is_public", lambda address: bool(not known and not known.append(address)))
    refused("private network", web.url("/public"))
    assert web.requests == {"/public": 1}
    assert not real("127.0.0.1")


def test_what_the_user_has_named_may_be_on_a_private_network(web, tmp_path):
    web.answers["/set.zip"] = sends(b"archive")
    assert download(web.url("/set.zip"), tmp_path).read_bytes() == b"archive"
    assert as_named(web.url("/")).private
    assert not as_named("http://8.8.8.8/").private
    assert not as_named("http://[").private


def test_a_list_of_photos_on_private_hosts(web, tmp_path):
    web.answers["/1.jpg"] = sends(jpeg(1))
    (tmp_path / "Train_GCC-training.tsv").write_text(f"a photo\t{web.url('/1.jpg')}\n")
    with pytest.raises(DataError, match="private network"):
        load_dataset("conceptual-captions", tmp_path, "train")
    assert not web.requests


def test_the_command_asks_first(web, tiny_bundle, capsys):
    web.answers["/1.jpg"] = sends(jpeg(1))
    arguments = ["caption", web.url("/1.jpg"), "--bundle", str(tiny_bundle.directory)]
    assert main(arguments) == 2
    assert "--private-hosts allows that" in capsys.readouterr().err
    assert main([*arguments, "--private-hosts"]) == 0


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:,x", "gopher://127.0.0.1/"])
def test_schemes(url, tiny_bundle, capsys):
    refused("not an address of http", url, private=True)
    assert main(["caption", url, "--bundle", str(tiny_bundle.directory)]) == 2
    assert re.search("There is no photo|name the file for its captions", capsys.readouterr().err)


def test_headers_and_bodies_in_drops(web):
    web.answers["/headers"] = slowly(80, 0.1)
    web.answers["/body"] = trickles(b"x" * 1000, 0.1)
    for path in ("/headers", "/body"):
        started = time.monotonic()
        assert refused("took too long", web.url(path), timeout=0.5, private=True).transient
        assert time.monotonic() - started < 5


def test_headers_without_end(web):
    web.answers["/many"] = slowly(5000, 0)
    refused("not HTTP", web.url("/many"), private=True)


def test_a_body_without_end(web):
    web.answers["/endless"] = trickles(b"x" * 100_000, 0)
    refused("larger than", web.url("/endless"), private=True, limit=1000)


def test_a_redirect_with_a_body_without_end(web):
    sent = []

    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", "/photo")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(bytes(2**20))
            sent.append(2**20)

    web.answers["/away"] = answer
    web.answers["/photo"] = sends(b"photo")
    assert fetch(web.url("/away"), private=True, limit=1000) == b"photo"
    assert sum(sent) < 50 * 2**20  # what fits between the two


def test_all_tries_together_have_the_time_of_one(web):
    web.answers["/drops"] = slowly(80, 0.1)
    started = time.monotonic()
    with pytest.raises(DownloadError, match="took too long"):
        fetch(web.url("/drops"), private=True, timeout=0.6)
    assert time.monotonic() - started < 1.5
    assert web.requests == {"/drops": 1}
    web.answers["/broken"] = sends(b"", 500)
    started = time.monotonic()
    with pytest.raises(DownloadError, match="HTTP 500"):
        fetch(web.url("/broken"), private=True, timeout=0.4)
    assert time.monotonic() - started < 0.4


def test_a_deadline_that_is_over():
    with pytest.raises(TimeoutError):
        Reach(private=True, deadline=time.monotonic() - 1).left(5)
    assert Reach(private=True).left(5) == 5
