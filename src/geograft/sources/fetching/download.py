"""One request for one photo, by a server that may stall, fail, lie or point elsewhere."""

import email.utils
import ipaddress
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

AGAIN = frozenset({"timeout", "connection", "server-error", "too-many-requests", "truncated"})
"""Reasons that may pass: a photo is asked for again."""

UNWELCOME = frozenset({"forbidden", "too-many-requests", "server-error", "connection", "timeout"})
"""Reasons by which a whole server refuses."""

_REASONS = {401: "forbidden", 403: "forbidden", 404: "gone", 408: "timeout", 410: "gone", 429: "too-many-requests"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SCHEMES = frozenset({"http", "https"})
_PIECE = 2**16


class Refusal(Exception):
    """A photo was not got.

    Attributes:
        reason: in kebab case, as tables count it.
        http_status: the answer's, where there was one.
        wait_s: how long the server asks to wait (Retry-After).
    """

    def __init__(self, reason: str, *, http_status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.http_status = http_status
        self.wait_s = wait_s


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
        timeout_s: seconds without a byte.
        max_seconds: seconds in all, redirects included.
        max_bytes: of the body.
        max_redirects: in a row.
        allow_private: whether addresses that are not public may be asked.
    """

    timeout_s: float
    max_seconds: float
    max_bytes: int
    max_redirects: int
    allow_private: bool


def host_of(uri: str) -> str:
    """The host and port of an address, which share one pace.

    Raises:
        Refusal: `bad-scheme` where it is not http(s), `bad-url` where it has no host.
    """
    try:
        parts = urlsplit(uri)
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise Refusal("bad-url") from error
    if parts.scheme.lower() not in _SCHEMES:
        raise Refusal("bad-scheme")
    if not name:
        raise Refusal("bad-url")
    return f"{name}:{port}" if port else name


class Downloader:
    """Gets photos, one at a time, over connections that are kept; one object a thread.

    Args:
        limits: what one request may cost.
        agent: the User-Agent header.
        hop: called with the host of each redirect before it is asked; it waits for the host's turn.
    """

    def __init__(self, limits: Limits, *, agent: str, hop: Callable[[str], None]) -> None:
        self._limits = limits
        self._hop = hop
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._session = requests.Session()
        self._session.auth = _without_password
        self._session.headers.update({"User-Agent": agent, "Accept": "image/*", "Accept-Encoding": "identity"})
        adapter = _WatchedAdapter(self._check)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def get(self, uri: str) -> bytes:
        """The body of a whole answer.

        Raises:
            Refusal: there is none, with the reason.
        """
        deadline = time.monotonic() + self._limits.max_seconds
        try:
            with self._cut_off(), self._answer(uri) as answer:
                return self._body(answer, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Refusal("too-slow" if time.monotonic() >= deadline else _problem(error)) from error

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _answer(self, uri: str) -> requests.Response:
        """The answer that an address leads to, by a few redirects at most, before its body is read."""
        for _ in range(self._limits.max_redirects + 1):
            _refuse_literal(uri, self._limits)
            answer = self._session.get(uri, stream=True, timeout=self._limits.timeout_s, allow_redirects=False)
            if answer.status_code == 200:
                return answer
            with answer:
                if answer.status_code not in _REDIRECTS or "Location" not in answer.headers:
                    raise _refusal(answer)
                uri = urljoin(uri, answer.headers["Location"])
            self._hop(host_of(uri))
        raise Refusal("too-many-redirects", http_status=answer.status_code)

    def _body(self, answer: requests.Response, deadline: float) -> bytes:
        """An answer's body, as long as it says it is, in time and no larger than allowed."""
        length = answer.headers.get("Content-Length", "")
        stated = int(length) if length.isdecimal() else None
        if (stated or 0) > self._limits.max_bytes:
            raise Refusal("too-large", http_status=200)
        body = bytearray()
        while piece := answer.raw.read1(_PIECE, decode_content=True):
            body += piece
            if len(body) > self._limits.max_bytes:
                raise Refusal("too-large", http_status=200)
            if time.monotonic() >= deadline:
                break
        if time.monotonic() >= deadline:  # cut off, which may look like an end
            raise Refusal("too-slow", http_status=200)
        if not body or (stated is not None and len(body) < stated and "Content-Encoding" not in answer.headers):
            raise Refusal("truncated", http_status=200)
        return bytes(body)

    @contextmanager
    def _cut_off(self) -> Iterator[None]:
        """Break this thread's connections when the time is over: a server that drips bytes never times out."""
        timer = threading.Timer(self._limits.max_seconds, self._break)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _break(self) -> None:
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _check(self, connection: socket.socket) -> None:
        """Watch a new connection, and refuse one to an address that is not public, whatever name led there."""
        self._sockets.add(connection)
        if not self._limits.allow_private and not _is_public(connection.getpeername()[0]):
            raise Refusal("private-address")


class _WatchedAdapter(HTTPAdapter):
    """Shows each new connection to a function before anything is sent; connections to a proxy are not shown."""

    def __init__(self, check: Callable[[socket.socket], None]) -> None:
        self._check = check
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*args, **options)
        pools = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = {
            scheme: type(pool.__name__, (pool,), {"ConnectionCls": _watched(pool.ConnectionCls, self._check)})
            for scheme, pool in pools.items()
        }


def _watched(kind: Any, check: Callable[[socket.socket], None]) -> Any:
    """A class of connections that are checked once they stand."""

    class Watched(kind):  # type: ignore[misc]  # the base is only known when it runs
        def connect(self) -> None:
            super().connect()
            check(self.sock)

    return Watched


def _without_password(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No password of a .netrc file goes to a host of a table."""
    return request


def _refuse_literal(uri: str, limits: Limits) -> None:
    """Refuse an address that names a machine of this network outright, which a proxy might reach."""
    if limits.allow_private:
        return
    name = urlsplit(uri).hostname or ""
    with suppress(ValueError):
        if not _is_public(name):
            raise Refusal("private-address")
    if name == "localhost" or name.endswith(".localhost"):
        raise Refusal("private-address")


def _is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet.

    Raises:
        ValueError: it is no IP address.
    """
    found = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_global and not found.is_multicast


def _refusal(answer: requests.Response) -> Refusal:
    """What an answer other than 200 means."""
    status = answer.status_code
    reason = _REASONS.get(status) or ("server-error" if status >= 500 else "http-error")
    return Refusal(reason, http_status=status, wait_s=_seconds(answer.headers.get("Retry-After")))


def _seconds(retry_after: str | None) -> float | None:
    """The seconds of a Retry-After header, which may be a date; None where it says nothing."""
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _problem(error: Exception) -> str:
    """The reason of an error of the network."""
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return "timeout"
    if isinstance(error, (urllib3.exceptions.DecodeError, urllib3.exceptions.ProtocolError)):
        return "truncated"
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, ValueError)):
        return "bad-url"
    return "connection"
