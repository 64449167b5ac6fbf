"""What a build need not try after what it tried."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records_for_tests import FLOAT, INT8, PRUNED, make_candidate, make_plan

from edgeprune.loop import _weaker_that_lost_accuracy
from edgeprune.records.quantization import DEFAULT_VARIANT, VariantSearch, VariantTrial
from edgeprune.records.result import Candidate, CandidateStatus
from edgeprune.records.rung import Plan, PlannedRung, Rung, RungStatus
from edgeprune.records.verdict import GateResult, Judgement, Verdict

STRONGER = replace(PRUNED, pruning_ratio=0.75)
ELSEWHERE = replace(INT8, threads=2, cpus=(4, 5))
TOO_SLOW_THERE = VariantSearch(
    trials=(
        VariantTrial(variant=DEFAULT_VARIANT),
        VariantTrial(variant=DEFAULT_VARIANT, over="p50 9 ms", meets_floors=True),
    ),
    chosen=DEFAULT_VARIANT,
    why="",
)


def tried(rung: Rung, correct: int = 300, p50_ms: float = 2.0) -> list[Candidate]:
    return [
        make_candidate(rung, CandidateStatus.REJECTED, "", p50_ms=p50_ms, correct=correct, size_bytes=100_000)
    ]  # fmt: skip


def planned(rung: Rung, cost: float) -> PlannedRung:
    return PlannedRung(rung=rung, status=RungStatus.PLANNED, reason="", accuracy_cost=cost)


PLAN: Plan = replace(
    make_plan(), rungs=(planned(INT8, 1.0), planned(ELSEWHERE, 1.0), planned(PRUNED, 2.0), planned(STRONGER, 3.0))
)


def undecided(*gates: str) -> list[Candidate]:
    """The less pruned rung, with these gates undecided and all others passed."""
    (found,) = tried(PRUNED)
    verdicts = {name: Verdict.INCONCLUSIVE if name in gates else Verdict.PASS for name in ("p50", "classes", "slices")}
    judged = tuple(
        GateResult(gate=name, verdict=v, measured=None, bound=None, limit=1.0, unit="ms", reason="")
        for name, v in verdicts.items()
    )
    return [replace(found, judgement=Judgement(verdict=Verdict.INCONCLUSIVE, gates=judged))]


@pytest.mark.parametrize(
    ("next_rung", "before", "skipped"),
    [
        (STRONGER, tried(PRUNED), True),
        (PRUNED, tried(STRONGER), False),
        # Only latency failed, or nothing did.
        (STRONGER, tried(PRUNED, correct=490, p50_ms=9.0), False),
        # Narrower widths may decide a latency, and no accuracy.
        (STRONGER, undecided("classes"), True),
        (STRONGER, undecided("classes", "slices"), True),
        (STRONGER, undecided("classes", "p50"), False),
        # A better way to quantize was too slow there: narrower widths have room for it.
        (STRONGER, [replace(undecided("classes")[0], variants=TOO_SLOW_THERE)], False),
        (STRONGER, [replace(tried(PRUNED)[0], variants=TOO_SLOW_THERE)], False),
        (STRONGER, undecided("p50"), False),
        (STRONGER, undecided(), False),
        # The very same model on other cores loses as much; another precision or runtime is another model.
        (ELSEWHERE, tried(INT8), True),
        (ELSEWHERE, [replace(tried(INT8)[0], variants=TOO_SLOW_THERE)], False),
        (replace(ELSEWHERE, runtime="tflite"), tried(INT8), False),
        (INT8, tried(FLOAT), False),
        (PRUNED, tried(INT8), False),
    ],
)
def test_what_cannot_keep_more_accuracy_is_not_tried(
    next_rung: Rung, before: list[Candidate], *, skipped: bool
) -> None:
    found = _weaker_that_lost_accuracy(planned(next_rung, 3.0), before, PLAN)
    assert (found is not None) == skipped
