"""When narrower widths are searched for late, and by how much narrower."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from records_for_tests import make_breakdown, make_candidate, make_plan

from edgeprune.errors import BuildError, MeasurementError
from edgeprune.events import Noted
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.records.breakdown import PlaceSurvey
from edgeprune.records.result import Candidate, CandidateStatus
from edgeprune.records.rung import (
    GroupWidth,
    Limits,
    Plan,
    PlannedRung,
    Precision,
    PruningKind,
    Rung,
    RungStatus,
)
from edgeprune.records.verdict import GateResult, Judgement, Verdict
from edgeprune.steps.late_fallback import LateFallback, planned_of, sure_to_be_late

SLOW, FAST = (Rung(runtime=r, precision=Precision.INT8) for r in ("openvino", "tflite"))
NARROW = replace(FAST, pruning=PruningKind.STRUCTURED, pruning_ratio=0.4)
NARROWER = replace(NARROW, pruning_ratio=0.6)
MASKED = replace(FAST, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.9)
LIMITS = Limits(p50_ms=2.0, p99_ms=3.0, artifact_bytes=1000)
WIDTHS = (GroupWidth(group="g", before=64, after=32),)


def planned(rung: Rung, p50_ms: float, **changes: Any) -> PlannedRung:
    given = {"status": RungStatus.PLANNED, "reason": "fits", "accuracy_cost": 0.1, "p50_ms": p50_ms}
    return PlannedRung(**{"rung": rung, **given, **changes})


def plan(*rungs: PlannedRung) -> Plan:
    return replace(make_plan(), rungs=rungs or (planned(FAST, 1.0), planned(SLOW, 1.5)), limits=LIMITS)


def failed(rung: Rung, **measured: float) -> Candidate:
    """A candidate of which each named gate failed, at `measured` against a limit of 3."""
    gates = [
        GateResult(gate=g, verdict=Verdict.FAIL, measured=m, bound=m, limit=3.0, unit="ms", reason="over")
        for g, m in measured.items()
    ]
    gates.append(GateResult(gate="size", verdict=Verdict.PASS, measured=1, bound=1, limit=2, unit="MB", reason="ok"))
    made = make_candidate(rung, CandidateStatus.REJECTED, "failed", p50_ms=1.0, correct=480, size_bytes=10)
    return replace(made, judgement=Judgement(verdict=Verdict.FAIL, gates=tuple(gates)))


class _Narrower:
    """Finds what it was told to find, and keeps what it was asked for."""

    def __init__(self, found: list[PlannedRung] | Exception) -> None:
        self.found, self.asked, self.events = found, list[tuple[Rung, Limits]](), list[Noted]()
        groups = SimpleNamespace(groups=("g",))
        bench = SimpleNamespace(groups=groups, note=lambda text, level="info": self.events.append((text, level)))
        self.shapes = SimpleNamespace(bench=bench, measure=lambda place, *_: self.fastest_admissible(place))
        self.surveys, self.loss = list[PlaceSurvey](), SimpleNamespace(taken=None)

    def fastest_admissible(self, place: Rung) -> ShapeFigures:
        return ShapeFigures(rung=place, p50_ms=1.2, p99_ms=1.3, artifact_bytes=10, peak_bytes=10)

    def plan(self, dense: ShapeFigures, narrow: ShapeFigures, limits: Limits) -> list[PlannedRung]:
        self.asked.append((dense.rung, limits))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def late(narrower: _Narrower) -> LateFallback:
    costs = SimpleNamespace(priced=lambda rung: replace(rung, accuracy_cost=0.3))
    return LateFallback(narrower, costs)


def test_the_fastest_place_that_was_only_late_is_narrowed_by_what_it_missed() -> None:
    refused = planned(replace(NARROW, pruning_ratio=0.7), 0.1, status=RungStatus.REFUSED)
    narrower = _Narrower([planned(NARROW, 0.8, widths=WIDTHS), refused])
    before = plan()
    after = late(narrower).extended(before, [failed(SLOW, p50=4.0), failed(FAST, p99=4.0, p50=3.1)])
    # The p99 was four against a limit of three, the p50 of the shape 1.2 ms.
    ((place, limits),) = narrower.asked
    assert place == FAST
    assert limits == Limits(p50_ms=pytest.approx(0.9), p99_ms=None, artifact_bytes=1000)
    (found,) = planned_of(before, after)
    assert (found.rung, found.accuracy_cost) == (NARROW, 0.3)
    assert found.reason == "fits; searched for after tflite-int8-t1 failed p99, p50"
    assert "narrower widths were searched for then" in after.notes[-1]
    assert after.rungs[:2] == before.rungs
    assert narrower.events[0][1] == "warning"


def test_the_narrowest_of_searched_widths_that_were_all_late_is_narrowed_by_the_tail_that_its_gate_saw() -> None:
    """The head and its fallback failed p99 alone: the last one by four against three, at a p50 of 1.2 ms."""
    last = replace(NARROW, pruning_ratio=0.7)
    found = [planned(last, 0.7, widths=WIDTHS), planned(NARROW, 0.8, widths=WIDTHS)]
    narrower = _Narrower(found)
    survey = PlaceSurvey(place=FAST.place, full=make_breakdown(), groups=())
    narrower.surveys.append(survey)
    fallback = replace(planned(NARROWER, 0.0, widths=WIDTHS), p50_ms=None)
    before = replace(plan(planned(FAST, 1.0), planned(NARROW, 0.8, widths=WIDTHS), fallback), surveys=(survey,))
    tried = [failed(r, p99=4.0) for r in (FAST, NARROW, NARROWER)]
    after = late(narrower).extended(before, tried)
    assert narrower.asked == [(FAST, Limits(p50_ms=pytest.approx(0.9), p99_ms=None, artifact_bytes=1000))]
    # What was tried is not tried again, and a place is surveyed once.
    assert [r.rung for r in planned_of(before, after)] == [last]
    assert len(after.rungs) == len(before.rungs) + 1
    assert after.surveys == (survey,)
    assert "after tflite-int8-t1-structured60 failed p99" in after.rungs[-1].reason


@pytest.mark.parametrize(
    ("rungs", "tried"),
    [
        ((), [failed(FAST)]),
        ((), [failed(FAST, p99=4.0, accuracy=0.1)]),
        ((), [failed(NARROW, p99=4.0)]),
        ((planned(FAST, 1.0), planned(NARROW, 0.8, widths=WIDTHS)), [failed(FAST, p99=4.0)]),
        (
            (planned(NARROW, 0.8, widths=WIDTHS), planned(NARROWER, 0.6, widths=WIDTHS)),
            [failed(NARROW, accuracy=0.1), failed(NARROWER, p99=4.0)],
        ),
        ((planned(MASKED, 0.8),), [failed(MASKED, p99=4.0)]),
        ((), []),
    ],
    ids=[
        "undecided",
        "accuracy as well",
        "unknown",
        "narrowed and not tried",
        "lost accuracy before",
        "masked",
        "nothing tried",
    ],
)
def test_nothing_is_searched_for_where_it_cannot_help(rungs: tuple[PlannedRung, ...], tried: list[Candidate]) -> None:
    narrower, before = _Narrower([]), plan(*rungs)
    assert late(narrower).extended(before, tried) == before
    assert narrower.asked == []


def test_what_cannot_be_narrowed_is_told_and_a_device_that_goes_away_is_not_hidden() -> None:
    narrower = _Narrower(BuildError("no table for it"))
    assert late(narrower).extended(plan(), [failed(FAST, p99=4.0)]) == plan()
    assert "cannot be narrowed: no table for it" in narrower.events[-1][0]
    with pytest.raises(MeasurementError, match="gone"):
        late(_Narrower(MeasurementError("the device is gone"))).extended(plan(), [failed(FAST, p99=4.0)])


def test_a_fallback_that_is_as_late_by_the_tail_that_the_head_showed_is_not_trained() -> None:
    """The head's gate saw a p99 of r times its p50; shapes at its place are predicted to have the same tail."""
    head = failed(NARROW, p99=4.0)
    ratio = (head.percentile_ms(99.0) or 0.0) / (head.percentile_ms(50.0) or 1.0)
    shape = ShapeFigures(rung=NARROWER, p50_ms=1.2 * 3.0 / ratio, p99_ms=9.0, artifact_bytes=1, peak_bytes=1)
    told = "p99 would be about 3.60 ms by the tail of tflite-int8-t1-structured40, over the budget of 3.00 ms"
    assert sure_to_be_late(shape, [failed(FAST, p99=4.0), head]) == told
    # A little over may be the noise of the tail; and what else failed, or failed elsewhere, says nothing of it.
    assert sure_to_be_late(replace(shape, p50_ms=1.05 * 3.0 / ratio), [head]) is None
    assert sure_to_be_late(shape, [failed(NARROW, p50=4.0), failed(FAST, p99=4.0)]) is None
    assert sure_to_be_late(replace(shape, rung=replace(NARROWER, runtime="openvino")), [head]) is None
