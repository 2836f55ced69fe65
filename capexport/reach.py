"""Connections that go no further than they may: to which hosts, and until when.

Addresses of photos come from lists and from other people's programs. What they name, or lead to by a redirect or by
their entry in the DNS, must not be what only this machine can reach: itself, its network, its cloud's metadata.
"""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import socket
import ssl
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, cast

UNICAST = ipaddress.IPv6Network("2000::/3")  # all that hosts have (RFC 4291)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # an address of IPv4 is in the last four bytes (RFC 6052)
TUNNELS = tuple(map(ipaddress.IPv6Network, ("2001::/32", "2002::/16", "3fff::/20")))
# Teredo and 6to4, which lead to what an address of IPv4 in them says and are out of use; and one for documentation.

PRIVATE_HOST = "its host is on this machine or a private network (--private-hosts allows that)"


class PrivateHostError(OSError):
    """A host that may not be asked."""


@dataclass(frozen=True)
class Reach:
    """How far a request may go, its redirects included.

    private   to hosts of this machine and of private networks, too
    deadline  of time.monotonic(), by which the last byte must be there; None: there is none
    """

    private: bool
    deadline: float | None = None

    def left(self, timeout: float | None) -> float | None:
        """Seconds that may pass without a byte; raises TimeoutError where the deadline is over."""
        if self.deadline is None:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if timeout is None else min(timeout, left)

    def over(self, seconds: float) -> bool:
        """Whether the deadline is over by then."""
        return self.deadline is not None and time.monotonic() + seconds >= self.deadline

    def connect(self, host: str, port: int, timeout: float | None) -> socket.socket:
        """A connection to the very address that was checked. Raises PrivateHostError if all are out of reach."""
        refused: OSError = PrivateHostError(PRIVATE_HOST)
        for _, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            if self.private or is_public(str(address[0])):
                try:
                    return socket.create_connection((str(address[0]), port), self.left(timeout))
                except OSError as error:
                    refused = error
        raise refused


def as_named(url: str) -> Reach:
    """The reach for an address that the user has named: where it leads to a private network, so may its redirects."""
    try:
        found = socket.getaddrinfo(urllib.parse.urlsplit(url).hostname, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # which the request itself will find
        return Reach(private=False)
    return Reach(private=any(not is_public(str(address[0])) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether an IP address is anybody's to ask; one of IPv6 that carries one of IPv4 is as public as that."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ip.ipv4_mapped or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None)
        if carried is None:
            return ip in UNICAST and ip.is_global and not any(ip in network for network in TUNNELS)
        ip = carried
    return ip.is_global and not ip.is_multicast


def opener(reach: Reach) -> urllib.request.OpenerDirector:
    """urllib's usual opener, of such reach, without the handlers of ftp:, file: and data: that redirects could use."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(reach),
        _Https(reach),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        director.add_handler(handler)
    return director


class _Redirects(urllib.request.HTTPRedirectHandler):
    """urllib's own reads the whole body of a redirect, however large, before it goes on."""

    def redirect_request(self, req: urllib.request.Request, fp: Any, *answer: Any) -> urllib.request.Request | None:
        fp.close()
        return super().redirect_request(req, fp, *answer)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, reach: Reach) -> None:
        super().__init__()
        self._reach = reach

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_limited(http.client.HTTPConnection, _direct(req, self._reach)), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, reach: Reach) -> None:
        super().__init__(context=_context())
        self._reach = reach

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection = _limited(http.client.HTTPSConnection, _direct(req, self._reach))
        return self.do_open(connection, req, context=_context())


@functools.cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _direct(request: urllib.request.Request, reach: Reach) -> Reach:
    """The reach of the connection: a proxy, which the user has set up, may be anywhere, and sees to its own reach."""
    through_proxy = request.has_proxy() or getattr(request, "_tunnel_host", None)
    return Reach(True, reach.deadline) if through_proxy else reach


def _limited(kind: type[http.client.HTTPConnection], reach: Reach) -> Any:
    """A class of connections of such reach."""

    def opened(address: tuple[str, int], timeout: float | None = None, _: Any = None) -> socket.socket:
        return reach.connect(*address, timeout)

    def made(*arguments: Any, **options: Any) -> http.client.HTTPConnection:
        connection = kind(*arguments, **options)
        connection._create_connection = opened  # type: ignore[attr-defined]
        connection.response_class = functools.partial(_Response, reach=reach)  # type: ignore[assignment]
        return connection

    return made


class _Response(http.client.HTTPResponse):
    """An answer whose headers and body are there by the deadline, however small the drops they come in."""

    def __init__(self, sock: socket.socket, *arguments: Any, reach: Reach, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Timed(sock, self.fp.detach(), reach))


class _Timed(io.RawIOBase):
    def __init__(self, sock: socket.socket, raw: Any, reach: Reach) -> None:
        self._sock, self._raw, self._reach, self._timeout = sock, raw, reach, sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._reach.left(self._timeout))
        return cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()
