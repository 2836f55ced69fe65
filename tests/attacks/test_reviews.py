"""Reviews: what is asked of the server by anyone, and files of captions and decisions that others wrote."""

import io
import json
import os
import socket
import struct
import tarfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import capexport
from capexport import DecodingOptions, OutputError
from capexport.batch.shard_run import Shards, caption_shards
from capexport.batch.sidecars import TEXT, XMP
from capexport.review.captions import EDITED, open_captions
from tests.batch.conftest import folder  # noqa: F401
from tests.review.conftest import captioned, captions, server  # noqa: F401


@pytest.fixture
def send(server):  # noqa: F811
    """Send bytes, and read what comes; {host} and {key} are put in."""

    def sent(request, body=b""):
        request = request.replace("{key}", server.key)
        head = f"{request} HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
            connection.sendall(head.encode("latin-1") + body)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        return answer.partition(b"\r\n")[0].split(b" ")[1].decode()

    return sent


def test_addresses_that_are_none(send, capfd):
    for address in ("http://[", "//[", "http://a\u00e2\u0084\u0080b/", "/\xff?key=\xff"):
        assert send(f"GET {address}") == "403"
    assert send("GET http://[/?key={key}") == "403"
    assert capfd.readouterr().err == ""


def test_clients_that_go_away(server, capfd):  # noqa: F811
    host = f"Host: 127.0.0.1:{server.server_port}\r\n"
    decision = f"POST /decide?key={server.key} HTTP/1.1\r\n{host}Content-Length: 500\r\n\r\n{{"
    for request in (f"GET /thumbnail?number=0&key={server.key} HTTP/1.1\r\n{host}\r\n", "GET /", decision):
        for _ in range(3):
            connection = socket.create_connection(("127.0.0.1", server.server_port))
            connection.sendall(request.encode())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()  # with a reset
    time.sleep(0.3)
    assert capfd.readouterr().err == ""


DECISIONS = (
    '{"number": 1e999, "state": "accepted"}',
    '{"number": NaN, "state": "accepted"}',
    '{"number": 0.5, "state": "accepted"}',
    '{"number": true, "state": "accepted"}',
    '{"number": "0", "state": "accepted"}',
    '{"number": 0, "state": []}',
    '{"number": 0, "state": "edited", "text": 5}',
    '{"number": 0, "state": "edited", "text": "\\ud800"}',
    '{"number": 0, "state": "edited", "text": "\\u0000\\u001b"}',
    "[" * 60_000,
    '{"number":' * 6_000,
    '{"number": ' + "1" * 5000 + "}",
)


@pytest.mark.parametrize("body", DECISIONS)
def test_decisions_that_are_none(body, send, server, capfd):  # noqa: F811
    assert send("POST /decide?key={key}", body.encode()) == "400"
    assert server.captions.counts()["open"] == 28
    assert capfd.readouterr().err == ""


def test_what_is_asked_of_rows(send, capfd):
    for query in ("number=-1", "number=1e9", "number=" + "9" * 20, "number=" + "1" * 5000, "", "number=%00"):
        assert send(f"GET /thumbnail?{query}&key={{key}}") == "400"
    assert capfd.readouterr().err == ""


def test_a_reviewer_s_control_characters(captioned, folder):  # noqa: F811
    with open_captions(captioned, (TEXT, XMP)) as opened:
        opened.decide(0, EDITED, "a\x1b[2J\x00b\x85")
        opened.decide(1, EDITED, "a \ufffe dog")
    assert json.loads(captioned.read_text().splitlines()[0])["text"] == "a [2J b"
    assert (folder / "photo-00.jpg.txt").read_text() == "a [2J b\n"
    for name in ("photo-00.xmp", "photo-01.xmp"):
        ET.parse(folder / name)


ROWS = {
    "a log-probability": {"log_probabilities": [1e5]},
    "a log-probability without bound": {"log_probabilities": [10**400]},
    "a confidence without bound": {"confidence": 10**400},
    "a confidence that is none": {"confidence": float("nan")},
    "a path that no file has": {"path": "\ud800"},
    "a text that no file holds": {"text": "\ud800"},
}


