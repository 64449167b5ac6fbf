"""Conversions between the units that people write and the units that are stored.

Stored: nanoseconds and bytes. Written and shown: milliseconds and megabytes (1 MB = 1,000,000 bytes).
"""

from __future__ import annotations

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
BYTES_PER_MB = 1_000_000


def ms_from_ns(ns: float) -> float:
    """Nanoseconds to milliseconds."""
    return ns / NS_PER_MS


def ns_from_ms(ms: float) -> float:
    """Milliseconds to nanoseconds."""
    return ms * NS_PER_MS


def mb_from_bytes(size_bytes: float) -> float:
    """Bytes to megabytes of 1,000,000 bytes."""
    return size_bytes / BYTES_PER_MB


def bytes_from_mb(size_mb: float) -> int:
    """Megabytes of 1,000,000 bytes to bytes, rounded down."""
    return int(size_mb * BYTES_PER_MB)


def format_ms(ms: float) -> str:
    """Three significant digits or so: `0.0732 ms`, `14.1 ms`, `1240 ms`."""
    return f"{_three_digits(ms)} ms"


def format_mb(size_bytes: float) -> str:
    """A size as `0.33 MB`."""
    return f"{_three_digits(mb_from_bytes(size_bytes))} MB"


def format_seconds(seconds: float) -> str:
    """A duration as `4.2 s` or `3 min 05 s`."""
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    digits = 0
    limit = 100.0
    while digits < 5 and abs(value) < limit:  # noqa: PLR2004
        digits += 1
        limit /= 10
    return f"{value:.{digits}f}"
