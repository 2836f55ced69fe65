"""A small web on loopback whose addresses answer as a test says, and which counts what it is asked."""

from __future__ import annotations

import http.server
import io
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from PIL import Image

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def jpeg(seed: int = 0, side: int = 32) -> bytes:
    """A photo of noise."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def sends(body: bytes, status: int = 200, length: int | None = None) -> Answer:
    """Answers with the body; with a length, that is what it claims the body's length to be."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirects(target: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    return answer


def trickles(body: bytes, pause: float) -> Answer:
    """Sends a byte at a time, and so never lets a socket time out."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for byte in body:
            handler.wfile.write(bytes([byte]))
            time.sleep(pause)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other, the last one for good."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def waits(seconds: float, then: Answer) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        then(handler)

    return answer


def hangs_up(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


class Web(http.server.ThreadingHTTPServer):
    """`answers` by path (404 for all others); `requests` counts the paths, `most_at_once` what was under way."""

    request_queue_size = 128

    def __init__(self) -> None:
        web = self
        self.answers: dict[str, Answer] = {}
        self.requests: Counter[str] = Counter()
        self.under_way, self.most_at_once = 0, 0
        self.lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with web.lock:
                    web.requests[self.path] += 1
                    web.under_way += 1
                    web.most_at_once = max(web.most_at_once, web.under_way)
                try:
                    web.answers.get(self.path, sends(b"gone", 404))(self)
                finally:
                    with web.lock:
                        web.under_way -= 1

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""
