"""Sending pieces ahead of their confirmations, so that a slow link is never idle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import IO, TypeVar

Request = TypeVar("Request")

# A piece takes four packets of SSH's 32 KiB, so it costs one confirmation where four were needed. OpenSSH takes
# pieces up to 256 KiB; larger than 128 were no faster (measured on loopback, 2026-11).
PIECE_BYTES = 130_000
# 4 MB on their way: more than sshd's window of 2 MiB, so that this is never what holds the link back.
_AHEAD = 32


def send_ahead(
    source: IO[bytes],
    offset: int,
    *,
    send: Callable[[int, bytes], Request],
    settle: Callable[[Request], None],
    answered: Callable[[], bool],
) -> None:
    """Send the rest of a file; the oldest confirmations are taken while the newest pieces are on their way.

    Args:
        source: read from its present position to its end.
        offset: of that position in the file.
        send: starts writing a piece at an offset; must not wait for the confirmation.
        settle: waits for one confirmation; raises what the other side refused.
        answered: whether a confirmation has come.
    """
    waiting: deque[Request] = deque()
    while piece := source.read(PIECE_BYTES):
        waiting.append(send(offset, piece))
        offset += len(piece)
        while len(waiting) > _AHEAD or (waiting and answered()):
            settle(waiting.popleft())
    while waiting:
        settle(waiting.popleft())
