"""The server of the upload page: hosts and origins, and stored bytes."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

pytest.importorskip("streamlit")
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from runtime.address import Address
from runtime.web import storage
from runtime.web.host_guard import HostGuard
from runtime.web.messages import JobResult, RefusedError
from runtime.web.settings import Limits
from runtime.web.storage import Storage
from runtime.web.upload_quota import UploadQuota

LOOPBACK, EVERYWHERE = Address("127.0.0.1", 8501), Address("0.0.0.0", 8501)  # noqa: S104 - nothing is bound
LIMITS = Limits(session_mb=2, total_mb=3)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with status 200, as an application behind the checks."""
    kind = {"http": "http.response.start", "websocket": "websocket.accept"}[scope["type"]]
    await send({"type": kind, "status": 200, "headers": []})


def send_request(app: Any, headers: dict[str, str], *, kind: str = "http", method: str = "GET", path: str = "/") -> Any:
    """Send a request without a body and return the first message of the answer."""
    sent: list[Any] = []
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": method, "path": path, "headers": pairs}

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]


def is_open(host: str, origin: str | None = None, *, address: Address = LOOPBACK, names: tuple[str, ...] = ()) -> bool:
    """Whether a WebSocket for a host is accepted."""
    guard = HostGuard(answer, address=address, other_names=names)
    headers = {"host": host} | ({"origin": origin} if origin is not None else {})
    return send_request(guard, headers, kind="websocket")["type"] == "websocket.accept"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8501", "localhost:8501", "LOCALHOST", "localhost.", "[::1]:8501", "10.1.2.3"]
)
def test_own_names_are_accepted(host: str) -> None:
    assert is_open(host)
    assert is_open(host, f"http://{host}")


@pytest.mark.parametrize(
    "host",
    ["evil.example:8501", "localhost.evil.example", "127.0.0.1.evil.example", "", "a@localhost", "localhost:x", "::1"],
)
def test_other_names_are_refused(host: str) -> None:
    """DNS rebinding: a page of another name, which leads to this machine."""
    assert not is_open(host)
    assert not is_open(host, f"http://{host}")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://localhost:3000", "http://127.0.0.1:80"])
def test_pages_of_another_origin_are_refused(origin: str) -> None:
    assert not is_open("127.0.0.1:8501", origin)
    guard = HostGuard(answer, address=LOOPBACK, other_names=())
    headers = {"host": "127.0.0.1:8501", "origin": origin}
    assert send_request(guard, headers, method="PUT")["status"] == 403
    assert send_request(guard, headers)["status"] == 200  # no harm without CORS headers


def test_names_that_are_allowed_by_the_command_line() -> None:
    assert is_open("deblur.example.org", "https://deblur.example.org", names=("Deblur.example.org",))
    assert is_open("127.0.0.1:8501", "https://deblur.example.org", names=("deblur.example.org",))  # a proxy's request
    assert is_open("board.lan:8501", address=Address("board.lan", 8501))
    assert not is_open("other.lan:8501", address=Address("board.lan", 8501))


def test_the_name_of_the_machine_is_accepted_where_all_its_addresses_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Board")
    assert is_open("board:8501", address=EVERYWHERE)
    assert is_open("board.local:8501", address=EVERYWHERE)
    assert not is_open("board:8501")
    assert not is_open("evil.example", address=EVERYWHERE)


def test_a_refused_request_says_what_to_type() -> None:
    guard = HostGuard(answer, address=LOOPBACK, other_names=())
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"board.lan")]}
    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 403
    assert sent[1]["body"] == b"board.lan is not a name of this page; start it with --allow-host board.lan\n"
    scope["headers"] *= 2
    sent.clear()
    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 403


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> MemoryUploadedFileManager:
    """Storage of Streamlit, without its server; every session is active."""
    manager = MemoryUploadedFileManager("/")
    monkeypatch.setattr(storage, "_uploads", lambda: manager.file_storage)
    monkeypatch.setattr(storage, "is_active", lambda _: True)
    return manager


def store(manager: MemoryUploadedFileManager, session: str, name: str, size: int) -> None:
    manager.add_file(session, UploadedFileRec(name, name, "", bytes(size)))


def test_uploads_of_a_visitor_and_in_total(manager: MemoryUploadedFileManager) -> None:
    place = Storage()
    store(manager, "a", "1", 1_500_000)
    with place.receive("a", 600_000, LIMITS) as has_room:
        assert not has_room
    assert place.refusal("a") == "a visitor may store 2 MB; remove another upload first"
    with place.receive("a", 400_000, LIMITS) as has_room:
        assert has_room
        assert place.session_bytes("a") == 1_900_000  # what arrives counts, too
        with place.receive("a", 400_000, LIMITS) as has_more_room:
            assert not has_more_room
    assert place.session_bytes("a") == 1_500_000
    with place.receive("b", 1_600_000, LIMITS) as has_room:
        assert not has_room
    assert "3 MB" in place.refusal("b")
    manager.remove_session_files("a")
    with place.receive("b", 1_600_000, LIMITS) as has_room:
        assert has_room
    assert not place.refusal("b")


def test_results_count_while_they_are_held(manager: MemoryUploadedFileManager) -> None:
    place = Storage()
    result = JobResult(files={"restored.png": bytes(3_000_000)}, frames=1, fps=1.0, engine_ms=1.0)
    place.require_room(LIMITS)
    place.add_result(result)
    with pytest.raises(RefusedError, match="3 MB"):
        place.require_room(LIMITS)
    del result
    gc.collect()
    place.require_room(LIMITS)


def test_uploads_without_room_are_discarded(
    manager: MemoryUploadedFileManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.web.upload_quota.is_active", lambda session: session == "a")
    app = UploadQuota(answer_created, limits=LIMITS)
    path = "/_stcore/upload_file/a/1"
    assert send_request(app, {"content-length": "100"}, method="PUT", path=path)["status"] == 201
    assert send_request(app, {"content-length": "2000001"}, method="PUT", path=path)["status"] == 200
    assert storage.STORAGE.refusal("a")
    assert send_request(app, {}, method="DELETE", path=path)["status"] == 201
    assert not storage.STORAGE.refusal("a")
    assert send_request(app, {}, method="PUT", path=path)["status"] == 411
    other = path.replace("/a/", "/unknown/")
    assert send_request(app, {"content-length": "2000001"}, method="PUT", path=other)["status"] == 201


async def answer_created(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 201, "headers": []})
