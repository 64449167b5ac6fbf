"""Named parts of the data, each held to its own floor, with few examples of some: one rule for classes and slices.

Of a part with n examples of which k are right, and a floor f:

- PASS: k / n is at or over f, on these examples.
- FAIL: k / n is under f, and the exact upper bound of what the model gets right (Clopper & Pearson 1934, Biometrika 26)
  is under f as well. The bounds of all parts that a gate holds are right together with 95 %: each has the error
  divided by their number (Bonferroni; Dunn 1961, JASA 56), else one of a hundred classes would fail by chance.
- INCONCLUSIVE: under f, but by no more than chance explains. One example of five is told, and fails nothing.

The floor counts as given, though it may come from a count itself: the dense model's, on the same examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.gating.floors import FLOOR_SLACK
from edgeprune.records.shares import Share, ShareFloor
from edgeprune.records.verdict import GateResult, Verdict, worst_verdict
from edgeprune.statistics import share_bounds

CONFIDENCE = 0.95
"""Of the bounds of all parts together, and of the one that is told for the rarest."""
_MOST_NAMED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """One part, its floor, and what follows. `found` is None where it was not evaluated or has no example."""

    held: ShareFloor
    found: Share | None
    verdict: Verdict
    upper: float = 1.0

    @property
    def margin(self) -> float:
        """By how much it is over its floor; the smallest is told first."""
        return 2.0 if self.found is None or self.held.floor is None else self.found.value - self.held.floor


def judge_shares(
    gate: str, kind: str, floors: Sequence[ShareFloor], shares: Sequence[Share] | None
) -> GateResult | None:
    """Hold each named part to its floor; None where there is no floor.

    Args:
        gate: its name.
        kind: what the parts are, one word: `class`, `slice`, `corruption`.
        floors: one a part.
        shares: what the artifact gets right; None where it was not evaluated.
    """
    if not floors:
        return None
    if shares is None:
        return _result(gate, Verdict.INCONCLUSIVE, None, max(f.floor or 0.0 for f in floors), "not evaluated")
    found = {share.name: share for share in shares}
    judged = [_judge_one(held, found.get(held.name), len(floors)) for held in floors]
    verdict = worst_verdict(j.verdict for j in judged)
    deciding = sorted((j for j in judged if j.verdict is verdict), key=lambda j: j.margin)
    first = deciding[0]
    return _result(gate, verdict, first, first.held.floor or 0.0, _reason(kind, verdict, judged, deciding))


def _judge_one(held: ShareFloor, found: Share | None, parts: int) -> _Judged:
    if found is None or not found.total or held.floor is None:
        return _Judged(held=held, found=None, verdict=Verdict.INCONCLUSIVE)
    upper = share_bounds(found.correct, found.total, 1.0 - (1.0 - CONFIDENCE) / parts)[1]
    # correct / total >= floor, without dividing.
    if found.correct >= (held.floor - FLOOR_SLACK) * found.total:
        return _Judged(held=held, found=found, verdict=Verdict.PASS, upper=upper)
    sure = upper < held.floor
    return _Judged(held=held, found=found, verdict=Verdict.FAIL if sure else Verdict.INCONCLUSIVE, upper=upper)


def _reason(kind: str, verdict: Verdict, judged: Sequence[_Judged], deciding: Sequence[_Judged]) -> str:
    if verdict is Verdict.PASS:
        nearest = deciding[0]
        count = f"each of {len(judged)} is at or over its floor; nearest " if len(judged) > 1 else ""
        return f"{count}{_told(kind, nearest)}{_rarest(kind, judged)}"
    failed = verdict is Verdict.FAIL
    near = [j.held.name for j in judged if failed and j.verdict is Verdict.INCONCLUSIVE and j.found is not None]
    return named_parts([_told(kind, j) for j in deciding], near, "under")


def named_parts(told: Sequence[str], near: Sequence[str], side: str) -> str:
    """The parts that decide, and the names of those that are on the same side of their floor, but within chance."""
    named = list(told[:_MOST_NAMED])
    if len(told) > _MOST_NAMED:
        named.append(f"and {len(told) - _MOST_NAMED} more")
    if near:
        named.append(f"also {side}, within chance: {', '.join(near[:_MOST_NAMED])}")
    return "; ".join(named)


def _told(kind: str, judged: _Judged) -> str:
    """`class cat: 60 of 100 right (95 of 100 in the dense model), floor 90.0%; at most 68.1% at 95% confidence`."""
    held, found = judged.held, judged.found
    if held.floor is None:
        return f"{kind} {held.name}: the dense model was not evaluated on it"
    if found is None:
        return f"{kind} {held.name}: no example was evaluated"
    before = f" ({held.before.correct} of {held.before.total} in the dense model)" if held.before else ""
    text = f"{kind} {held.name}: {found.correct} of {found.total} right{before}, floor {held.floor:.1%}"
    if judged.verdict is Verdict.FAIL:
        return f"{text}; at most {judged.upper:.1%} at {CONFIDENCE:.0%} confidence"
    if judged.verdict is Verdict.INCONCLUSIVE:
        return f"{text}; {found.total} examples are too few to tell from chance (up to {judged.upper:.1%})"
    return text


def _rarest(kind: str, judged: Sequence[_Judged]) -> str:
    """With how few examples a PASS is said: what the part with the fewest is known to be at least."""
    shares = [j.found for j in judged if j.found is not None]
    rarest = min(shares, key=lambda s: s.total)
    lower = share_bounds(rarest.correct, rarest.total, CONFIDENCE)[0]
    return (
        f"; fewest examples: {kind} {rarest.name}, {rarest.total}: at least {lower:.1%} at {CONFIDENCE:.0%} confidence"
    )


def _result(gate: str, verdict: Verdict, deciding: _Judged | None, floor: float, reason: str) -> GateResult:
    found = deciding.found if deciding is not None else None
    measured = None if found is None else 100.0 * found.value
    bound = measured
    if deciding is not None and found is not None and verdict is not Verdict.PASS:
        bound = 100.0 * deciding.upper
    return GateResult(
        gate=gate, verdict=verdict, measured=measured, bound=bound, limit=100.0 * floor, unit="%", reason=reason
    )
