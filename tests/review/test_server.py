"""What the review's server answers, and to whom."""

import http.client
import io
import json

import pytest
from PIL import Image


@pytest.fixture
def ask(server):
    def asked(method, path, body=None, key=None, host=None):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        sign = "&" if "?" in path else "?"
        headers = {"Host": host} if host else {}
        connection.request(method, f"{path}{sign}key={server.key if key is None else key}", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if "json" in answer.getheader("Content-Type") else content

    return asked


def test_without_the_key_there_is_nothing(ask, server):
    decision = json.dumps({"number": 0, "state": "accepted"})
    for wrong in ({"key": ""}, {"key": "x" * 32}, {"key": "ü"}, {"host": "evil.example"}):
        for method, path in (("GET", "/"), ("GET", "/rows"), ("GET", "/thumbnail?number=0"), ("POST", "/decide")):
            assert (
                ask(
                    method,
                    path.replace("ü", "%C3%BC"),
                    decision,
                    **{**wrong, "key": wrong.get("key", server.key).replace("ü", "%C3%BC")},
                )[0]
                == 403
            )
    assert server.captions.counts()["open"] == 28
    assert ask("GET", "/")[0] == 200


def test_rows_come_by_the_page(ask):
    status, first = ask("GET", "/rows?state=open&order=file")
    assert (status, len(first["rows"]), first["more"], first["total"]) == (200, 24, True, 30)
    _, second = ask("GET", f"/rows?state=open&order=file&after={first['rows'][-1]['number']}")
    assert (len(second["rows"]), second["more"]) == (4, False)
    row = first["rows"][0]
    assert row["text"] == row["said"]
    assert len(row["probabilities"]) == len(row["said"].split()) + 1


def test_pictures(ask, server):
    status, thumbnail = ask("GET", "/thumbnail?number=0")
    assert (status, Image.open(io.BytesIO(thumbnail)).size) == (200, (80, 80))
    said = server.captions.row(0)["text"]
    text = said.replace(" ", "+")
    lit = [ask("GET", f"/lit?number=0&word={word}&text={text}")[1] for word in range(2)]
    assert lit[0] != lit[1] != thumbnail
    assert ask("GET", f"/words?number=0&text={text}")[1]["words"] == said.split()
    assert ask("GET", "/thumbnail?number=5")[0] == 404
    assert ask("GET", f"/lit?number=0&word=99&text={text}")[0] == 400
    status, reason = ask("GET", "/words?number=0&text=chihuahua")
    assert (status, b"chihuahua" in reason) == (400, True)


def test_decisions(ask, server):
    status, answer = ask("POST", "/decide", json.dumps({"number": 3, "state": "edited", "text": "a wall"}))
    assert (status, answer["row"]["text"], answer["counts"]["edited"]) == (200, "a wall", 1)
    for body in (
        "",
        "[]",
        "null",
        "nonsense",
        '{"number": 3}',
        '{"number": 99, "state": "open"}',
        '{"number": {}, "state": 1}',
        "x" * 70_000,
    ):
        assert ask("POST", "/decide", body)[0] == 400
    assert server.captions.counts()["edited"] == 1
    assert ask("GET", "/decide")[0] == 404
    assert ask("GET", "/rows?after=x")[0] == 400
