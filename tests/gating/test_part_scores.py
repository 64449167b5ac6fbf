"""The target's own metric on named parts of the data: the rule worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evidence_for_tests import make_bundle, make_manifest
from records_for_tests import make_evidence

from edgeprune.gating.evidence import pack_evidence, unpack_evidence
from edgeprune.gating.gates import GATES
from edgeprune.gating.judge import judge
from edgeprune.gating.scores import judge_part_scores, judge_score
from edgeprune.records.accuracy import Accuracy, PartScore, Score, ScoreFloor
from edgeprune.records.rung import Limits
from edgeprune.records.shares import Share, ShareFloor
from edgeprune.records.verdict import Floors, GateResult, Verdict
from edgeprune.schema.floors import AccuracyFloors, RobustnessSet, SliceFloor
from edgeprune.steps.budget import floors_from
from edgeprune.steps.evidence import contradictions_of, differs_from_stored

IOU = Score(metric="mean_iou", value=0.9, error=0.01, examples=40, higher_is_better=True, is_share=True)
ERROR_MM = Score(
    metric="mean_absolute_error", value=1.0, error=0.1, examples=21, higher_is_better=False, is_share=False
)


def iou(value: float, **changes: float) -> Score:
    return replace(IOU, value=value, **changes)


def millimetres(value: float) -> Score:
    return replace(ERROR_MM, value=value)


def _floor(like: Score, floor: float | None, before: Score | None = None) -> ScoreFloor:
    return ScoreFloor(name="night", floor=floor, is_share=like.is_share, before=before)


def judged(found: Score, floor: float) -> GateResult:
    result = judge_part_scores("slices", "slice", (_floor(found, floor),), (PartScore(name="night", score=found),))
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
    # t with 20 degrees of freedom: 1.725.
    [(2.0, Verdict.PASS), (2.172, Verdict.INCONCLUSIVE), (2.173, Verdict.FAIL)],
)
def test_an_error_may_be_so_much_at_most(value: float, verdict: Verdict) -> None:
    result = judged(millimetres(value), 2.0)
    assert result.verdict is verdict
    assert (result.measured, result.limit, result.unit) == (value, 2.0, "")
    assert "at most 2 wanted" in result.reason
    if verdict is Verdict.FAIL:
        assert result.bound == pytest.approx(2.173 - 0.17247, abs=1e-4)
        assert result.reason.endswith("2.001 at the best, at 95% confidence")


@pytest.mark.parametrize("examples", [1, 2, 19])
def test_few_examples_fail_nothing(examples: int) -> None:
    result = judged(iou(0.1, error=0.0, examples=examples), 0.8)
    assert (result.verdict, result.bound) == (Verdict.INCONCLUSIVE, None)
    assert f"{examples} examples are too few to tell from chance, 20 are asked for" in result.reason


def test_values_that_are_all_alike_say_little_of_others() -> None:
    # None of twenty: the exact bound is 1 - 0.05^(1/20) = 13.9 %.
    none_right = iou(0.0, error=0.0, examples=20)
    result = judged(none_right, 0.13)
    assert (result.verdict, result.bound) == (Verdict.INCONCLUSIVE, pytest.approx(100 * (1 - 0.05**0.05)))
    assert judged(none_right, 0.14).verdict is Verdict.FAIL
    # The dense model's spread counts where there is one: 1.729 times 0.05, and so 8.6 %.
    part, before = PartScore(name="night", score=none_right), iou(0.05, error=0.05, examples=20)
    for floor, verdict in ((0.08, Verdict.INCONCLUSIVE), (0.09, Verdict.FAIL)):
        held = judge_part_scores("slices", "slice", (_floor(before, floor, before),), (part,))
        assert held is not None
        assert held.verdict is verdict


def test_shares_stay_within_their_range() -> None:
    assert judged(iou(0.89, error=0.2), 0.95).bound == 100.0
    assert judged(replace(iou(0.1, error=0.2), higher_is_better=False), 0.05).bound == 0.0


def test_a_small_unit_has_no_slack() -> None:
    assert judged(replace(millimetres(5e-10), error=1e-12), 2e-12).verdict is Verdict.FAIL
    accuracy = Accuracy(split="validation", score=millimetres(5e-10))
    assert judge_score("accuracy", accuracy, 2e-12).verdict is Verdict.FAIL
    assert judge_score("accuracy", accuracy, 5e-10 * (1 - 1e-12)).verdict is Verdict.PASS


def test_the_bounds_of_all_parts_hold_together() -> None:
    """Under by 1.9 standard errors: alone that is beyond chance, as one of ten parts it is not."""
    parts = [PartScore(name=str(k), score=iou(0.781 if k == 3 else 0.9)) for k in range(10)]
    floors = [replace(_floor(IOU, 0.8), name=part.name) for part in parts]
    alone = judge_part_scores("slices", "slice", floors[3:4], parts[3:4])
    together = judge_part_scores("slices", "slice", floors, parts)
    assert alone is not None
    assert together is not None
    assert (alone.verdict, together.verdict) == (Verdict.FAIL, Verdict.INCONCLUSIVE)
    passed = judge_part_scores(
        "slices", "slice", floors[:2], [parts[0], replace(parts[1], score=iou(0.85, examples=3))]
    )
    assert passed is not None
    assert passed.reason == (
        "each of 2 is at its floor or better; nearest slice 1: mean_iou 85.00 % on 3 examples, at least 80 wanted; "
        "fewest examples: slice 1, 3"
    )
    some = judge_part_scores(
        "slices", "slice", floors[2:4], [replace(parts[2], score=iou(0.5)), replace(parts[3], score=iou(0.79))]
    )
    assert some is not None
    assert some.reason.endswith("also beyond its floor, within chance: 3")
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
    assert floors.slice_scores == (_floor(IOU, pytest.approx(0.65), iou(0.7)),)
    assert floors.robustness_scores == (replace(_floor(IOU, 0.6), name="blur 0.75 px"),)
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
    floors = Floors(slice_scores=(_floor(IOU, 0.8),))
    evidence = make_evidence(Limits(), floors, accuracy=evaluated)
    result = GATES.get("slices").judge(evidence)
    assert result is not None
    assert (result.verdict, result.measured, result.limit, result.unit) == (Verdict.INCONCLUSIVE, None, 80.0, "%")
    assert result.reason == "slice night: no example was evaluated"


@pytest.mark.parametrize("night", [iou(0.9), iou(0.7), iou(0.3), iou(0.3, error=0.0, examples=1), None])
def test_evidence_says_the_same_when_it_is_read_again(night: Score | None, tmp_path: Path) -> None:
    dense, after = _accuracy(iou(0.9), iou(0.8), iou(0.8)), _accuracy(iou(0.9), night, iou(0.5))
    bundle = make_bundle(make_manifest(tmp_path))
    origin = replace(bundle.origin, floors=WANTED, dense=replace(bundle.origin.dense, validation=dense))
    evidence = replace(bundle.evidence, floors=floors_from(WANTED, dense), accuracy=after)
    packed = pack_evidence(replace(bundle, origin=origin, evidence=evidence, judgement=judge(evidence)))
    again = unpack_evidence(packed, where="evidence.zip")
    assert differs_from_stored(again) is None
    assert not [c for c in contradictions_of(again) if "floors" in c]


def test_a_classifier_with_another_metric_has_its_parts_judged_by_right_answers() -> None:
    night = Share(name="night", correct=9, total=10)
    dense = Accuracy(
        split="validation", confusion=((9, 1), (0, 10)), class_names=("cat", "dog"), score=IOU, slices=(night,)
    )
    wanted = AccuracyFloors(slices={"night": SliceFloor(max_drop_points=10.0)})
    floors = floors_from(wanted, dense)
    assert (floors.slice_scores, floors.accuracy, floors.metric) == ((), None, pytest.approx(0.89))
    assert floors.slices == (ShareFloor(name="night", floor=pytest.approx(0.8), before=night),)
