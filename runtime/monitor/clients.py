"""Connections to the status page: their number, and the time that each request may take."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Lock, Thread
from time import monotonic

_MAX_CLIENTS = 64
"""Number of connections at the same time; each has a thread."""
REQUEST_S = 10.0
"""Seconds in which a client has to send a whole request, counted from the answer before it."""
ANSWER_S = 60.0
"""Seconds that an answer may take, including the wait for a frame."""


class Client:
    """One connection, its thread, and the time when it has to be done."""

    def __init__(self, connection: socket.socket, thread: Thread) -> None:
        self.thread = thread
        self.is_disconnected = False
        self._connection = connection
        self.expect_request()

    def expect_request(self) -> None:
        """Start the time of the next request."""
        self.began_at = monotonic()
        self.deadline = self.began_at + REQUEST_S

    def begin_answer(self) -> None:
        """Start the time of the answer: the request has arrived."""
        self.deadline = monotonic() + ANSWER_S

    def disconnect(self) -> None:
        """End all calls on the connection, in whichever thread they are; its own thread closes it."""
        self.is_disconnected = True
        with suppress(OSError):  # already disconnected
            # Not `self._connection.shutdown`: under TLS that changes an object which another thread is using.
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)


class Clients:
    """The connections of a server. A new one is always admitted, so that a health check gets its answer.

    Above the limit, the client whose request began longest ago is disconnected: it is idle, sends slowly, or waits.
    """

    def __init__(self) -> None:
        self._clients: dict[socket.socket, Client] = {}
        self._lock = Lock()

    def __getitem__(self, connection: socket.socket) -> Client:
        with self._lock:
            return self._clients[connection]

    def add(self, connection: socket.socket, thread: Thread) -> None:
        """Add a connection, whose thread starts after this call."""
        with self._lock:
            connected = [client for client in self._clients.values() if not client.is_disconnected]
            if len(connected) >= _MAX_CLIENTS:
                min(connected, key=lambda client: client.began_at).disconnect()
            self._clients[connection] = Client(connection, thread)

    def remove(self, connection: socket.socket) -> None:
        """Remove a connection whose thread is about to end."""
        with self._lock:
            self._clients.pop(connection, None)

    def disconnect_late(self) -> None:
        """Disconnect every client that has used up its time."""
        now = monotonic()
        with self._lock:
            for client in self._clients.values():
                if now > client.deadline and not client.is_disconnected:
                    client.disconnect()

    def disconnect_all(self, join_s: float) -> None:
        """Disconnect every client and wait for its thread, at most `join_s` seconds for each."""
        with self._lock:
            clients = list(self._clients.values())
        for client in clients:
            client.disconnect()
        for client in clients:
            client.thread.join(join_s)
