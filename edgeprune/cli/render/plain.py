"""Progress as plain lines, for logs and pipes: a line when a stage starts and one when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from edgeprune.events import Event, Noted, StageFinished, StageProgress, StageStarted
from edgeprune.units import format_seconds

_QUIET_S = 15.0
"""A stage that runs longer than this says how far it is, that often."""


class PlainReporter:
    """Writes a line an event; progress ticks at most every 15 seconds.

    Args:
        stream: where to write.
        clock: seconds, monotonic.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last_line_s = clock()
        self._totals: dict[tuple[str, str], tuple[int | None, str, float]] = {}

    def emit(self, event: Event) -> None:
        """Write what is worth a line."""
        match event:
            case StageStarted():
                self._totals[event.stage, event.subject] = (event.total, event.unit, self._clock())
                if event.total is None:
                    return
                self._line(f"{title(event.stage, event.subject)}: {event.total} {event.unit}")
            case StageProgress():
                self._progress(event)
            case StageFinished(cached=True):
                self._line(f"{title(event.stage, event.subject)}: kept from before{_dash(event.summary)}")
            case StageFinished():
                took = format_seconds(event.seconds)
                self._line(f"{title(event.stage, event.subject)}: done in {took}{_dash(event.summary)}")
            case Noted():
                self._line(event.message if event.level == "info" else f"{event.level}: {event.message}")

    def _progress(self, event: StageProgress) -> None:
        if self._clock() - self._last_line_s < _QUIET_S:
            return
        total, unit, started_s = self._totals.get((event.stage, event.subject), (None, "", self._clock()))
        left = ""
        if total and 0 < event.done < total:
            left_s = (self._clock() - started_s) * (total - event.done) / event.done
            left = f", about {format_seconds(left_s)} left"
        of = f" of {total}" if total else ""
        self._line(f"{title(event.stage, event.subject)}: {event.done}{of} {unit}{left}{_dash(event.detail)}")

    def _line(self, text: str) -> None:
        self._last_line_s = self._clock()
        self._stream.write(text + "\n")
        self._stream.flush()


def title(stage: str, subject: str) -> str:
    """`measure tflite-int8-t1`."""
    return f"{stage} {subject}".strip()


def _dash(text: str) -> str:
    return f" - {text}" if text else ""
