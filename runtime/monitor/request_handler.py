"""HTTP requests of the status page: the answer to each path, for clients that may see it."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import parse_qs, urlsplit

from runtime.address import is_loopback
from runtime.monitor.clients import REQUEST_S
from runtime.monitor.prometheus import CONTENT_TYPE, format_metrics

if TYPE_CHECKING:
    from runtime.monitor.http_server import HttpServer

_PAGE, _LOGIN = (Path(__file__).with_name(name).read_bytes() for name in ("page.html", "login.html"))
_MAX_REQUEST_BYTES = 16 << 10
"""Longest request: its line, headers and form together."""
MAX_VIEWERS = 48
"""Number of requests for a frame at the same time: a thread that waits for one is free again only after the wait."""
_FRAME_WAIT_S = 10.0
"""Longest wait in seconds of a request for a newer frame."""
_HEALTH_PATHS: dict[str, Literal["ready", "live"]] = {
    "/healthz": "ready",
    "/healthz/ready": "ready",
    "/healthz/live": "live",
}
_HTML, _TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"
_DEFAULT_WIDTH = 1280
_WIDTHS = range(16, 8193)
"""Widths of a frame in pixels that a client may request."""
_CONTENT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "form-action 'self'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _CONTENT_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class _RequestReader(BufferedReader):
    """Reads requests; raises HTTPException when one is longer than allowed."""

    bytes_left = 0

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(self.bytes_left + 1)
        self.bytes_left -= len(line)
        if self.bytes_left < 0:
            raise HTTPException("request is too long")
        return line


class RequestHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD requests for the page, its data, metrics and health."""

    server: HttpServer
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_S
    rbufsize = 0
    server_version, sys_version = "deblur", ""

    def setup(self) -> None:
        super().setup()
        self.client = self.server.clients[self.request]
        self.rfile: _RequestReader = _RequestReader(cast("Any", self.rfile))

    def handle_one_request(self) -> None:
        """Read a request within the limits of time and length, and answer it."""
        self.client.expect_request()
        self.rfile.bytes_left = _MAX_REQUEST_BYTES
        self.command = self.requestline = self.request_version = ""
        try:
            super().handle_one_request()
        except HTTPException:  # raised by a long request line; http.server handles it for headers
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def do_GET(self) -> None:
        self.client.begin_answer()
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # the body is not read
        try:
            address = urlsplit(self.path)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        token = parse_qs(address.query).get("token", [""])[-1] if address.path == "/" else ""
        if self._refuse_foreign_host():
            return
        if token:
            self._log_in(token)
        elif self.server.access.allows(self.headers, self.server.port):
            self._send_path(address.path, parse_qs(address.query))
        elif address.path in _HEALTH_PATHS:
            self._send_health(_HEALTH_PATHS[address.path], with_streams=False)
        else:
            self._send_login(address.path)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def do_POST(self) -> None:
        """Take the token of the login form."""
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        if self.path != "/login" or not self.server.access.token:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        elif not re.fullmatch(r"\d{1,5}", length, re.ASCII) or int(length) > self.rfile.bytes_left:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif not self._refuse_foreign_host():
            form = self.rfile.read(int(length))
            self.client.begin_answer()
            self._log_in(parse_qs(form.decode(errors="replace")).get("token", [""])[-1])

    def _send_path(self, path: str, query: dict[str, list[str]]) -> None:
        if match := re.fullmatch(r"/pair/(\d{1,4})\.jpg", path, re.ASCII):
            self._send_pair(int(match[1]), query)
        elif path in _HEALTH_PATHS:
            self._send_health(_HEALTH_PATHS[path], with_streams=True)
        elif path == "/":
            self._send(HTTPStatus.OK, _HTML, _PAGE)
        elif path == "/stats.json":
            self._send_json(HTTPStatus.OK, {"streams": [stream.to_dict() for stream in self.server.streams]})
        elif path == "/metrics":
            self._send(HTTPStatus.OK, CONTENT_TYPE, format_metrics(self.server.streams).encode())
        else:
            self._send_text(HTTPStatus.NOT_FOUND, "paths are /, /stats.json, /metrics, /healthz and /pair/0.jpg")

    def log_message(self, *_: object) -> None:
        """Log nothing: standard error belongs to the run."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer an error that http.server finds by itself, without repeating any part of the request."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self.close_connection = True
        self._send_text(status, status.phrase)

    def _log_in(self, token: str) -> None:
        """Send a browser with the right token to the page, with a cookie; another one to the form."""
        access = self.server.access
        if not access.token or access.accepts(token):
            cookie = {"Set-Cookie": access.cookie(self.server.port)} if access.token else {}
            self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": "/"} | cookie)
        else:
            self._send_login("/")

    def _send_login(self, path: str) -> None:
        """Answer a request without the token: a form for a browser, a line of text on the other paths."""
        headers = {"WWW-Authenticate": "Bearer"}
        if path in {"/", "/login"}:
            self._send(HTTPStatus.UNAUTHORIZED, _HTML, _LOGIN, headers)
        else:
            line = b"send the token of --serve-token as Authorization: Bearer TOKEN\n"
            self._send(HTTPStatus.UNAUTHORIZED, _TEXT, line, headers)

    def _send_health(self, probe: Literal["ready", "live"], *, with_streams: bool) -> None:
        """Send the health of all streams; the status is 503 if the probe fails for one of them.

        Names and reasons of the streams are for clients with the token only; supervisors need no more than the status.
        """
        streams = [stream.check_health().to_dict(stream.name) for stream in self.server.streams]
        values: dict[str, Any] = {
            "live": all(stream["live"] for stream in streams),
            "ready": bool(streams) and all(stream["ready"] for stream in streams),
        }
        status = HTTPStatus.OK if values[probe] else HTTPStatus.SERVICE_UNAVAILABLE
        self._send_json(status, values | ({"streams": streams} if with_streams else {}))

    def _send_pair(self, index: int, query: dict[str, list[str]]) -> None:
        if index >= len(self.server.streams):
            self._send_text(HTTPStatus.NOT_FOUND, f"number of streams: {len(self.server.streams)}, counted from 0")
            return
        after, width = query.get("after", ["0"])[-1], query.get("width", [str(_DEFAULT_WIDTH)])[-1]
        digits = re.compile(r"\d{1,18}", re.ASCII)
        if not digits.fullmatch(after) or not digits.fullmatch(width) or int(width) not in _WIDTHS:
            usage = f"after is the number of a frame, width is {_WIDTHS[0]} to {_WIDTHS[-1]} pixels"
            self._send_text(HTTPStatus.BAD_REQUEST, usage)
            return
        if not self.server.viewers.acquire(blocking=False):
            self._send_text(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_VIEWERS} viewers wait for a frame; try again")
            return
        stream = self.server.streams[index]
        try:
            pair = stream.wait_for_pair(after=int(after), width=int(width), wait_s=_FRAME_WAIT_S)
        finally:
            self.server.viewers.release()
        if pair is None:
            self._send(HTTPStatus.NO_CONTENT, None, b"")
        else:
            headers = {"Deblur-Frame": str(pair.number), "Deblur-Width": str(pair.width)}
            self._send(HTTPStatus.OK, "image/jpeg", pair.jpeg, headers)

    def _refuse_foreign_host(self) -> bool:
        """Answer a request for a host that is not loopback where only this machine is served; return whether it was."""
        host = self.headers.get("Host", "")
        is_foreign = not is_loopback(re.sub(r":\d*$", "", host) if not host.endswith("]") else host)
        if is_foreign and self.server.is_loopback_only:
            self.close_connection = True
            self._send_text(HTTPStatus.FORBIDDEN, "the status page is served to this machine only; see --serve")
            return True
        return False

    def _send_text(self, status: HTTPStatus, line: str) -> None:
        self._send(status, _TEXT, f"{line}\n".encode())

    def _send_json(self, status: HTTPStatus, values: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(values).encode())

    def _send(
        self, status: HTTPStatus, content_type: str | None, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (_HEADERS | (headers or {})).items():
            self.send_header(name, value)
        if content_type is not None:
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
