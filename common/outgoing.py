"""The one client for every request that this program sends to a server somebody else names.

Names are resolved once, every address is checked, and the connection goes to a checked one: a name
that resolves to something else a moment later changes nothing. Nothing that is not a public address
is called unless the administrator lists its host and port (ALLOWED_PRIVATE_ENDPOINTS). Redirects
are not followed, proxies of the environment not used, certificates verified for the name as given.

Built on httpcore, which has an interface for just this, replacing how connections are made, and
none of the conveniences that would have to be switched off.
"""

import atexit
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import certifi
import httpcore
from django.conf import settings

CONNECT_S = 5.0
TOTAL_S = 60.0
LARGEST_ANSWER = 32 * 1024**2

_PORTS = {"http": 80, "https": 443}
_CONNECTIONS = 64
_IDLE_CONNECTIONS = 16
_IDLE_S = 30.0
_PIECE = 64 * 1024
# What stays as it is in an address; everything else is percent-encoded.
_LEGAL = "/?:@!$&'()*+,;=%-._~"
# Not public although they look so, or lead to addresses that are not: IPv4-compatible, NAT64 (well
# known and local), Teredo, 6to4 and its relays, and what was once site-local.
_DISGUISED = tuple(
    ipaddress.ip_network(each)
    for each in (
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "192.88.99.0/24",
        "fec0::/10",
    )
)

# When the request that this thread is sending must have ended, on the monotonic clock.
_deadline: ContextVar[float] = ContextVar("outgoing_deadline")


class OutgoingError(Exception):
    """No answer. The text is for people, and names no address."""


class NotAllowed(OutgoingError):
    """The address is not one that may be called, or there is nothing of its name."""


class Unreachable(OutgoingError):
    """The name does not resolve, nobody answers there, or the connection broke."""


class TimedOut(OutgoingError):
    """It took too long."""


class TooLong(OutgoingError):
    """The answer is larger than LARGEST_ANSWER."""


