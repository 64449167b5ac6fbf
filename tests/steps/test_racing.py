"""Who races, for how long, and who is trained fully then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compressors import compressor
from records_for_tests import make_plan

from edgeprune.events import Event, Noted, StageFinished
from edgeprune.records.rung import GroupWidth, Limits, Plan, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.steps.costs import AccuracyCosts
from edgeprune.steps.racing import Race, entrants_of, race_epochs
from edgeprune.steps.sensitivity import GroupLosses


def cut(runtime: str, conv1: int, conv2: int, **changes: Any) -> PlannedRung:
    widths = (GroupWidth(group="conv1", before=16, after=conv1), GroupWidth(group="conv2", before=32, after=conv2))
    rung = Rung(
        runtime=runtime,
        precision=Precision.FLOAT32,
        pruning=PruningKind.STRUCTURED,
        pruning_ratio=round(1 - (conv1 + conv2) / 48, 3),
    )
    given = {"rung": rung, "status": RungStatus.PLANNED, "reason": "", "p50_ms": 1.0, "p99_ms": 1.0, "widths": widths}
    return PlannedRung(**{**given, "accuracy_cost": 0.1, "cost_error": 0.1, **changes})


FULL = replace(cut("tflite", 16, 32), rung=Rung(runtime="tflite", precision=Precision.INT8), widths=())
ONE, OTHER = cut("tflite", 8, 32), cut("onnxruntime", 2, 4, accuracy_cost=0.15)


def plan(*rungs: PlannedRung, measured: bool = True) -> Plan:
    return replace(make_plan(), rungs=rungs, limits=Limits(p50_ms=2.0), notes=(), costs_measured=measured)


@pytest.mark.parametrize(
    ("found", "who"),
    [
        (plan(ONE, OTHER), [ONE, OTHER]),
        (plan(FULL, ONE, OTHER), []),
        (plan(ONE, OTHER, measured=False), []),
        (plan(ONE, replace(OTHER, accuracy_cost=0.25)), [ONE]),
        (plan(ONE, FULL), [ONE]),
        (plan(ONE, replace(OTHER, p50_ms=None)), [ONE]),
        (plan(replace(ONE, p50_ms=None), OTHER), []),
        (plan(ONE, cut("tflite", 4, 32)), [ONE]),
        (plan(), []),
    ],
    ids=[
        "noise",
        "no training",
        "ranks",
        "far apart",
        "unpruned beside",
        "unmeasured",
        "unmeasured head",
        "its own fallback",
        "nothing",
    ],
)
def test_only_what_can_pay_is_raced(found: Plan, who: list[PlannedRung]) -> None:
    assert entrants_of(found) == who


def test_of_rungs_that_share_a_model_the_one_with_most_room_in_latency_stands_for_it() -> None:
    faster = cut("openvino", 8, 32, p50_ms=0.5)
    assert entrants_of(plan(ONE, faster, OTHER)) == [faster, OTHER]


def test_epochs_of_a_race() -> None:
    assert [race_epochs(n, 1) for n in (1, 2, 3, 4, 5)] == [0, 2, 3 + 4, 4 + 4, 5 + 6 + 8]
    assert race_epochs(2, 3) == 6


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def stages(self, stage: str) -> list[bool]:
        return [e.cached for e in self.events if isinstance(e, StageFinished) and e.stage == stage]


def test_the_winner_goes_first_and_a_second_build_races_no_more(tmp_path: Path) -> None:
    # Two channels of sixteen and four of thirty-two are predicted to be as good, and are not.
    before = plan(OTHER, ONE)
    heard = Heard()
    with compressor(tmp_path, heard, {"recovery.epochs": 2}) as made:
        after = Race(AccuracyCosts(GroupLosses(made, may_train=True))).decided(before)
    assert [r.rung for r in after.rungs] == [ONE.rung, OTHER.rung]
    (note,) = after.notes
    assert note.startswith(f"race: {OTHER.rung.name} loss +")
    assert note.endswith(f"after 1 epoch(s); {ONE.rung.name} goes on")
    assert any(isinstance(e, Noted) and e.message == note for e in heard.events)
    assert heard.stages("race") == [False, False]
    # One epoch of each, and the full recovery of neither.
    assert len([e for e in heard.events if isinstance(e, StageFinished) and e.stage == "recover"]) == 2
    again = Heard()
    with compressor(tmp_path, again, {"recovery.epochs": 2}) as made:
        assert Race(AccuracyCosts(GroupLosses(made, may_train=True))).decided(before) == after
    assert again.stages("race") == [True, True]
    assert again.stages("recover") == []


def test_a_recovery_that_is_shorter_than_a_race_is_not_raced_for(tmp_path: Path) -> None:
    with compressor(tmp_path, target={"recovery.epochs": 1}) as made:
        assert Race(AccuracyCosts(GroupLosses(made, may_train=True))).decided(plan(OTHER, ONE)) == plan(OTHER, ONE)


def test_a_faster_twin_is_put_first_without_a_race(tmp_path: Path) -> None:
    faster = cut("openvino", 8, 32, p50_ms=0.5)
    with compressor(tmp_path) as made:
        after = Race(AccuracyCosts(GroupLosses(made, may_train=True))).decided(plan(ONE, faster))
    assert after.planned == (faster, ONE)
    assert after.notes == (f"{faster.rung.name} is the fastest of the rungs that share its model, and is tried first",)
