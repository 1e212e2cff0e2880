"""The server process of the upload page: Streamlit with checks of hosts and of stored bytes.

`runtime.web` starts it as `python -m runtime.web.server SETTINGS`, with `Settings` as JSON.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path

from starlette.middleware import Middleware
from streamlit.starlette import App

from runtime.web.host_guard import HostGuard
from runtime.web.settings import Settings
from runtime.web.upload_quota import UploadQuota

PAGE = Path(__file__).with_name("page.py")


def main() -> int:
    """Serve the page until a signal ends the process; return the exit code after Ctrl-C."""
    settings = Settings.from_json(sys.argv[1])
    checks = [
        Middleware(HostGuard, address=settings.address, other_names=settings.other_names),
        Middleware(UploadQuota, limits=settings.limits),
    ]
    config = {
        "server.address": settings.address.host,
        "server.port": settings.address.port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.maxUploadSize": settings.limits.upload_mb,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "logger.level": "warning",
    }
    with suppress(KeyboardInterrupt):  # uvicorn ends in order, and then repeats the signal
        App(PAGE, middleware=checks).run(config=config)
    return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
