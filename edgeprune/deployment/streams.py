"""Bytes that arrive in pieces, as text and as lines."""

from __future__ import annotations

from collections.abc import Callable


class Stream:
    """Collects a command's output and passes each full line on as it comes.

    Args:
        on_line: called with each line without its newline; None to only collect.
    """

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._on_line = on_line
        self._chunks: list[bytes] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._chunks.append(data)
        if self._on_line is None:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode("utf-8", "replace"))

    def finish(self) -> str:
        """Pass a last line without a newline on, and return all the text; what is not UTF-8 becomes U+FFFD."""
        if self._on_line is not None and self._rest:
            self._on_line(self._rest.decode("utf-8", "replace"))
            self._rest = b""
        return b"".join(self._chunks).decode("utf-8", "replace")
