"""The status page over real sockets: frames, figures, metrics, health, addresses, and badly behaved clients."""

from __future__ import annotations

import argparse
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from fractions import Fraction
from pathlib import Path
from threading import Event, Thread

import cv2
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.engines import open_engine
from runtime.engines.base import Engine, SynchronousEngine
from runtime.errors import OutputError, SourceLostError
from runtime.frame import Frame, Pixels
from runtime.monitor import Access, Address, StatusServer, Stream, clients, request_handler
from runtime.pipeline import Pipeline
from runtime.sinks.base import NullSink, Sink
from runtime.sinks.video import VideoSink
from runtime.sources import Source, Watch, open_source
from runtime.sources.base import SourceInfo
from runtime.sources.live import LiveSource
from runtime.spec import EngineSpec
from runtime.stream_format import PLAIN
from runtime.video import main
from tests.conftest import make_image
from tests.rig import free_port, wait_until
from tests.runtime.conftest import UNGUARDED

ANY = Address("127.0.0.1", 0)
EVERYWHERE = Address("0.0.0.0", 0)  # noqa: S104 - the tests connect from here only
TOKEN = "a-token-of-the-tests"  # noqa: S105 - not a real one


class ManualSource:
    """A live source that yields a frame on each `send_frame`, or every `every_s` seconds, until `fail` is called."""

    dropped = reconnects = 0
    damage = None

    def __init__(self, *, name: str = "manual", size: tuple[int, int] = (64, 48), every_s: float = math.inf) -> None:
        self.info = SourceInfo(name=name, time_base=Fraction(1, 25), frame_rate=Fraction(25), is_live=True)
        self.warnings: list[str] = []
        self.error: Exception | None = None
        self.sent: list[Pixels] = []
        self._size, self._every_s = size, every_s
        self._requested, self._closed = Event(), False

    def send_frame(self) -> None:
        self._requested.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._requested.set()

    def __iter__(self) -> Iterator[Frame]:
        while not self._closed:
            self._requested.wait(min(self._every_s, 60))
            self._requested.clear()
            if self.error:
                raise self.error
            if not self._closed:
                self.sent.append(make_image(*self._size, seed=len(self.sent)))
                now = time.perf_counter()
                yield Frame(pixels=self.sent[-1], pts=len(self.sent), time_base=Fraction(1, 25), captured_at=now)

    def close(self) -> None:
        self._closed = True
        self._requested.set()


class StuckEngine(SynchronousEngine):
    """An engine whose inference blocks until `released` is set."""

    spec, backend, provider = EngineSpec(name="stuck"), "test", "cpu"

    def __init__(self) -> None:
        super().__init__()
        self.released = Event()

    def infer(self, batch: Pixels) -> Pixels:
        self.released.wait(60)
        return batch

    def close(self) -> None: ...


class BackgroundRun:
    """A pipeline that runs in a thread and is shown by a server."""

    def __init__(self, server: StatusServer, source: Source, engine: Engine, sink: Sink | None = None) -> None:
        self.pipeline = Pipeline(source, engine, sink or NullSink(), UNGUARDED)
        self.stream: Stream = server.add(self.pipeline, engine)
        self.thread = Thread(target=self._run)
        self.thread.start()

    def stop(self) -> None:
        self.pipeline.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def _run(self) -> None:
        with suppress(SourceLostError), self.stream.track_run():
            self.pipeline.run()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as resources:
        yield resources


def start_run(stack: ExitStack, source: Source, engine: Engine, **options: float) -> tuple[StatusServer, BackgroundRun]:
    server = stack.enter_context(closing(StatusServer(ANY, **options)))
    run = BackgroundRun(server, source, engine)
    stack.callback(run.stop)
    return server, run


