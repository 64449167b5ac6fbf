"""The run's event log: one JSON object a line, appended as things happen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeprune.events import Event, Reporter, StageProgress


class EventLog:
    """A reporter that appends to `events.jsonl`. Progress ticks are left out: they say nothing afterwards."""

    def __init__(self, path: Path, *, wall_clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", encoding="utf-8")
        if torn:
            # A killed build left half a line: it must not spoil the next one.
            self._file.write("\n")
        self._wall_clock = wall_clock

    def emit(self, event: Event) -> None:
        """Append one event."""
        if isinstance(event, StageProgress):
            return
        line = {
            "schema": 1,
            "unix_s": round(self._wall_clock(), 3),
            "event": type(event).__name__,
            **asdict(event),
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class TeeReporter:
    """Hands each event to several reporters."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = tuple(reporters)

    def emit(self, event: Event) -> None:
        """Hand on one event."""
        for reporter in self._reporters:
            reporter.emit(event)