def changed(captioned, fields):  # noqa: F811
    rows = [json.loads(line) for line in captioned.read_text().splitlines()]
    captioned.write_text("".join(json.dumps(row) + "\n" for row in ({**rows[0], **fields}, *rows[1:])))


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_are_none(name, captioned):  # noqa: F811
    changed(captioned, ROWS[name])
    with pytest.raises(OutputError, match=r"Line 1 of .* is no row"), open_captions(captioned):
        pass


@pytest.fixture(
    params=["x" * 5000, "a\0b", "gone.tar/x.jpg", "gone.parquet/0", "zz://x/y", "s3:///x", "pipe.tar/x.jpg"]
)
def path(request, captioned, monkeypatch):  # noqa: F811
    """A path that cannot be opened, of the first row."""
    monkeypatch.chdir(captioned.parent)
    os.mkfifo("pipe.tar")
    changed(captioned, {"path": request.param, "review": []})
    return request.param


def test_paths_that_cannot_be_opened(path, send, server, capfd):  # noqa: F811
    assert server.captions.row(0)["path"] == path
    assert send("GET /rows?key={key}") == "200"
    assert send("GET /thumbnail?number=0&key={key}") in ("400", "404")
    assert send("POST /decide?key={key}", b'{"number": 0, "state": "accepted"}') == "200"
    assert server.captions.save((TEXT, XMP)) == 1
    assert capfd.readouterr().err == ""


SAVED = (
    "junk",
    "[]",
    "{}",
    "5",
    "[" * 100_000,
    {"number": -1},
    {"number": 0.5},
    {"number": True},
    {"number": "0"},
    {"number": 99},
    {"path": 1},
    {"path": "other.jpg"},
    {"text": 5},
    {"text": "\ud800"},
    {"review": "nonsense"},
    {"review": "unreadable"},
    {"review": []},
    {"words": None},
    {"error": 5},
)


@pytest.mark.parametrize("line", SAVED)
def test_saved_decisions_that_are_none(line, captioned):  # noqa: F811
    row, before = json.loads(captioned.read_text().splitlines()[0]), captioned.read_bytes()
    whole = {"number": 0, "path": row["path"], "text": "a dog", "review": "edited"}
    saved = Path(f"{captioned}.review.jsonl")
    text = line if isinstance(line, str) else json.dumps({**whole, **line})
    saved.write_text(f"{json.dumps(whole)}\n{text}\n")
    with pytest.raises(OutputError, match=r"is no decision|of other captions"), open_captions(captioned):
        pass
    assert captioned.read_bytes() == before
    saved.write_text(f"{json.dumps(whole)}\nmy letter")
    with pytest.raises(OutputError, match="mend or remove"), open_captions(captioned):
        pass
    assert saved.read_text().endswith("my letter")


def test_saved_decisions_in_a_pipe(captioned):  # noqa: F811
    os.mkfifo(f"{captioned}.review.jsonl")
    with pytest.raises(OutputError, match="no plain file"), open_captions(captioned):
        pass


def test_a_shard_that_names_a_photo_elsewhere(tiny_bundle, photos, tmp_path):
    """Nothing is written beside it when its caption is changed."""
    mine = tmp_path / "mine.jpg"
    mine.write_bytes(photos[0].read_bytes())
    for name in (str(mine), "../mine.jpg"):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            info = tarfile.TarInfo(name)
            info.size = mine.stat().st_size
            tar.addfile(info, io.BytesIO(mine.read_bytes()))
        out = tmp_path / "out.jsonl"
        what = Shards((str(tmp_path / "a.tar"),), str(out), force=True)
        caption_shards(capexport.load(tiny_bundle), what, DecodingOptions())
        assert json.loads(out.read_text())["path"].startswith(f"{tmp_path}/a.tar/")
        with open_captions(out, (TEXT, XMP)) as opened:
            opened.decide(0, EDITED, "evil")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.jpg", "a.tar", "out.jsonl", "out.stats.json"}
