"""Server of the status page: its address, its connections and their threads."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from threading import Semaphore, Thread
from typing import Any

from runtime.address import Address, is_loopback
from runtime.cli import say
from runtime.errors import is_out_of_memory
from runtime.monitor.access import Access, make_token
from runtime.monitor.clients import Clients
from runtime.monitor.request_handler import MAX_VIEWERS, RequestHandler
from runtime.monitor.stream import Stream

JOIN_S = 2.0
"""Seconds to wait for a thread when the server closes."""


class HttpServer(ThreadingHTTPServer):
    """Threaded HTTP or HTTPS server that limits the number, time and memory of its clients and can disconnect them.

    If other machines can reach its address and `access` has no token, it makes one.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: Address, streams: list[Stream], access: Access) -> None:
        self.streams = streams
        self.clients = Clients()
        self.viewers = Semaphore(MAX_VIEWERS)
        family, *_, socket_address = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        self.is_loopback_only = is_loopback(str(socket_address[0]))
        self.has_made_token = not (access.token or self.is_loopback_only)
        self.access = replace(access, token=make_token()) if self.has_made_token else access
        super().__init__((str(socket_address[0]), address.port), RequestHandler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind without looking up the full host name, which takes seconds where no name server answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.port

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; the handshake of TLS is left to the client's thread."""
        connection, address = super().get_request()
        if self.access.tls:
            try:
                connection = self.access.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            except OSError:
                connection.close()
                raise
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        arguments = (request, client_address)
        thread = Thread(target=self._serve_client, args=arguments, name="status-page-client", daemon=True)
        self.clients.add(request, thread)
        try:
            thread.start()
        except RuntimeError:
            self.clients.remove(request)
            raise

    def service_actions(self) -> None:
        """Disconnect late clients; `serve_forever` calls this several times a second."""
        self.clients.disconnect_late()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect, and too little memory; report other errors, which are bugs, on one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) and not is_out_of_memory(error):
            say(f"warning: a request to the status page failed; this is a bug ({type(error).__name__}: {error})")

    def _serve_client(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            self.clients.remove(request)
