"""How the agent answers: JSON lines on stdout, one event each, and errors with a kind."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

SCHEMA = 1


class AgentError(Exception):
    """A failure that the host understands.

    Args:
        kind: not_installed, bad_artifact, busy, lease_lost, cores, memory, disk, io or runtime.
        message: one sentence.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Replies:
    """Writes events; each is flushed at once, so that the host sees how far the agent came."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event as a line of JSON."""
        line = dict(fields, schema=SCHEMA, event=event)
        self._stream.write(json.dumps(line, sort_keys=True) + "\n")
        self._stream.flush()


def claim_stdout() -> Replies:
    """Keep stdout for events alone: what a runtime's C++ code prints there goes to stderr from now on."""
    sys.stdout.flush()
    private = os.dup(1)
    os.dup2(2, 1)
    return Replies(os.fdopen(private, "w", encoding="utf-8"))
