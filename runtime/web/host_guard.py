"""ASGI middleware against DNS rebinding: the upload page answers only under the names of its server."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.address import Address

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_POLICY_VIOLATION = 1008
"""Code of a WebSocket that is closed because a message violates the policy of the server, RFC 6455."""


class HostGuard:
    """Refuses requests for a host name that is not allowed, and WebSockets and changes from pages of another origin.

    A web page of a foreign name can otherwise reach a server on loopback, once its name server gives that name the
    address 127.0.0.1. An IP address is always allowed as host, because no name server decides where it leads. The
    origin must be the host, or one of `other_names`: a proxy may replace the host.
    """

    def __init__(self, app: ASGIApp, *, address: Address, other_names: tuple[str, ...]) -> None:
        self._app = app
        self._others = {name.lower() for name in other_names}
        self._names = {"localhost", address.host.lower(), *self._others}
        if _is_ip(address.host) and ipaddress.ip_address(address.host).is_unspecified:
            machine = socket.gethostname().lower()
            self._names |= {machine, f"{machine}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an allowed request on; answer any other one with status 403 and the reason."""
        reason = self._find_fault(scope) if scope["type"] in ("http", "websocket") else ""
        if not reason:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
        else:
            await PlainTextResponse(f"{reason}\n", status_code=403)(scope, receive, send)

    def _find_fault(self, scope: Scope) -> str:
        """Return why a request is refused; an empty string if it is allowed."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _host_name(host)
        if len(headers.getlist("host")) != 1 or name is None:
            return "this request names no host"
        if not (name in self._names or _is_ip(name)):
            return f"{name} is not a name of this page; start it with --allow-host {name}"
        origin = headers.get("origin")
        if origin is None or (scope["type"] == "http" and scope["method"] in _READING):
            return ""
        origin_host = origin.partition("://")[2]
        if origin_host == host or _host_name(origin_host) in self._others:
            return ""
        return "a page of another origin cannot use this page"


def _host_name(host: str) -> str | None:
    """Return the name or address in `HOST[:PORT]` in lower case, without brackets; None if there is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises ValueError for anything but a number
    except ValueError:
        return None
    if parts.netloc != host or "@" in host or not parts.hostname:
        return None
    return parts.hostname.rstrip(".")


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
