"""What guards look at, as rows of tables: each class, slice and corruption, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeprune.records.accuracy import PartScore, Score
from edgeprune.records.result import BuildResult
from edgeprune.records.shares import Share
from edgeprune.reporting.quantities import NONE, signed_points
from edgeprune.reporting.summary import subject_of
from edgeprune.statistics import mean_bounds, share_bounds

MOST_ROWS = 20
"""Of classes, those that fell most: a page with a thousand rows is read by nobody."""

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """One part of the validation data, every figure as text."""

    name: str
    examples: str
    before: str
    after: str
    change: str
    known: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTable:
    """Parts of one kind; `left_out` is how many are not shown, `change_title` heads what changed."""

    title: str
    rows: tuple[PartRow, ...]
    left_out: int = 0
    change_title: str = "points"


def part_tables(result: BuildResult) -> tuple[PartTable, ...]:
    """Classes, slices and corruptions of the subject beside the dense model; none where it was not evaluated."""
    subject = subject_of(result)
    before, after = result.dense.validation, subject.validation if subject is not None else None
    if before is None or after is None:
        return ()
    kinds = (
        ("Recall of each class", before.classes, after.classes),
        ("Slices", before.slices, after.slices),
        ("Corrupted images", before.robustness, after.robustness),
    )
    scored = (
        (f"Slices, {after.metric}", before.slice_scores, after.slice_scores),
        (f"Corrupted images, {after.metric}", before.robustness_scores, after.robustness_scores),
    )
    counted = tuple(_table(title, then, now) for title, then, now in kinds if now)
    return counted + tuple(_score_table(title, then, now) for title, then, now in scored if now)


def _table(title: str, before: Sequence[Share], after: Sequence[Share]) -> PartTable:
    then = {share.name: share for share in before}
    rows = list(after)
    if len(rows) > MOST_ROWS:
        rows.sort(key=lambda share: share.value - (then[share.name].value if share.name in then else 0.0))
    shown = tuple(_row(share, then.get(share.name)) for share in rows[:MOST_ROWS])
    return PartTable(title=title, rows=shown, left_out=len(rows) - len(shown))


def _score_table(title: str, before: Sequence[PartScore], after: Sequence[PartScore]) -> PartTable:
    then = {part.name: part.score for part in before}
    rows = list(after)
    if len(rows) > MOST_ROWS:
        rows.sort(key=lambda part: _gain(then.get(part.name), part.score))
    shown = tuple(_score_row(part, then.get(part.name)) for part in rows[:MOST_ROWS])
    change_title = "points" if after[0].score.is_share else "change"
    return PartTable(title=title, rows=shown, left_out=len(rows) - len(shown), change_title=change_title)


def _gain(before: Score | None, after: Score) -> float:
    """How much better than before; 0 where nothing is known of that."""
    if before is None:
        return 0.0
    return after.value - before.value if after.higher_is_better else before.value - after.value


def _score_row(after: PartScore, before: Score | None) -> PartRow:
    score = after.score
    lower, upper = mean_bounds(score.value, score.error, score.examples, _CONFIDENCE)
    if score.is_share:
        lower, upper = max(0.0, lower), min(1.0, upper)
    bounds = (replace(score, value=value).told for value in (lower, upper))
    return PartRow(
        name=after.name,
        examples=str(score.examples),
        before=NONE if before is None else before.told,
        after=score.told,
        change="" if before is None else _score_change(before, score),
        known=" to ".join(bounds) if score.examples > 1 else "one example",
    )


def _score_change(before: Score, after: Score) -> str:
    if after.is_share:
        return signed_points(before.value, after.value)
    return f"{after.value - before.value:+.3g}".replace("-", "−")  # noqa: RUF001


def _row(after: Share, before: Share | None) -> PartRow:
    lower, upper = share_bounds(after.correct, after.total, _CONFIDENCE)
    return PartRow(
        name=after.name,
        examples=str(after.total),
        before=NONE if before is None or not before.total else f"{before.value:.1%}",
        after=f"{after.value:.1%}" if after.total else NONE,
        change=signed_points(before.value, after.value) if before is not None and after.total else "",
        known=f"{lower:.1%} to {upper:.1%}" if after.total else "no example",
    )
