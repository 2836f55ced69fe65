"""The review's page and what it asks for, on the loopback address, for whoever has the key in its URL."""

from __future__ import annotations

import hmac
import json
import math
import secrets
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..attention_page import content_policy
from ..batch.rows import Row
from ..errors import CapexportError, ImageError, OptionError, OutputError, printable
from .captions import Captions, said_text
from .pictures import Pictures

PAGE = 24  # rows that the page asks for at a time
MOST = 1 << 16  # bytes of a request


class ReviewServer(ThreadingHTTPServer):
    """Serves a review, not started yet; port 0 takes a free one. `url` opens it.

    Without the key that is in `url` nothing is answered, so that neither other users of the machine nor pages of other
    sites in the browser can read photos or change captions. Raises OutputError if the port is taken.
    """

    daemon_threads = True

    def __init__(self, captions: Captions, pictures: Pictures, port: int = 0) -> None:
        self.captions, self.pictures, self.key = captions, pictures, secrets.token_urlsafe(24)
        template = resources.files(__package__).joinpath("page.html").read_text("utf-8")
        asked = {"img-src": "'self' data:", "connect-src": "'self'", "frame-ancestors": "'none'"}
        self.page, self.policy = template.encode(), content_policy(template, asked)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise OutputError(f"Port {port} cannot be used: {error}; choose another with --port.") from error
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is said of clients that go away, or send nothing for long, and a line of all else."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(f"capexport: a request failed: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/?key={self.key}"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = 60  # seconds that a client may be silent

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        routes: dict[str, Callable[[dict[str, str]], tuple[str, bytes]]] = {
            "/": self._page,
            "/rows": self._rows,
            "/thumbnail": self._thumbnail,
            "/words": self._words,
            "/lit": self._lit,
        }
        self._answer(routes)

    def do_POST(self) -> None:
        self._answer({"/decide": self._decide})

    def _answer(self, routes: dict[str, Callable[[dict[str, str]], tuple[str, bytes]]]) -> None:
        try:
            address = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        except ValueError:  # it is no address at all
            address, query = urlsplit(""), {}
        key = query.get("key", "")
        if self.headers.get("Host") not in self.server.hosts or not hmac.compare_digest(
            key.encode(), self.server.key.encode()
        ):
            self._send(403, "text/plain", b"Open the address that capexport review printed, with its key.")
        elif address.path not in routes:
            self._send(404, "text/plain", b"There is nothing here.")
        else:
            self._send(*_tried(routes[address.path], query))

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "private, max-age=3600" if kind == "image/jpeg" else "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _page(self, _query: dict[str, str]) -> tuple[str, bytes]:
        return "text/html", self.server.page

    def _rows(self, query: dict[str, str]) -> tuple[str, bytes]:
        captions = self.server.captions
        after = int(query["after"]) if query.get("after") else None
        found = captions.find(query.get("state") or None, query.get("order", "doubtful"), after, PAGE)
        return self._json({"rows": [self._shown(number) for number in found], "more": len(found) == PAGE})

    def _thumbnail(self, query: dict[str, str]) -> tuple[str, bytes]:
        return "image/jpeg", self.server.pictures.thumbnail(self._row(query)["path"])

    def _words(self, query: dict[str, str]) -> tuple[str, bytes]:
        return self._json({"words": self.server.pictures.words(self._row(query)["path"], query["text"])})

    def _lit(self, query: dict[str, str]) -> tuple[str, bytes]:
        picture = self.server.pictures.lit(self._row(query)["path"], query["text"], int(query["word"]))
        return "image/jpeg", picture

    def _decide(self, _query: dict[str, str]) -> tuple[str, bytes]:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= MOST:
            raise OptionError("A decision has a body of a few bytes.")
        asked = json.loads(self.rfile.read(length))
        if not isinstance(asked, dict):
            raise OptionError("A decision is an object.")
        number, state, text = asked.get("number"), asked.get("state"), asked.get("text", "")
        if not (type(number) is int and isinstance(state, str) and isinstance(text, str)):
            raise OptionError("A decision has a number, a state and a text.")
        self.server.captions.decide(number, state, text)
        return self._json({"row": self._shown(number)})

    def _row(self, query: dict[str, str]) -> Row:
        return self.server.captions.row(int(query["number"]))

    def _shown(self, number: int) -> dict[str, Any]:
        row = self.server.captions.row(number)
        return {
            "number": number,
            "path": row["path"],
            "text": row["text"],
            "said": said_text(row),
            "probabilities": [round(math.exp(value), 3) for value in row["log_probabilities"] or ()],
            "confidence": row["confidence"],
            "error": row["error"],
            "state": self.server.captions.state(number),
        }

    def _json(self, body: dict[str, Any]) -> tuple[str, bytes]:
        captions = self.server.captions
        about = {"name": str(captions.path), "total": len(captions), "counts": captions.counts()}
        return "application/json", json.dumps({**body, **about}).encode()


def _tried(work: Callable[[dict[str, str]], tuple[str, bytes]], query: dict[str, str]) -> tuple[int, str, bytes]:
    """An answer with its code, or what is wrong: with the photo (404), or with what was asked (400)."""
    try:
        return 200, *work(query)
    except TimeoutError:  # the client's; a photo's is an ImageError
        raise
    except (ImageError, OSError) as error:
        return 404, "text/plain", printable(str(error)).encode()
    except (CapexportError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        return 400, "text/plain", printable(str(error)).encode()
