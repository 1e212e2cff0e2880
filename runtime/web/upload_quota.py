"""ASGI middleware that stores no upload for which there is no room."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.web.settings import Limits
from runtime.web.storage import STORAGE, is_active

_UPLOADS = "/_stcore/upload_file/"
"""Path below which Streamlit takes uploads: SESSION/FILE follows."""


class UploadQuota:
    """Discards an upload above the limits of `Storage` while it arrives.

    Streamlit shows an upload that fails as `AxiosError`, without the sentence of the server. So the answer is a
    success, and the page, which then finds no file, shows `Storage.refusal`.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is an upload for which there is no room."""
        path = scope["path"] if scope["type"] == "http" else ""
        session = path.removeprefix(_UPLOADS).partition("/")[0]
        if not path.startswith(_UPLOADS) or not is_active(session) or scope["method"] not in ("PUT", "DELETE"):
            await self._app(scope, receive, send)
        elif scope["method"] == "DELETE":
            STORAGE.forget_refusal(session)
            await self._app(scope, receive, send)
        else:
            await self._receive_upload(session, scope, receive, send)

    async def _receive_upload(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        size = Headers(scope=scope).get("content-length", "")
        if not size.isdecimal():
            await PlainTextResponse("an upload needs a Content-Length\n", status_code=411)(scope, receive, send)
            return
        with STORAGE.receive(session, int(size), self._limits) as has_room:
            if has_room:
                await self._app(scope, receive, send)
                return
        while (await receive()).get("more_body"):
            pass
        await PlainTextResponse(f"not stored: {STORAGE.refusal(session)}\n")(scope, receive, send)
