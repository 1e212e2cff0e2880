"""The engine of a batch, opened once, and once more for each library that an unfinished output was begun with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from runtime.engines import PROVIDERS, Engine, Provider, TiledEngine
from runtime.engines.shared import SharedEngine
from runtime.resume import EngineFile


class BatchEngines:
    """Open engines of one file. `open_engine` opens it with a library; `provider` is the library that was asked for."""

    def __init__(
        self, file: EngineFile, open_engine: Callable[[Provider], TiledEngine], provider: Provider = "auto"
    ) -> None:
        self.file = file
        self._open_engine, self._provider = open_engine, provider
        self._resources = ExitStack()
        self.default = self._share(open_engine(provider))
        self._shared: dict[str, SharedEngine] = {self.default.engine.provider: self.default}

    def open_for(self, provider: str) -> SharedEngine:
        """Return an engine with the library of an unfinished output, or the default one if the user chose a library.

        Raises EngineError if that library cannot open the engine here.
        """
        if provider not in self._shared and self._provider == "auto" and provider in PROVIDERS:
            self._shared[provider] = self._share(self._open_engine(provider))
        return self._shared.get(provider, self.default)

    def close(self) -> None:
        """Close all engines."""
        self._resources.close()

    def _share(self, engine: Engine) -> SharedEngine:
        self._resources.callback(engine.close)
        return SharedEngine(engine)
