"""Judging a build again, without a device."""

from __future__ import annotations

from pathlib import Path

from edgeprune.errors import InputError
from edgeprune.records.verdict import Judgement


def gate(
    run: str | Path,
    *,
    junit: str | Path | None = None,
    markdown: str | Path | None = None,
    baseline: str | Path | None = None,
    max_regression: float = 0.05,
    releases: str | Path = "releases",
) -> Judgement:
    """Judge a run again from its stored raw samples alone.

    Args:
        run: a run folder, or an `evidence.zip`.
        junit: also write a JUnit file there.
        markdown: also write a Markdown summary there.
        baseline: also hold p50 and p99 against this release: its name, `current`, or a path to its folder or evidence.
        max_regression: how much slower than the release is allowed, as a share: 0.05 is five percent.
        releases: where releases lie.

    Raises:
        InputError: there is no evidence there, it was changed, or the release cannot be compared with.
    """
    from edgeprune.steps.gates import Comparison, gate_run

    if not 0.0 <= max_regression < 1.0:
        raise InputError(f"max_regression: expected a share in [0, 1), got {max_regression}")
    comparison = None
    if baseline is not None:
        from edgeprune.steps.releases import find_release

        name, folder = find_release(str(baseline), Path(releases))
        comparison = Comparison(name=name, folder=folder, max_regression=max_regression)
    return gate_run(
        Path(run),
        junit=Path(junit) if junit else None,
        markdown=Path(markdown) if markdown else None,
        comparison=comparison,
    )
