"""A share of right answers over the whole split, held to a floor as it was counted."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.verdict import GateResult, Verdict

# A floor is computed, such as 0.97 - 0.01, and may come out a rounding error over the share it was meant to equal.
# One example more or less in a million is a thousand times this.
FLOOR_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RightAnswers:
    """How many of how many examples are right, and what they are examples of."""

    correct: int
    total: int
    subject: str


def judge_floor(gate: str, answers: RightAnswers | None, floor: float) -> GateResult:
    """PASS where the share of right answers is at or over the floor; INCONCLUSIVE where there is none.

    Args:
        gate: its name.
        answers: of the compiled artifact; None when it was not evaluated.
        floor: in [0, 1].
    """
    if answers is None or answers.total == 0:
        reason = "not evaluated" if answers is None else f"no examples of {answers.subject}"
        return _result(gate, Verdict.INCONCLUSIVE, None, floor, reason)
    # correct / total >= floor, without dividing.
    enough = answers.correct >= (floor - FLOOR_SLACK) * answers.total
    share = answers.correct / answers.total
    reason = f"{answers.correct} of {answers.total} right: {answers.subject}"
    return _result(gate, Verdict.PASS if enough else Verdict.FAIL, share, floor, reason)


def _result(gate: str, verdict: Verdict, share: float | None, floor: float, reason: str) -> GateResult:
    measured = None if share is None else 100.0 * share
    return GateResult(
        gate=gate,
        verdict=verdict,
        measured=measured,
        bound=measured,
        limit=100.0 * floor,
        unit="%",
        reason=reason,
    )
