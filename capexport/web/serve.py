"""A page's folder on a port of this machine, to look at it; any other static web server does as well."""

from __future__ import annotations

import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ..errors import OutputError


class Handler(SimpleHTTPRequestHandler):
    """Files with the types that browsers insist on, whatever the machine's own table of types says; says nothing."""

    extensions_map = {  # noqa: RUF012 (as the base class has it)
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
        ".svg": "image/svg+xml",
    }

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server that a browser may ask for all of a page's files at once."""

    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A browser that hangs up is no news."""


def page_server(folder: Path, port: int = 0, handler: type[Handler] = Handler) -> ThreadingHTTPServer:
    """A server of the folder on the loopback address, not started yet; port 0 takes a free one.

    handler  what answers

    Raises OutputError if the port is taken.
    """
    try:
        return Server(("127.0.0.1", port), functools.partial(handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise OutputError(f"Port {port} cannot be used: {error}; choose another with --port.") from error
