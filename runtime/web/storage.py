"""Memory that the server keeps for its visitors, uploads and results, with a limit for each visitor and in total."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from runtime.web.messages import JobResult, RefusedError
from runtime.web.settings import Limits

_LATER = "try again in a few minutes"


class Storage:
    """Counts what Streamlit and the page hold at the moment, and what is arriving.

    A session is a browser tab. What it stores is released two minutes after the tab is closed.
    """

    def __init__(self) -> None:
        self._results: WeakValueDictionary[int, JobResult] = WeakValueDictionary()
        self._arriving: dict[object, tuple[str, int]] = {}
        self._refusals: dict[str, str] = {}

    def add_result(self, result: JobResult) -> None:
        """Count the files of a result for as long as a session holds it."""
        self._results[id(result)] = result

    def require_room(self, limits: Limits) -> None:
        """Raise RefusedError if there is no room for another result."""
        if self.total_bytes() >= 1_000_000 * limits.total_mb:
            raise RefusedError(_full(limits), hint=_LATER)

    @contextmanager
    def receive(self, session: str, size: int, limits: Limits) -> Iterator[bool]:
        """Yield whether there is room for an upload of `size` bytes, and count it until it is stored."""
        self._refusals = {
            owner: text for owner, text in self._refusals.items() if is_active(owner) and owner != session
        }
        if self.session_bytes(session) + size > 1_000_000 * limits.session_mb:
            self._refusals[session] = f"a visitor may store {limits.session_mb} MB; remove another upload first"
        elif self.total_bytes() + size > 1_000_000 * limits.total_mb:
            self._refusals[session] = f"{_full(limits)}; {_LATER}"
        if session in self._refusals:
            yield False
            return
        key = object()
        self._arriving[key] = session, size
        try:
            yield True
        finally:
            del self._arriving[key]

    def refusal(self, session: str) -> str:
        """Return why the last upload of a session was not stored; an empty string if it was."""
        return self._refusals.get(session, "")

    def forget_refusal(self, session: str) -> None:
        """Forget why the last upload of a session was not stored."""
        self._refusals.pop(session, None)

    def session_bytes(self, session: str) -> int:
        """Return the size of the uploads of a session."""
        arriving = sum(size for owner, size in self._arriving.values() if owner == session)
        return arriving + _size(_uploads().get(session, {}))

    def total_bytes(self) -> int:
        """Return the size of all uploads and results."""
        results = sum(len(content) for result in list(self._results.values()) for content in result.files.values())
        arriving = sum(size for _, size in list(self._arriving.values()))
        return results + arriving + sum(map(_size, list(_uploads().values())))


STORAGE = Storage()
"""The storage of this process, which the server and the page share."""


def is_active(session: str) -> bool:
    """Whether a tab with this session is open."""
    return runtime.exists() and runtime.get_instance().is_active_session(session)


def _uploads() -> dict[str, dict[str, UploadedFileRec]]:
    """Return the uploads that Streamlit stores, by session and file; nothing outside a server, as in tests."""
    manager = runtime.get_instance().uploaded_file_mgr if runtime.exists() else None
    return manager.file_storage if isinstance(manager, MemoryUploadedFileManager) else {}


def _size(files: dict[str, UploadedFileRec]) -> int:
    return sum(len(file.data) for file in list(files.values()))


def _full(limits: Limits) -> str:
    return f"the server stores {limits.total_mb} MB for its visitors, which is its limit"
