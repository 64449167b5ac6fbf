"""The target's own metric held to a floor."""

from __future__ import annotations

from edgeprune.gating.floors import FLOOR_SLACK
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.verdict import GateResult, Verdict


def judge_score(gate: str, accuracy: Accuracy | None, floor: float) -> GateResult:
    """PASS where the metric is at its floor or better; INCONCLUSIVE where there is none.

    Args:
        gate: its name.
        accuracy: of the compiled artifact; None when it was not evaluated.
        floor: in the metric's own unit: the least value, or the most where lower is better.
    """
    score = accuracy.score if accuracy is not None else None
    if accuracy is None or score is None or score.examples == 0:
        return GateResult(
            gate=gate, verdict=Verdict.INCONCLUSIVE, measured=None, bound=None, limit=floor, unit="",
            reason="the metric was not evaluated",
        )  # fmt: skip
    sign = 1.0 if score.higher_is_better else -1.0
    # A computed floor may be a rounding error beside the value that it was meant to equal.
    enough = sign * (score.value - floor) >= -FLOOR_SLACK * max(1.0, abs(floor))
    limit = 100.0 * floor if score.is_share else floor
    wanted = f"{'at least' if score.higher_is_better else 'at most'} {limit:.4g} wanted"
    return GateResult(
        gate=gate,
        verdict=Verdict.PASS if enough else Verdict.FAIL,
        measured=accuracy.shown,
        bound=accuracy.shown,
        limit=limit,
        unit=accuracy.unit,
        reason=f"{score.metric} {accuracy.told} on {score.examples} {accuracy.split} examples, {wanted}",
    )
