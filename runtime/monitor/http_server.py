"""HTTP requests of the status page: which clients are served, and the answer to each path."""

from __future__ import annotations

import json
import re
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from threading import Lock, Thread, current_thread
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from runtime.address import Address, is_loopback
from runtime.monitor.prometheus import CONTENT_TYPE, format_metrics
from runtime.monitor.stream import Stream

_PAGE = Path(__file__).with_name("page.html")
_MAX_CLIENTS = 64
"""Number of clients served at the same time; more connections are closed, so that clients cannot exhaust memory."""
_CLIENT_TIMEOUT_S = 10.0
"""Seconds after which a client that neither sends nor reads is disconnected."""
_FRAME_WAIT_S = 10.0
"""Longest wait in seconds of a request for a newer frame."""
JOIN_S = 2.0
"""Seconds to wait for a thread when the server closes."""
_DEFAULT_WIDTH = 1280
_WIDTHS = range(16, 8193)
"""Widths of a frame in pixels that a client may request."""
_CONTENT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _CONTENT_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class HttpServer(ThreadingHTTPServer):
    """Threaded HTTP server that limits the number of its clients and can disconnect them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: Address, streams: list[Stream]) -> None:
        self.streams = streams
        self.page = _PAGE.read_bytes()
        self._clients: dict[Thread, socket.socket] = {}
        self._clients_lock = Lock()
        family, *_, socket_address = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        self.is_loopback_only = is_loopback(str(socket_address[0]))
        super().__init__((str(socket_address[0]), address.port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind without looking up the full host name, which takes seconds where no name server answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.port

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._clients_lock:
            if len(self._clients) < _MAX_CLIENTS:
                arguments = (request, client_address)
                thread = Thread(target=self._serve_client, args=arguments, name="status-page-client", daemon=True)
                self._clients[thread] = request
                thread.start()
                return
        self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect; print any other error, which is a bug."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def disconnect_clients(self) -> None:
        """Close all connections and wait for their threads."""
        with self._clients_lock:
            clients = dict(self._clients)
        for request in clients.values():
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # already disconnected
        for thread in clients:
            thread.join(JOIN_S)

    def _serve_client(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._clients_lock:
                self._clients.pop(current_thread(), None)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD requests for the page, its data, metrics and health."""

    server: HttpServer
    protocol_version = "HTTP/1.1"
    timeout = _CLIENT_TIMEOUT_S
    server_version, sys_version = "deblur", ""

    def do_GET(self) -> None:
        if self.server.is_loopback_only and not self._is_for_loopback():
            self.close_connection = True
            self._send_text(HTTPStatus.FORBIDDEN, "the status page is served to this machine only; see --serve")
            return
        address = urlsplit(self.path)
        if match := re.fullmatch(r"/pair/(\d{1,4})\.jpg", address.path, re.ASCII):
            self._send_pair(int(match[1]), parse_qs(address.query))
            return
        handler = {
            "/": self._send_page,
            "/stats.json": self._send_statistics,
            "/metrics": self._send_metrics,
            "/healthz": self._send_ready,
            "/healthz/ready": self._send_ready,
            "/healthz/live": self._send_live,
        }.get(address.path)
        if handler is None:
            self._send_text(HTTPStatus.NOT_FOUND, "paths are /, /stats.json, /metrics, /healthz and /pair/0.jpg")
        else:
            handler()

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def log_message(self, *_: object) -> None:
        """Log nothing: standard error belongs to the run."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer an error that http.server finds by itself, without repeating any part of the request."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self.close_connection = True
        self._send_text(status, status.phrase)

    def _send_page(self) -> None:
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)

    def _send_statistics(self) -> None:
        self._send_json(HTTPStatus.OK, {"streams": [stream.to_dict() for stream in self.server.streams]})

    def _send_metrics(self) -> None:
        self._send(HTTPStatus.OK, CONTENT_TYPE, format_metrics(self.server.streams).encode())

    def _send_ready(self) -> None:
        self._send_health("ready")

    def _send_live(self) -> None:
        self._send_health("live")

    def _send_health(self, probe: Literal["ready", "live"]) -> None:
        """Send the health of all streams; the status is 503 if the probe fails for one of them."""
        streams = [stream.check_health().to_dict(stream.name) for stream in self.server.streams]
        values = {
            "live": all(stream["live"] for stream in streams),
            "ready": bool(streams) and all(stream["ready"] for stream in streams),
            "streams": streams,
        }
        self._send_json(HTTPStatus.OK if values[probe] else HTTPStatus.SERVICE_UNAVAILABLE, values)

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
        stream = self.server.streams[index]
        pair = stream.wait_for_pair(after=int(after), width=int(width), wait_s=_FRAME_WAIT_S)
        if pair is None:
            self._send(HTTPStatus.NO_CONTENT, None, b"")
        else:
            headers = {"Deblur-Frame": str(pair.number), "Deblur-Width": str(pair.width)}
            self._send(HTTPStatus.OK, "image/jpeg", pair.jpeg, headers)

    def _is_for_loopback(self) -> bool:
        """Whether the request names a loopback address as its host."""
        host = self.headers.get("Host", "")
        return is_loopback(re.sub(r":\d*$", "", host) if not host.endswith("]") else host)

    def _send_text(self, status: HTTPStatus, line: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{line}\n".encode())

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
