"""The status page: one small HTTP server for all streams of a process."""

from __future__ import annotations

import errno
import json
import re
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from threading import Lock, Thread, current_thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runtime.address import Address, is_loopback
from runtime.engines.base import Engine
from runtime.errors import OutputError
from runtime.monitor.prometheus import CONTENT_TYPE, exposition
from runtime.monitor.stream import Stream, health_facts
from runtime.pipeline import Pipeline

_PAGE = Path(__file__).with_name("page.html")
_CLIENTS = 64
"""At once; further ones are turned away, so that none can fill the memory."""
_CLIENT_S = 10.0
"""A client that neither sends nor reads for so long is left."""
_WAIT_S = 10.0
"""How long a request for a newer frame waits."""
_JOIN_S = 2.0
_WIDTH = 1280
_WIDTHS = range(16, 8193)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class StatusServer:
    """Serves a page, figures and health of every stream that is added, from threads of its own.

    `stale_s`: a stream without a frame for so long is not ready. `stuck_s`: one whose engine or
    output is busy with a frame for so long is not alive. On a loopback address only requests to
    that are answered, so that no page from elsewhere reads it by a name of its own. Port 0 takes
    a free one. Raises OutputError if the address cannot be had.
    """

    def __init__(self, address: Address, *, stale_s: float = 10.0, stuck_s: float = 60.0) -> None:
        self._stale_s, self._stuck_s = stale_s, stuck_s
        self._streams: list[Stream] = []
        try:
            self._server = _Server(address, self._streams)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            reason = "is in use" if in_use else f"cannot be served on ({error.strerror or error})"
            what = f"port {address.port} {reason}" if in_use else f"{address} {reason}"
            raise OutputError(what, hint="give another --serve") from error
        self.url = f"http://{Address(address.host, self._server.port)}/"
        self._thread = Thread(target=self._server.serve_forever, args=(0.2,), name="status-page", daemon=True)
        self._thread.start()

    def add(self, pipeline: Pipeline, engine: Engine) -> Stream:
        """Serve a pipeline as well, before it runs."""
        stream = Stream(pipeline, engine, stale_s=self._stale_s, stuck_s=self._stuck_s)
        pipeline.listeners.append(stream.on_frame)
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        """Stop serving, whatever clients do; safe to call twice."""
        for stream in self._streams:
            stream.leave()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_JOIN_S)
        self._server.leave()


class _Server(ThreadingHTTPServer):
    """Knows its clients, so that it can leave them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: Address, streams: list[Stream]) -> None:
        self.streams = streams
        self.page = _PAGE.read_bytes()
        self._clients: dict[Thread, socket.socket] = {}
        self._counting = Lock()
        family, *_, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        self.only_loopback = is_loopback(str(place[0]))
        super().__init__((str(place[0]), address.port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Without asking for the host's full name, which takes seconds where there is no name server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.port

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._counting:
            if len(self._clients) < _CLIENTS:
                arguments = (request, client_address)
                thread = Thread(target=self._serve_client, args=arguments, name="status-page-client", daemon=True)
                self._clients[thread] = request
                thread.start()
                return
        self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news; anything else is a bug, and shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def leave(self) -> None:
        """Hang up on everyone, and wait for their threads."""
        with self._counting:
            clients = dict(self._clients)
        for request in clients.values():
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone already
        for thread in clients:
            thread.join(_JOIN_S)

    def _serve_client(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._counting:
                self._clients.pop(current_thread(), None)


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of a handful of paths."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _CLIENT_S
    server_version, sys_version = "deblur", ""

    def do_GET(self) -> None:
        if self.server.only_loopback and not self._is_for_loopback():
            self.close_connection = True
            self._text(HTTPStatus.FORBIDDEN, "this page is served to its own machine only; see --serve")
            return
        address = urlsplit(self.path)
        if found := re.fullmatch(r"/pair/(\d{1,4})\.jpg", address.path, re.ASCII):
            self._pair(int(found[1]), parse_qs(address.query))
            return
        answer = {
            "/": self._page,
            "/stats.json": self._statistics,
            "/metrics": self._metrics,
            "/healthz": self._ready,
            "/healthz/ready": self._ready,
            "/healthz/live": self._live,
        }.get(address.path)
        if answer is None:
            self._text(HTTPStatus.NOT_FOUND, "there is /, /stats.json, /metrics, /healthz and /pair/0.jpg")
        else:
            answer()

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def log_message(self, *_: object) -> None:
        """Requests are not told; standard error is for the run."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server refuses by itself, without echoing what was asked."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self.close_connection = True
        self._text(status, status.phrase)

    def _page(self) -> None:
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)

    def _statistics(self) -> None:
        self._json(HTTPStatus.OK, {"streams": [stream.facts() for stream in self.server.streams]})

    def _metrics(self) -> None:
        self._send(HTTPStatus.OK, CONTENT_TYPE, exposition(self.server.streams).encode())

    def _ready(self) -> None:
        self._health("ready")

    def _live(self) -> None:
        self._health("live")

    def _health(self, wanted: str) -> None:
        streams = [health_facts(stream.name, stream.health()) for stream in self.server.streams]
        values = {
            "live": all(each["live"] for each in streams),
            "ready": bool(streams) and all(each["ready"] for each in streams),
            "streams": streams,
        }
        self._json(HTTPStatus.OK if values[wanted] else HTTPStatus.SERVICE_UNAVAILABLE, values)

    def _pair(self, index: int, query: dict[str, list[str]]) -> None:
        if index >= len(self.server.streams):
            self._text(HTTPStatus.NOT_FOUND, f"there are {len(self.server.streams)} streams, counted from 0")
            return
        after, width = (query.get(name, [default])[-1] for name, default in (("after", "0"), ("width", str(_WIDTH))))
        digits = re.compile(r"\d{1,18}", re.ASCII)
        if not digits.fullmatch(after) or not digits.fullmatch(width) or int(width) not in _WIDTHS:
            self._text(HTTPStatus.BAD_REQUEST, f"after is a frame's number, width {_WIDTHS[0]} to {_WIDTHS[-1]}")
            return
        pair = self.server.streams[index].pair(after=int(after), width=int(width), wait_s=_WAIT_S)
        if pair is None:
            self._send(HTTPStatus.NO_CONTENT, None, b"")
        else:
            numbers = {"Deblur-Frame": str(pair.number), "Deblur-Width": str(pair.width)}
            self._send(HTTPStatus.OK, "image/jpeg", pair.jpeg, numbers)

    def _is_for_loopback(self) -> bool:
        host = self.headers.get("Host", "")
        return is_loopback(re.sub(r":\d*$", "", host) if not host.endswith("]") else host)

    def _text(self, status: HTTPStatus, line: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{line}\n".encode())

    def _json(self, status: HTTPStatus, values: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(values).encode())

    def _send(self, status: HTTPStatus, kind: str | None, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (_HEADERS | (more or {})).items():
            self.send_header(name, value)
        if kind is not None:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
