"""Latency of one operator against its width, as measured on a device."""

from __future__ import annotations

from dataclasses import dataclass

NOISE = 1.02
"""Two short measurements of one operator differ by up to about this factor; a gain below it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staircase:
    """Points of (channels, p50 in milliseconds), by ascending width.

    `operator` says what was measured, such as `conv3x3 int8 on tflite, 16x16, 1 thread`.
    """

    operator: str
    points: tuple[tuple[int, float], ...]

    @property
    def admissible(self) -> tuple[int, ...]:
        """The widths that no larger one of them beats or equals, within what the device shows twice for the same."""
        kept: list[int] = []
        fastest_above = float("inf")
        for width, latency_ms in reversed(self.points):
            if latency_ms * NOISE < fastest_above:
                kept.append(width)
                fastest_above = latency_ms
        return tuple(reversed(kept))