@dataclass(frozen=True)
class Reply:
    """What a server answered; headers by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def post(url: str, *, headers: Mapping[str, str], body: bytes, total_s: float = TOTAL_S) -> Reply:
    """Send a POST request and return the whole answer, whatever its status.

    url: absolute, http or https, without user name and password.
    total_s: seconds until the answer must be complete, at most TOTAL_S.
    Raises NotAllowed, Unreachable, TimedOut or TooLong.
    """
    target = _target(url)
    token = _deadline.set(time.monotonic() + min(total_s, TOTAL_S))
    try:
        sent = {"Host": _host_header(url), "Accept-Encoding": "identity", **headers}
        # httpcore adds Content-Length for bytes.
        with _pool().stream(
            "POST",
            target,
            headers=[(name.encode("ascii"), each.encode("latin-1")) for name, each in sent.items()],
            content=body,
            extensions={"timeout": {"connect": CONNECT_S, "pool": min(total_s, TOTAL_S)}},
        ) as response:
            return _read(response)
    except OutgoingError:
        raise
    except httpcore.TimeoutException as error:
        raise TimedOut("it did not answer in time") from error
    except ssl.SSLCertVerificationError as error:
        raise Unreachable("its TLS certificate is not valid for the name") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        if isinstance(error.__context__, ssl.SSLCertVerificationError):
            raise Unreachable("its TLS certificate is not valid for the name") from error
        if isinstance(error, httpcore.LocalProtocolError):
            raise NotAllowed("the request cannot be sent: a header holds what none may") from error
        raise Unreachable("the connection failed or broke") from error
    except UnicodeError as error:
        raise NotAllowed("the request cannot be sent: a header holds what none may") from error
    finally:
        _deadline.reset(token)


def _read(response: httpcore.Response) -> Reply:
    headers = {
        name.decode("latin-1").lower(): each.decode("latin-1") for name, each in response.headers
    }
    if headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise Unreachable("it answered in a content encoding that was not asked for")
    pieces, size = [], 0
    for piece in response.iter_stream():
        size += len(piece)
        if size > LARGEST_ANSWER:
            raise TooLong(f"its answer is larger than {LARGEST_ANSWER // 1024**2} MiB")
        pieces.append(piece)
    return Reply(response.status, headers, b"".join(pieces))


# --- Addresses ------------------------------------------------------------------------------------
def _target(url: str) -> httpcore.URL:
    parts = _parts(url)
    path = quote(parts.path or "/", safe=_LEGAL)
    query = f"?{quote(parts.query, safe=_LEGAL)}" if parts.query else ""
    return httpcore.URL(
        scheme=parts.scheme,
        host=_ascii(parts.hostname or ""),
        port=parts.port or _PORTS[parts.scheme],
        target=f"{path}{query}",
    )


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc:
        raise NotAllowed("the endpoint is not a web address (http or https, no user name)")
    return parts


def _ascii(host: str) -> str:
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise NotAllowed("the endpoint's host is no name") from None


def _host_header(url: str) -> str:
    parts = _parts(url)
    host = _ascii(parts.hostname or "")
    host = f"[{host}]" if ":" in host else host
    is_default = parts.port in {None, _PORTS[parts.scheme]}
    return host if is_default else f"{host}:{parts.port}"


def _resolve(host: str, port: int) -> list[str]:
    """Return a host's addresses, all of which may be called; raise NotAllowed or Unreachable."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Unreachable("its name cannot be resolved at the moment") from error
        raise NotAllowed("the endpoint's name does not resolve") from error
    except (OSError, UnicodeError) as error:
        raise NotAllowed("the endpoint's host is no name") from error
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not _is_listed(host, port) and not all(is_public(each) for each in addresses):
        raise NotAllowed(
            "the endpoint is in a private network, and the administrator of this server has not "
            "listed it in ARMARIUM_ALLOWED_PRIVATE_ENDPOINTS"
        )
    return addresses


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public internet, whatever form it is written in."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and (parsed.ipv4_mapped or parsed.scope_id):
        return False
    if not parsed.is_global or parsed.is_multicast or parsed.is_reserved:
        return False
    return not any(parsed in each for each in _DISGUISED)


def _is_listed(host: str, port: int) -> bool:
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" in {each.lower() for each in settings.ALLOWED_PRIVATE_ENDPOINTS}


# --- Connections ----------------------------------------------------------------------------------
@cache
def _pool() -> httpcore.ConnectionPool:
    context = ssl.create_default_context()
    # Beside the machine's own certificates, which containers often lack.
    context.load_verify_locations(certifi.where())
    pool = httpcore.ConnectionPool(
        ssl_context=context,
        max_connections=_CONNECTIONS,
        max_keepalive_connections=_IDLE_CONNECTIONS,
        keepalive_expiry=_IDLE_S,
        network_backend=_CheckedBackend(),
    )
    atexit.register(pool.close)
    return pool


def _left(limit: float | None = None) -> float:
    """Return the seconds that are left, or the limit if that is less; raise TimedOut."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise TimedOut("it did not answer in time")
    return left if limit is None else min(left, limit)


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to checked addresses only, and nowhere but over TCP."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve the name, check all its addresses, and connect to the first that answers."""
        addresses = _resolve(host, port)
        gives_up = time.monotonic() + _left(timeout)
        failure: Exception = Unreachable("its name does not resolve")
        for address in addresses:
            left = max(gives_up - time.monotonic(), 0.1)
            try:
                stream = self._inner.connect_tcp(address, port, left, local_address, socket_options)
                return _TimedStream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """Keeps the request's deadline, however little arrives at a time."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has arrived."""
        return self._inner.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send everything."""
        for start in range(0, len(buffer), _PIECE):
            self._inner.write(buffer[start : start + _PIECE], _left(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Return the same connection, encrypted."""
        return _TimedStream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection below knows."""
        return self._inner.get_extra_info(info)