def get(url: str, *, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a response."""
    host, _, path = url.removeprefix("http://").partition("/")
    with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
        connection.request(method, f"/{path}", headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def get_json(url: str) -> tuple[int, dict]:
    status, _, body = get(url)
    return status, json.loads(body)


def read_metrics(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the value of each sample by name and labels, as Prometheus' own parser reads them."""
    status, headers, body = get(f"{url}metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(body.decode()))
    assert all(family.documentation and family.type != "unknown" for family in families)
    samples = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
    ]
    assert len(dict(samples)) == len(samples)
    return dict(samples)


def split_halves(body: bytes, headers: dict[str, str]) -> tuple[Pixels, Pixels]:
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    width = int(headers["Deblur-Width"])
    return image[:, :width], image[:, -width:]


def is_close(one: Pixels, other: Pixels) -> bool:
    return bool(np.abs(one.astype(int) - other.astype(int)).mean() < 6)


@pytest.mark.parametrize("size", [(64, 48), (57, 33)])
def test_pair_is_the_newest_frame_before_and_after(stack, invert, size) -> None:
    source = ManualSource(size=size)
    server, _ = start_run(stack, source, open_engine(invert))
    for number in (1, 2):
        source.send_frame()
        status, headers, body = get(f"{server.url}pair/0.jpg?after={number - 1}")
        assert (status, headers["Content-Type"], headers["Deblur-Frame"]) == (200, "image/jpeg", str(number))
        before, after = split_halves(body, headers)
        assert before.shape == after.shape == (size[1], size[0], 3)
        assert is_close(before, source.sent[-1])
        assert is_close(after, 255 - source.sent[-1])
        assert not is_close(after, source.sent[-1])


def test_large_frames_are_scaled_down_to_the_requested_width(stack, invert) -> None:
    source = ManualSource(size=(2560, 720))
    server, _ = start_run(stack, source, open_engine(invert))
    source.send_frame()
    shapes = {}
    for query in ("", "?width=640", "?width=4000"):
        _, headers, body = get(f"{server.url}pair/0.jpg{query}")
        shapes[query] = split_halves(body, headers)[1].shape[:2]
    assert shapes == {"": (360, 1280), "?width=640": (180, 640), "?width=4000": (720, 2560)}


def test_request_waits_a_limited_time_for_a_newer_frame(stack, invert, monkeypatch) -> None:
    monkeypatch.setattr(request_handler, "_FRAME_WAIT_S", 0.3)
    source = ManualSource()
    server, run = start_run(stack, source, open_engine(invert))
    assert get(f"{server.url}pair/0.jpg")[0] == 204
    source.send_frame()
    wait_until(lambda: run.pipeline.frames_written == 1)
    assert get(f"{server.url}pair/0.jpg")[0] == 200
    status, headers, body = get(f"{server.url}pair/0.jpg?after=1")
    assert (status, body) == (204, b"")
    assert "Content-Length" not in headers
    assert get(f"{server.url}pair/0.jpg?after=99")[0] == 200  # a frame number of an earlier server at this address


def test_frame_is_encoded_once_for_all_clients_and_never_without_clients(stack, invert, monkeypatch) -> None:
    encoded = []
    imencode = cv2.imencode
    monkeypatch.setattr(
        "runtime.monitor.stream.cv2.imencode", lambda *arguments: encoded.append(1) or imencode(*arguments)
    )
    source = ManualSource()
    server, run = start_run(stack, source, open_engine(invert))
    for count in (1, 2, 3):
        source.send_frame()
        wait_until(lambda count=count: run.pipeline.frames_written == count)
    assert not encoded
    responses: list[tuple[int, dict[str, str], bytes]] = []
    viewers = [Thread(target=lambda: responses.append(get(f"{server.url}pair/0.jpg"))) for _ in range(5)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join(20)
    assert len(responses) == 5
    assert len({response[2] for response in responses}) == 1
    assert len(encoded) == 1


def test_statistics_of_a_clip(stack, clip, invert) -> None:
    source = open_source(str(clip))
    server, run = start_run(stack, source, open_engine(invert))
    run.thread.join(20)
    status, values = get_json(f"{server.url}stats.json")
    (stream,) = values["streams"]
    assert status == 200
    assert stream["frames"] == {"read": 10, "written": 10, "dropped": 0, "rejected": 0, "skipped": 0, "reconnects": 0}
    assert (stream["state"], stream["ready"], stream["live"]) == ("done", True, True)
    assert stream["engine"]["name"] == "invert"
    time.sleep(1.1)  # the curve holds whole seconds only
    curve = get_json(f"{server.url}stats.json")[1]["streams"][0]["curve"]
    assert [len(curve[name]) for name in ("frames", "p50_ms", "max_ms")] == [120, 120, 120]
    assert sum(count or 0 for count in curve["frames"]) == 10
    assert max(value or 0 for value in curve["max_ms"]) == pytest.approx(stream["latency_ms"]["total"]["max"], abs=5)
    seconds = [second for second, count in enumerate(curve["frames"]) if count]
    expected = 10 / min(5, 120 - seconds[0])  # the mean since the first frame, over five seconds at most
    assert get_json(f"{server.url}stats.json")[1]["streams"][0]["fps_now"] in {expected, 10 / min(5, 121 - seconds[0])}
    assert all(p50 <= maximum for p50, maximum in zip(curve["p50_ms"], curve["max_ms"], strict=True) if p50 is not None)


def test_metrics_are_valid_for_prometheus(stack, invert) -> None:
    source, other = ManualSource(name='a "quoted"\\ name\nof two lines'), ManualSource()
    server, run = start_run(stack, source, open_engine(invert))
    second = BackgroundRun(server, other, open_engine(invert))
    stack.callback(second.stop)
    source.send_frame()
    wait_until(lambda: run.pipeline.frames_written == 1)
    wait_until(lambda: run.stream.check_health().last_frame_age_s is not None)
    metrics = read_metrics(server.url)
    labels = {"stream": "0", "source": 'a "quoted"\\ name\nof two lines'}

    def value_of(name: str, **more: str) -> float | None:
        return metrics.get((name, frozenset((labels | more).items())))

    assert value_of("deblur_frames_written_total") == value_of("deblur_frames_read_total") == 1
    assert value_of("deblur_frames_dropped_total") == value_of("deblur_reconnects_total") == 0
    assert value_of("deblur_up") == value_of("deblur_ready") == 1
    assert 0 <= value_of("deblur_last_frame_age_seconds") < 60
    total = run.pipeline.latencies["total"]
    assert value_of("deblur_latency_seconds_count", stage="total") == 1
    assert value_of("deblur_latency_seconds_sum", stage="total") == pytest.approx(total.sum_ms / 1e3)
    assert value_of("deblur_latency_seconds", stage="total", quantile="0.99") == pytest.approx(
        total.max_ms / 1e3, rel=0.01
    )
    resident = psutil.Process().memory_info().rss
    assert metrics["process_resident_memory_bytes", frozenset()] == pytest.approx(resident, rel=0.5)
    quiet = {"stream": "1", "source": "manual"}
    assert metrics["deblur_ready", frozenset(quiet.items())] == 0
    assert ("deblur_last_frame_age_seconds", frozenset(quiet.items())) not in metrics


def test_server_without_streams_is_live_but_not_ready(stack) -> None:
    server = stack.enter_context(closing(StatusServer(ANY)))
    assert get_json(f"{server.url}healthz/ready")[0] == 503
    assert get_json(f"{server.url}healthz/live")[0] == 200
    assert get_json(f"{server.url}stats.json") == (200, {"streams": []})
    assert {name for name, _ in read_metrics(server.url)} <= {
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    }


def test_stalled_source_is_live_but_not_ready(stack, invert) -> None:
    source = ManualSource()
    server, _ = start_run(stack, source, open_engine(invert), stale_s=1.0, stuck_s=1.0)
    assert get_json(f"{server.url}healthz/ready")[0] == 503
    assert get_json(f"{server.url}healthz/live")[0] == 200

    def is_ready() -> bool:
        return get_json(f"{server.url}healthz")[0] == 200

    # One frame makes the stream ready for a second, which a single request may miss.
    wait_until(lambda: source.send_frame() or is_ready())
    wait_until(lambda: not is_ready())
    status, values = get_json(f"{server.url}healthz/ready")
    assert status == 503
    assert (values["live"], values["ready"]) == (True, False)
    (stream,) = values["streams"]
    assert (stream["source"], stream["state"]) == ("manual", "waiting")
    assert stream["reason"].startswith("no frame for ")
    assert stream["last_frame_age_s"] >= 1
    assert stream["since"].endswith("+00:00")
    time.sleep(1)  # longer than stuck_s, with engine and sink idle
    assert get_json(f"{server.url}healthz/live")[0] == 200
    wait_until(lambda: source.send_frame() or is_ready())


@pytest.mark.parametrize("part", ["engine", "sink"])
def test_hanging_engine_or_output_is_not_live(stack, invert, part) -> None:
    stuck = StuckEngine()

    class BlockedSink(NullSink):
        def write(self, frame: Frame) -> None:
            stuck.released.wait(60)

    source = ManualSource(every_s=0.05)
    server = stack.enter_context(closing(StatusServer(ANY, stale_s=0.2, stuck_s=0.5)))
    run = BackgroundRun(server, source, *((stuck,) if part == "engine" else (open_engine(invert), BlockedSink())))
    stack.callback(run.stop)
    stack.callback(stuck.released.set)
    wait_until(lambda: get_json(f"{server.url}healthz/live")[0] == 503)
    _, values = get_json(f"{server.url}healthz")
    assert values["streams"][0]["state"] == "stuck"
    stuck.released.set()
    wait_until(lambda: get_json(f"{server.url}healthz")[0] == 200)
    assert get_json(f"{server.url}healthz/live")[0] == 200


def test_failed_stream_is_not_live_and_no_response_has_its_password(stack, invert) -> None:
    secret = "hunter2"  # noqa: S105 - not a real password
    source = ManualSource(name=f"rtsp://user:{secret}@10.0.0.7/live?token={secret}")
    source.warnings.append(f"connected again 1 times: rtsp://user:{secret}@10.0.0.7/live broke")
    server, run = start_run(stack, source, open_engine(invert))
    source.fail(SourceLostError("gone", f"rtsp://user:{secret}@10.0.0.7/live", hint="check it"))
    run.thread.join(20)
    status, values = get_json(f"{server.url}healthz/live")
    assert status == 503
    assert values["streams"][0]["state"] == "failed"
    assert values["streams"][0]["reason"] == "gone: rtsp://***@10.0.0.7/live; check it"
    for path in ("", "stats.json", "metrics", "healthz", "healthz/live"):
        assert secret.encode() not in get(f"{server.url}{path}")[2]
    assert b"10.0.0.7/live broke" in get(f"{server.url}stats.json")[2]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]", 200),
        ("[::1]:1", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.7", 403),
        ("", 403),
    ],
)
def test_loopback_server_refuses_requests_for_other_hosts(stack, host, status) -> None:
    server = stack.enter_context(closing(StatusServer(ANY)))
    for path in ("", "stats.json", "metrics", "pair/0.jpg"):
        expected = 404 if status == 200 and path == "pair/0.jpg" else status
        assert get(f"{server.url}{path}", Host=host)[0] == expected


