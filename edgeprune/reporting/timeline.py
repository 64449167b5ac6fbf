"""Where a build's time went, by kind of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgeprune.records.result import BuildResult
from edgeprune.units import format_seconds

_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "shape": "planning on the device",
        "sparsity": "planning on the device",
        "plan": "planning on the device",
        "rule": "planning on the device",
        "sensitivity": "sensitivity",
        "compress": "training",
        "race": "training",
        "compile": "compiling",
        "variants": "ways to quantize",
        "variant": "ways to quantize",
        "rank": "ways to quantize",
        "evaluate": "accuracy",
        "test": "accuracy",
        "fit": "accuracy",
        "baseline": "measuring",
        "measure": "measuring",
        "memory": "measuring",
    }
)
REST = "judging and all else"
"""Verdicts, files, connections, data: what is no step of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeShare:
    """One kind of work.

    Attributes:
        seconds: of this build.
        share: of this build's time, in [0, 1].
        kept_seconds: of earlier builds, whose steps were taken from the run folder.
        steps: how many, those taken from there included.
    """

    kind: str
    seconds: float
    share: float
    kept_seconds: float = 0.0
    steps: int = 0


def time_shares(result: BuildResult) -> tuple[TimeShare, ...]:
    """Every kind of work that the build did or an earlier one had done, the longest of this build first; then the rest.

    The seconds add up to those of the build, and the shares to 1.
    """
    spent: dict[str, list[float]] = {}
    for entry in result.timeline:
        kind = _KINDS.get(entry.step.rsplit("/", 1)[-1], REST)
        found = spent.setdefault(kind, [0.0, 0.0, 0.0])
        found[1 if entry.cached else 0] += entry.seconds
        found[2] += 1
    steps_s = sum(seconds for seconds, _, _ in spent.values())
    # Steps are timed by themselves: rounding must not make the rest negative.
    total_s = max(result.seconds, steps_s)
    rest = spent.setdefault(REST, [0.0, 0.0, 0.0])
    rest[0] += total_s - steps_s
    shares = [
        # A sum of all may be a rounding error above their total.
        TimeShare(
            kind=kind,
            seconds=now,
            share=min(1.0, now / total_s) if total_s else 0.0,
            kept_seconds=kept,
            steps=int(count),
        )
        for kind, (now, kept, count) in spent.items()
    ]
    return tuple(sorted(shares, key=lambda s: (s.kind == REST, -s.seconds, -s.kept_seconds)))


def time_line(result: BuildResult) -> str:
    """The same in a line: training 62 % (1 min 02 s), measuring 21 % (21 s), ..."""
    told = [f"{s.kind} {s.share:.0%} ({format_seconds(s.seconds)})" for s in time_shares(result) if s.seconds > 0.0]
    kept_s = sum(s.kept_seconds for s in time_shares(result))
    kept = f"; {format_seconds(kept_s)} of work was kept from before" if kept_s else ""
    return f"where the time went: {', '.join(told)}{kept}"
