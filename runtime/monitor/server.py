"""The status page of a process: one server for all of its streams."""

from __future__ import annotations

import errno
from threading import Thread

from runtime.address import Address
from runtime.engines.base import Engine
from runtime.errors import OutputError
from runtime.monitor.access import OPEN, Access
from runtime.monitor.http_server import JOIN_S, HttpServer
from runtime.monitor.stream import Stream
from runtime.pipeline import Pipeline


class StatusServer:
    """Serves the status page, metrics and health of every added stream, in threads of its own.

    A stream is not ready after `stale_s` seconds without a frame, and not live after its engine or output has been busy
    with one frame for `stuck_s` seconds. On a loopback address, requests whose `Host` is not loopback are refused, so
    that a foreign web page cannot read this one through a host name that it controls (DNS rebinding). Port 0 takes any
    free port. Other addresses need a token: that of `access`, or a new one. Raises OutputError for an unusable address.
    """

    def __init__(
        self, address: Address, access: Access = OPEN, *, stale_s: float = 10.0, stuck_s: float = 60.0
    ) -> None:
        self._stale_s, self._stuck_s = stale_s, stuck_s
        self._streams: list[Stream] = []
        try:
            self._server = HttpServer(address, self._streams, access)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                what = f"port {address.port} is in use"
            else:
                what = f"{address} cannot be served on ({error.strerror or error})"
            raise OutputError(what, hint="give another --serve") from error
        self.url = f"{'https' if access.tls else 'http'}://{Address(address.host, self._server.port)}/"
        self.login_url = f"{self.url}?token={self._server.access.token}" if self._server.has_made_token else self.url
        """Address to open in a browser; it holds the token if this server has made one."""
        self._thread = Thread(target=self._server.serve_forever, args=(0.2,), name="status-page", daemon=True)
        self._thread.start()

    def add(self, pipeline: Pipeline, engine: Engine) -> Stream:
        """Add a pipeline that has not started yet to the page."""
        stream = Stream(pipeline, engine, stale_s=self._stale_s, stuck_s=self._stuck_s)
        pipeline.listeners.append(stream.on_frame)
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        """Stop serving and disconnect all clients; safe to call twice."""
        for stream in self._streams:
            stream.release_clients()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(JOIN_S)
        self._server.clients.disconnect_all(JOIN_S)