def find_own_address() -> str | None:
    addresses = (
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    )
    return next((address for address in addresses if not address.startswith("127.")), None)


def test_default_host_is_loopback(stack) -> None:
    assert Address.parse("8080") == Address("127.0.0.1", 8080)
    address = find_own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    port = free_port()
    with closing(StatusServer(Address.parse(str(port)))), pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, port), timeout=2)
    with closing(StatusServer(Address.parse(f"0.0.0.0:{port}"), Access(TOKEN))):
        assert get(f"http://{address}:{port}/stats.json", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert get(f"http://{address}:{port}/stats.json", Authorization=f"Bearer {TOKEN}", Host="board.lan")[0] == 200


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0", Address("127.0.0.1", 0)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),  # noqa: S104 - only parsed
        ("[::1]:8080", Address("::1", 8080)),
        ("board.lan:8080", Address("board.lan", 8080)),
    ],
)
def test_valid_addresses(text, address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", ":80", "80:", "65536", "-1", "::1:80", "a b:80", "http://x:80", "80\n", "[x]:80"])
def test_invalid_addresses(text) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected \[HOST:\]PORT"):
        Address.parse(text)


def test_ipv6(stack) -> None:
    try:
        server = stack.enter_context(closing(StatusServer(Address("::1", 0))))
    except OutputError:
        pytest.skip("this machine has no IPv6")
    assert server.url.startswith("http://[::1]:")
    assert get(f"{server.url}stats.json")[0] == 200


def test_unusable_addresses() -> None:
    with closing(StatusServer(ANY)) as first:
        port = int(first.url.split(":")[-1].strip("/"))
        with pytest.raises(OutputError, match=rf"^port {port} is in use; give another --serve$") as caught:
            StatusServer(Address("127.0.0.1", port))
        assert caught.value.exit_code == 6
    with pytest.raises(OutputError, match=r"^no-such-host\.invalid:80 cannot be served on \(.*\); give another"):
        StatusServer(Address("no-such-host.invalid", 80))


def test_unknown_paths_queries_and_methods(stack, invert) -> None:
    server, _ = start_run(stack, ManualSource(), open_engine(invert))
    for path in ("favicon.ico", "pair/1.jpg", "pair/x.jpg", "../etc/passwd", "pair/0.jpg/", "stats.json/x", "metrics/"):
        assert get(f"{server.url}{path}")[0] == 404
    for query in ("after=x", "width=0", "width=99999", "after=-1", "width=%00", "after=" + "9" * 30):
        assert get(f"{server.url}pair/0.jpg?{query}")[0] == 400
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "<b>"):
        status, _, body = get(server.url, method=method)
        assert status == 405
        assert b"<" not in body
    status, headers, body = get(server.url, method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(get(server.url)[2])


def test_page_loads_nothing_from_other_hosts(stack) -> None:
    server = stack.enter_context(closing(StatusServer(ANY)))
    _, headers, body = get(server.url)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert body.replace(b'"http://www.w3.org/2000/svg"', b"").count(b"//") == body.count(b"\n//") + body.count(
        b";  // "
    )


def test_bad_clients_delay_neither_frames_nor_shutdown(invert, monkeypatch) -> None:
    monkeypatch.setattr(clients, "_MAX_CLIENTS", 8)
    before = set(threading.enumerate())
    source = ManualSource(size=(1280, 720), every_s=0.01)
    server = StatusServer(ANY)
    run = BackgroundRun(server, source, open_engine(invert))
    host_and_port = server.url.removeprefix("http://").strip("/").split(":")
    address = (host_and_port[0], int(host_and_port[1]))
    silent = [socket.create_connection(address) for _ in range(3)]
    deaf = [socket.socket() for _ in range(2)]
    for client in deaf:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(address)
        for _ in range(200):  # far more responses than the socket buffers hold
            with suppress(OSError):
                client.settimeout(0.05)
                client.sendall(b"GET /pair/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    gone = socket.create_connection(address)
    gone.sendall(b"GET /pair/0.jpg?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    gone.close()
    written = run.pipeline.frames_written
    wait_until(lambda: run.pipeline.frames_written > written + 5)
    assert get(f"{server.url}stats.json")[0] == 200
    crowd = [socket.create_connection(address) for _ in range(20)]
    began = time.monotonic()
    run.stop()
    server.close()
    assert time.monotonic() - began < 8  # less than the 10 s after which a client is disconnected
    assert not [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=1)
    server.close()
    for client in silent + deaf + crowd:
        client.close()


def connect(stack: ExitStack, server: StatusServer) -> socket.socket:
    host, port = server.url.split("/")[2].split(":")
    return stack.enter_context(socket.create_connection((host, int(port)), timeout=20))


def test_a_full_server_answers_new_clients_and_disconnects_the_one_that_is_slowest(stack, monkeypatch) -> None:
    monkeypatch.setattr(clients, "_MAX_CLIENTS", 3)
    server = stack.enter_context(closing(StatusServer(ANY)))
    crowd = [connect(stack, server) for _ in range(3)]
    for client in crowd:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    crowd[0].sendall(b"x\r\n\r\n")
    assert crowd[0].recv(12) == b"HTTP/1.1 200"
    for _ in range(5):
        assert get_json(f"{server.url}healthz/live")[0] == 200
    assert crowd[1].recv(1) == b""  # it began before the second request of the first client


def test_a_request_has_a_deadline_even_if_its_bytes_keep_coming(stack, monkeypatch) -> None:
    monkeypatch.setattr(clients, "REQUEST_S", 0.3)
    server = stack.enter_context(closing(StatusServer(ANY)))
    client = connect(stack, server)
    client.sendall(b"GET / HTTP/1.1\r\n")

    def is_disconnected() -> bool:
        try:
            client.sendall(b"a")
        except OSError:
            return True
        return False

    wait_until(is_disconnected)


def test_an_answer_that_is_not_read_has_a_deadline(stack, invert, monkeypatch) -> None:
    monkeypatch.setattr(clients, "ANSWER_S", 0.3)
    server, run = start_run(stack, ManualSource(), open_engine(invert))
    client = connect(stack, server)
    client.sendall(b"GET /pair/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n")  # waits 10 s for the first frame
    client.settimeout(5)
    assert client.recv(1) == b""
    assert run.thread.is_alive()


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET /" + b"a" * 70_000, b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: %s\r\n" % (i, b"a" * 999) for i in range(40))],
    ids=["line", "headers"],
)
def test_requests_that_are_too_long_are_refused_before_they_are_read(stack, request_bytes, capfd) -> None:
    server = stack.enter_context(closing(StatusServer(ANY)))
    client = connect(stack, server)
    with suppress(OSError):
        client.sendall(request_bytes)
    answer = b""
    with suppress(ConnectionResetError):
        while data := client.recv(4096):
            answer += data
    assert not answer or answer.startswith(b"HTTP/1.1 431 ")  # a reset may overtake the answer
    assert get_json(f"{server.url}healthz/live")[0] == 200
    assert not capfd.readouterr().err


