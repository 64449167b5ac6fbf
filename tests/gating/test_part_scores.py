"""The target's own metric on named parts of the data: the rule worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records_for_tests import make_evidence

from edgeprune.gating.gates import GATES
from edgeprune.gating.judge import judge
from edgeprune.gating.scores import judge_part_scores
from edgeprune.records.accuracy import Accuracy, PartScore, Score, ScoreFloor
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import Floors, GateResult, Verdict
from edgeprune.schema.floors import AccuracyFloors, RobustnessSet, SliceFloor
from edgeprune.steps.budget import floors_from

IOU = Score(metric="mean_iou", value=0.9, error=0.01, examples=40, higher_is_better=True, is_share=True)
ERROR_MM = Score(
    metric="mean_absolute_error", value=1.0, error=0.1, examples=11, higher_is_better=False, is_share=False
)


def iou(value: float, **changes: float) -> Score:
    return replace(IOU, value=value, **changes)


def millimetres(value: float) -> Score:
    return replace(ERROR_MM, value=value)


def judged(found: Score, floor: float) -> GateResult:
    result = judge_part_scores(
        "slices", "slice", (ScoreFloor(name="night", floor=floor),), (PartScore(name="night", score=found),)
    )
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("value", "verdict"),
    # Student's t with 39 degrees of freedom, one-sided 95 %: 1.685, so that 0.01685 more may be chance.
    [
        (0.80, Verdict.PASS),
        (0.79999, Verdict.INCONCLUSIVE),
        (0.7833, Verdict.INCONCLUSIVE),
        (0.7830, Verdict.FAIL),
    ],
)
def test_a_share_fails_only_beyond_chance(value: float, verdict: Verdict) -> None:
    result = judged(iou(value), 0.80)
    assert result.verdict is verdict
    assert (result.measured, result.limit, result.unit) == (pytest.approx(100 * value), pytest.approx(80), "%")


@pytest.mark.parametrize(
    ("value", "verdict"),
    # t with 10 degrees of freedom: 1.812.
    [(2.0, Verdict.PASS), (2.18, Verdict.INCONCLUSIVE), (2.19, Verdict.FAIL)],
)
def test_an_error_may_be_so_much_at_most(value: float, verdict: Verdict) -> None:
    result = judged(millimetres(value), 2.0)
    assert result.verdict is verdict
    assert (result.measured, result.limit, result.unit) == (value, 2.0, "")
    assert "at most 2 wanted" in result.reason
    if verdict is Verdict.FAIL:
        assert result.bound == pytest.approx(2.19 - 0.1812, abs=1e-4)
        assert result.reason.endswith("2.009 at the best, at 95% confidence")


def test_one_example_fails_nothing() -> None:
    result = judged(iou(0.1, error=0.0, examples=1), 0.8)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "1 examples are too few to tell from chance" in result.reason


def test_the_bounds_of_all_parts_hold_together() -> None:
    """Under by 1.9 standard errors: alone that is beyond chance, as one of ten parts it is not."""
    parts = [PartScore(name=str(k), score=iou(0.781 if k == 3 else 0.9)) for k in range(10)]
    floors = [ScoreFloor(name=part.name, floor=0.8) for part in parts]
    alone = judge_part_scores("slices", "slice", floors[3:4], parts[3:4])
    together = judge_part_scores("slices", "slice", floors, parts)
    assert alone is not None
    assert together is not None
    assert (alone.verdict, together.verdict) == (Verdict.FAIL, Verdict.INCONCLUSIVE)
    assert together.reason.startswith("slice 3: mean_iou 78.10 % on 40 examples, at least 80 wanted")


def _accuracy(whole: Score, night: Score | None, blurred: Score) -> Accuracy:
    slices = () if night is None else (PartScore(name="night", score=night),)
    return Accuracy(
        split="validation",
        score=whole,
        slice_scores=slices,
        robustness_scores=(PartScore(name="blur 0.75 px", score=blurred),),
    )


WANTED = AccuracyFloors(
    max_drop_points=2.0,
    slices={"night": SliceFloor(max_drop_points=5.0, worst_value=0.5)},
    robustness=RobustnessSet(worst_value=0.6),
)


def test_floors_come_from_the_dense_model_on_the_same_part() -> None:
    floors = floors_from(WANTED, _accuracy(iou(0.9), iou(0.7), iou(0.8)))
    assert (floors.slices, floors.robustness, floors.metric) == ((), (), pytest.approx(0.88))
    assert floors.slice_scores == (ScoreFloor(name="night", floor=pytest.approx(0.65), before=iou(0.7)),)
    assert floors.robustness_scores == (ScoreFloor(name="blur 0.75 px", floor=0.6),)
    # The stricter of the two counts.
    assert floors_from(WANTED, _accuracy(iou(0.9), iou(0.52), iou(0.8))).slice_scores[0].floor == 0.5
    # For an error, what is worse is more.
    wanted = AccuracyFloors(worst_value=3.0, slices={"night": SliceFloor(max_worsening=0.5, worst_value=2.0)})
    dense = _accuracy(millimetres(1.0), millimetres(1.2), millimetres(1.0))
    assert floors_from(wanted, dense).slice_scores[0].floor == pytest.approx(1.7)
    # The dense model has no figure there, so nothing can be told of a loss.
    assert floors_from(wanted, _accuracy(millimetres(1.0), None, millimetres(1.0))).slice_scores[0].floor is None


def test_an_average_hides_a_slice_that_the_gate_sees() -> None:
    dense = _accuracy(iou(0.9), iou(0.7), iou(0.8))
    after = _accuracy(iou(0.9), iou(0.5), iou(0.55, error=0.05))
    judgement = judge(make_evidence(Limits(), floors_from(WANTED, dense), accuracy=after))
    found = {g.gate: g for g in judgement.gates}
    assert judgement.verdict is Verdict.FAIL
    assert found["accuracy"].verdict is Verdict.PASS
    assert found["slices"].verdict is Verdict.FAIL
    assert "slice night: mean_iou 50.00 % on 40 examples (70.00 % in the dense model), at least 65 wanted" in (
        found["slices"].reason
    )
    assert found["robustness"].verdict is Verdict.INCONCLUSIVE
    assert judge(make_evidence(Limits(), floors_from(WANTED, dense), accuracy=dense)).verdict is Verdict.PASS


@pytest.mark.parametrize("evaluated", [None, _accuracy(iou(0.9), None, iou(0.8))])
def test_a_part_without_an_example_is_inconclusive(evaluated: Accuracy | None) -> None:
    floors = Floors(slice_scores=(ScoreFloor(name="night", floor=0.8),))
    evidence = make_evidence(Limits(), floors, accuracy=evaluated)
    result = GATES.get("slices").judge(evidence)
    assert result is not None
    assert (result.verdict, result.measured) == (Verdict.INCONCLUSIVE, None)
    assert result.reason == "slice night: no example was evaluated"
