"""The target's own metric held to a floor: over the whole split, and on named parts of it.

The rule for parts is that of `shares.py`, with Student's t in the place of exact counts: a part under its floor (over,
where lower is better) FAILs only where the bound of what the metric is there is beyond the floor as well. Means of
fewer than `LEAST_EXAMPLES` are too far from normal to say so. Where an artifact's values are all alike, their spread
says nothing of other examples: the dense model's counts then, or for shares the exact bound of as many counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.gating.floors import FLOOR_SLACK
from edgeprune.gating.shares import CONFIDENCE, named_parts
from edgeprune.records.accuracy import Accuracy, PartScore, Score, ScoreFloor
from edgeprune.records.verdict import GateResult, Verdict, worst_verdict
from edgeprune.statistics import mean_bounds, share_bounds

LEAST_EXAMPLES = 20
"""Of a part, to FAIL."""


def judge_score(gate: str, accuracy: Accuracy | None, floor: float) -> GateResult:
    """PASS where the metric is at its floor or better; INCONCLUSIVE where there is none.

    Args:
        gate: its name.
        accuracy: of the compiled artifact; None when it was not evaluated.
        floor: in the metric's own unit: the least value, or the most where lower is better.
    """
    score = accuracy.score if accuracy is not None else None
    if accuracy is None or score is None or score.examples == 0:
        return _nothing(gate, floor, "the metric was not evaluated")
    wanted = f"{_side(score)} {_shown(score, floor):.4g} wanted"
    return GateResult(
        gate=gate,
        verdict=Verdict.PASS if _margin(score, score.value, floor) >= 0 else Verdict.FAIL,
        measured=_shown(score, score.value),
        bound=_shown(score, score.value),
        limit=_shown(score, floor),
        unit=accuracy.unit,
        reason=f"{score.metric} {score.told} on {score.examples} {accuracy.split} examples, {wanted}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """One part and what follows.

    Attributes:
        found: None where it was not evaluated.
        bound: the best that the metric is there, at the gate's confidence; None where too few examples bound it.
        margin: by how much it is on the good side of its floor, in the metric's unit; the smallest is told first.
    """

    held: ScoreFloor
    found: Score | None
    verdict: Verdict
    bound: float | None = None
    margin: float = 0.0


def judge_part_scores(
    gate: str, kind: str, floors: Sequence[ScoreFloor], parts: Sequence[PartScore] | None
) -> GateResult | None:
    """Hold the metric on each named part to its floor; None where there is no floor.

    Args:
        gate: its name.
        kind: what the parts are, one word: `slice`, `corruption`.
        floors: one a part.
        parts: what the metric says of the artifact; None where it was not evaluated.
    """
    if not floors:
        return None
    found = {part.name: part.score for part in parts or ()}
    judged = [_judge_one(held, found.get(held.name), len(floors)) for held in floors]
    verdict = worst_verdict(j.verdict for j in judged)
    deciding = sorted((j for j in judged if j.verdict is verdict), key=lambda j: j.margin)
    first, reason = deciding[0], _reason(kind, verdict, judged, deciding)
    if first.found is None or first.held.floor is None:
        return _nothing(gate, first.held.floor or 0.0, reason, is_share=first.held.is_share)
    return GateResult(
        gate=gate,
        verdict=verdict,
        measured=_shown(first.found, first.found.value),
        bound=None if first.bound is None else _shown(first.found, first.bound),
        limit=_shown(first.found, first.held.floor),
        unit="%" if first.found.is_share else "",
        reason=reason,
    )


def _judge_one(held: ScoreFloor, found: Score | None, parts: int) -> _Judged:
    if found is None or held.floor is None:
        return _Judged(held=held, found=found, verdict=Verdict.INCONCLUSIVE)
    margin = _margin(found, found.value, held.floor)
    if margin >= 0:
        return _Judged(held=held, found=found, verdict=Verdict.PASS, bound=found.value, margin=margin)
    best = _best(found, held.before, 1.0 - (1.0 - CONFIDENCE) / parts)
    sure = best is not None and _margin(found, best, held.floor) < 0
    verdict = Verdict.FAIL if sure else Verdict.INCONCLUSIVE
    return _Judged(held=held, found=found, verdict=verdict, bound=best, margin=margin)


def _best(found: Score, before: Score | None, confidence: float) -> float | None:
    """The best that the metric is on such examples; None where they are too few to say."""
    if found.examples < LEAST_EXAMPLES:
        return None
    error = max(found.error, before.error if before is not None else 0.0)
    if not error and found.is_share:
        lower, upper = share_bounds(round(found.value * found.examples), found.examples, confidence)
    else:
        lower, upper = mean_bounds(found.value, error, found.examples, confidence)
    best = upper if found.higher_is_better else lower
    return min(1.0, max(0.0, best)) if found.is_share else best


def _reason(kind: str, verdict: Verdict, judged: Sequence[_Judged], deciding: Sequence[_Judged]) -> str:
    if verdict is Verdict.PASS:
        count = f"each of {len(judged)} is at its floor or better; nearest " if len(judged) > 1 else ""
        examples, name = min((j.found.examples, j.held.name) for j in judged if j.found is not None)
        fewest = f"; fewest examples: {kind} {name}, {examples}" if len(judged) > 1 else ""
        return f"{count}{_told(kind, deciding[0])}{fewest}"
    failed = verdict is Verdict.FAIL
    near = [j.held.name for j in judged if failed and j.verdict is Verdict.INCONCLUSIVE and j.found is not None]
    return named_parts([_told(kind, j) for j in deciding], near, "beyond its floor")


def _told(kind: str, judged: _Judged) -> str:
    """`slice night: mean_iou 71.20 % on 40 examples (80.10 % in the dense model), at least 78.1 wanted; ...`."""
    held, found = judged.held, judged.found
    if found is None:
        return f"{kind} {held.name}: no example was evaluated"
    if held.floor is None:
        return f"{kind} {held.name}: the dense model was not evaluated on it"
    before = f" ({held.before.told} in the dense model)" if held.before else ""
    wanted = f"{_side(found)} {_shown(found, held.floor):.4g} wanted"
    text = f"{kind} {held.name}: {found.metric} {found.told} on {found.examples} examples{before}, {wanted}"
    if judged.bound is None:
        return f"{text}; {found.examples} examples are too few to tell from chance, {LEAST_EXAMPLES} are asked for"
    best = f"{_shown(found, judged.bound):.4g}"
    if judged.verdict is Verdict.FAIL:
        return f"{text}; {best} at the best, at {CONFIDENCE:.0%} confidence"
    if judged.verdict is Verdict.INCONCLUSIVE:
        return f"{text}; {found.examples} examples are too few to tell from chance (it may be {best})"
    return text


def _margin(score: Score, value: float, floor: float) -> float:
    """How far the value is on the good side; 0 within the rounding of a floor that was computed."""
    margin = (value - floor) if score.higher_is_better else (floor - value)
    scale = 1.0 if score.is_share else max(abs(floor), abs(value))
    return 0.0 if abs(margin) <= FLOOR_SLACK * scale else margin


def _side(score: Score) -> str:
    return "at least" if score.higher_is_better else "at most"


def _shown(score: Score, value: float) -> float:
    return 100.0 * value if score.is_share else value


def _nothing(gate: str, floor: float, reason: str, *, is_share: bool = False) -> GateResult:
    return GateResult(
        gate=gate,
        verdict=Verdict.INCONCLUSIVE,
        measured=None,
        bound=None,
        limit=100.0 * floor if is_share else floor,
        unit="%" if is_share else "",
        reason=reason,
    )