def test_malformed_requests_get_an_answer_and_no_traceback(stack, invert, capfd, monkeypatch) -> None:
    monkeypatch.setattr(request_handler, "_FRAME_WAIT_S", 0.0)
    server, _ = start_run(stack, ManualSource(), open_engine(invert))
    rng = np.random.default_rng(0)
    seeds = [
        b"GET http://[ HTTP/1.1",
        b"GET //[x HTTP/1.1",
        b"GET /pair/0.jpg?after=1 HTTP/1.1",
        b"POST /login HTTP/1.1",
    ]
    client = connect(stack, server)
    client.sendall(seeds[0] + b"\r\nHost: localhost\r\n\r\n")
    assert client.recv(12) == b"HTTP/1.1 400"
    for index in range(300):
        line = bytearray(seeds[index % len(seeds)])
        for _ in range(rng.integers(1, 4)):
            line[rng.integers(len(line))] = rng.integers(256)
        with socket.socket() as client, suppress(OSError):
            client.connect(("127.0.0.1", int(server.url.split(":")[-1].strip("/"))))
            client.sendall(bytes(line) + b"\r\nHost: localhost\r\nContent-Length: -1\r\nConnection: close\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            client.settimeout(15)
            client.recv(100)
    assert get_json(f"{server.url}healthz/live")[0] == 200
    assert not capfd.readouterr().err


def test_file_names_that_are_not_utf8(stack, invert) -> None:
    server, _ = start_run(stack, ManualSource(name="clip\udcff.mp4"), open_engine(invert))
    names = {dict(labels).get("source") for _, labels in read_metrics(server.url)}
    assert "clip\\udcff.mp4" in names
    for path in ("stats.json", "healthz"):
        assert b"clip" in get(f"{server.url}{path}")[2]


def test_too_many_viewers_leave_room_for_health_checks(stack, invert, monkeypatch) -> None:
    monkeypatch.setattr("runtime.monitor.http_server.MAX_VIEWERS", 2)
    server, _ = start_run(stack, ManualSource(), open_engine(invert))
    for _ in range(2):
        connect(stack, server).sendall(b"GET /pair/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until(lambda: not server._server.viewers._value)
    assert get(f"{server.url}pair/0.jpg")[0] == 503
    assert get_json(f"{server.url}healthz/live")[0] == 200


def test_silent_clients_are_disconnected(stack, monkeypatch) -> None:
    monkeypatch.setattr(request_handler.RequestHandler, "timeout", 0.2)
    server = stack.enter_context(closing(StatusServer(ANY)))
    host_and_port = server.url.removeprefix("http://").strip("/").split(":")
    client = stack.enter_context(socket.create_connection((host_and_port[0], int(host_and_port[1])), timeout=20))
    assert client.recv(1) == b""


def test_dropped_frames_of_a_live_source_are_counted(stack, invert) -> None:
    class Feed:
        frame_rate, format, damaged_packets = Fraction(50), PLAIN, 0

        def __iter__(self) -> Iterator[Callable[[], Pixels]]:
            for index in range(100_000):
                time.sleep(0.02)
                yield lambda index=index: make_image(32, 24, seed=index % 50)

        def close(self) -> None: ...

    class SlowEngine(SynchronousEngine):
        spec, backend, provider = EngineSpec(name="slow"), "test", "cpu"

        def infer(self, batch: Pixels) -> Pixels:
            time.sleep(0.1)
            return batch

        def close(self) -> None: ...

    server, run = start_run(stack, LiveSource("feed", Feed, Watch(open_s=20)), SlowEngine())
    wait_until(lambda: run.pipeline.frames_written >= 10)
    (stream,) = get_json(f"{server.url}stats.json")[1]["streams"]
    assert stream["frames"]["dropped"] > 10
    assert stream["latency_ms"]["total"]["p50"] >= 100
    assert stream["ready"]


def test_serve_option_of_the_command_line(clip: Path, tmp_path: Path, invert: Path, capfd, monkeypatch) -> None:
    port, seen, is_seen = free_port(), [], Event()
    write = VideoSink.write
    monkeypatch.setattr(VideoSink, "write", lambda sink, frame: is_seen.wait(60) and write(sink, frame))

    def poll() -> None:
        def has_streams() -> bool:
            with suppress(OSError, http.client.HTTPException):
                seen.append(get_json(f"http://127.0.0.1:{port}/stats.json")[1])
            return bool(seen and seen[-1]["streams"])

        wait_until(has_streams, 60)
        is_seen.set()

    polling = Thread(target=poll)
    polling.start()
    arguments = ["--engine", str(invert), "--source", str(clip), "--out", str(tmp_path / "o.mp4"), "--serve", str(port)]
    assert main(arguments) == 0
    polling.join(60)
    assert f"page    http://127.0.0.1:{port}/\n" in capfd.readouterr().err
    assert seen[-1]["streams"][0]["source"] == str(clip)
    with closing(StatusServer(Address("127.0.0.1", port))):
        assert main(["-y", *arguments]) == 6
    assert f"error: port {port} is in use; give another --serve\n" in capfd.readouterr().err
