"""FFmpeg's own messages, which say more than its error numbers."""

from __future__ import annotations

import av.logging


def explain_failure(error: BaseException, messages: list[tuple[int, str, str]]) -> str:
    """Return why FFmpeg has failed, on one line: its first message, or what the exception says."""
    said = next((" ".join(text.split()) for _, _, text in messages if text.strip()), "")
    return (said or getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


class FFmpegMessages:
    """A context manager that collects FFmpeg's messages of errors as (level, name, text); PyAV discards them."""

    def __enter__(self) -> list[tuple[int, str, str]]:
        self._level = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # or a second failure would have no reason
        self._capture = av.logging.Capture(local=True)
        messages: list[tuple[int, str, str]] = self._capture.__enter__()
        return messages

    def __exit__(self, *exception: object) -> None:
        self._capture.__exit__(*exception)  # type: ignore[arg-type]
        av.logging.set_level(self._level)
        av.logging.set_skip_repeated(True)
