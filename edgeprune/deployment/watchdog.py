"""A deadline over calls that know none: when it passes, the socket is cut and whoever waits on it wakes up."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self


class Watchdog:
    """Cuts a socket when nothing has happened for too long.

    Args:
        sock: shut down in both directions when the time is over; its owner still closes it.
        timeout_s: since the start, or since the last `touch`.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self.fired = False
        self.timeout_s = timeout_s
        self._sock = sock
        self._last_sign = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgeprune-watchdog", daemon=True)

    def touch(self) -> None:
        """Start the time anew: there was progress."""
        self._last_sign = time.monotonic()

    def __enter__(self) -> Self:
        self.touch()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while (left := self._last_sign + self.timeout_s - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        self.fired = True
        # It may have been closed by the other side in this very moment.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
