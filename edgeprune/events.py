"""What a long task tells while it works. Library code emits events and never prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage begins; `total` is its length in `unit`s when known, for a progress bar."""

    stage: str
    subject: str = ""
    total: int | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """`done` of the stage's `total` are behind us; `detail` is a short live figure such as a loss."""

    stage: str
    subject: str = ""
    done: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished:
    """A stage ended well. `cached` means that an earlier run had done it already."""

    stage: str
    subject: str = ""
    summary: str = ""
    seconds: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something a person should know: a rung refused, a test split read, a disturbed block."""

    message: str
    level: str = "info"


Event = StageStarted | StageProgress | StageFinished | Noted


class Reporter(Protocol):
    """Takes events: a progress bar, plain lines, a log file, a list in a test."""

    def emit(self, event: Event) -> None:
        """Take one event; must not raise."""
        ...


class NullReporter:
    """Takes events and does nothing with them."""

    def emit(self, event: Event) -> None:
        """Drop the event."""
