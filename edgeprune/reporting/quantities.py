"""How single quantities of a candidate are written, and compared with those of the dense model."""

from __future__ import annotations

from collections.abc import Callable

from edgeprune.records.accuracy import Accuracy
from edgeprune.records.measurement import Percentile
from edgeprune.records.result import Candidate
from edgeprune.units import format_mb, format_ms

NONE = "–"  # noqa: RUF001  an en dash stands for "no value" in tables

Shown = tuple[str, float] | None
"""The text, and the number that it was made from."""
Show = Callable[[Candidate], Shown]
"""Writes one quantity of a candidate, with the number behind it; None where it is not known."""


def show_validation(c: Candidate) -> Shown:
    """Accuracy, or the target's own metric, on validation data."""
    return _shown(c.validation) if c.validation else None


def show_test(c: Candidate) -> Shown:
    """Accuracy, or the target's own metric, on test data."""
    return _shown(c.test) if c.test else None


def _shown(accuracy: Accuracy) -> tuple[str, float]:
    return (f"{accuracy.value:.2%}" if accuracy.is_share else accuracy.told, accuracy.value)


def show_memory(c: Candidate) -> Shown:
    """Peak resident memory."""
    peak = c.measurement.peak_bytes if c.measurement else 0
    return (format_mb(peak), peak) if peak else None


def show_size(c: Candidate) -> Shown:
    """Size of the artifact's files."""
    return (format_mb(c.artifact.size_bytes), c.artifact.size_bytes) if c.artifact else None


def show_load(c: Candidate) -> Shown:
    """Time to load."""
    return (format_ms(c.load_ms), c.load_ms) if c.load_ms is not None else None


def show_parameters(c: Candidate) -> Shown:
    """Number of parameters."""
    return (f"{c.parameters:,}", c.parameters) if c.parameters is not None else None


def show_macs(c: Candidate) -> Shown:
    """Multiply-accumulates of one run."""
    return (f"{c.macs / 1e6:,.2f} M", c.macs) if c.macs is not None else None


def show_latency(percent: float) -> Show:
    """A percentile with its bound."""

    def show(candidate: Candidate) -> Shown:
        found = next((p for p in candidate.percentiles if p.percent == percent), None)
        return (latency_with_bound(found), found.value_ms) if found else None

    return show


def latency_with_bound(p: Percentile) -> str:
    """`2.12 ms (2.10 to 2.15)`; the bound is the two-sided one."""
    upper = "no bound" if p.upper_ms is None else format_ms(p.upper_ms).removesuffix(" ms")
    return f"{format_ms(p.value_ms)} ({format_ms(p.lower_ms).removesuffix(' ms')} to {upper})"


def show_percentile(percent: float) -> Show:
    """A percentile alone."""

    def show(candidate: Candidate) -> Shown:
        value = candidate.percentile_ms(percent)
        return None if value is None else (format_ms(value), value)

    return show


def times(before: float, after: float) -> str:
    """The larger over the smaller, such as 2.88 and a times sign."""
    return f"{max(before, after) / max(min(before, after), 1e-12):.2f}×"  # noqa: RUF001


def direction(before: float, after: float, better: str, worse: str) -> str:
    """The word for less, or for more."""
    return better if after <= before else worse


def signed(before: float, after: float) -> str:
    """A difference in the quantity's own unit, with a real minus sign."""
    return f"{after - before:+.4g}".replace("-", "−")  # noqa: RUF001


def signed_points(before: float, after: float) -> str:
    """A difference of two shares in percentage points, with a real minus sign."""
    return f"{100.0 * (after - before):+.2f}".replace("-", "−")  # noqa: RUF001
