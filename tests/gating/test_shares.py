"""The rule for named parts of the data, worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evidence_for_tests import make_bundle, make_manifest
from records_for_tests import make_evidence

from edgeprune.gating.judge import judge
from edgeprune.gating.shares import judge_shares
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.rung import Limits
from edgeprune.records.shares import Share, ShareFloor
from edgeprune.records.verdict import GateResult, Verdict
from edgeprune.schema.base import parse_toml
from edgeprune.schema.floors import AccuracyFloors
from edgeprune.statistics import share_bounds
from edgeprune.steps.budget import floors_from, floors_of_schema_1
from edgeprune.steps.evidence import contradictions_of


def confusion(*right: int, each: int = 100) -> Accuracy:
    """Three classes of `each` examples; what is wrong says the next class."""
    rows = [[0, 0, 0] for _ in right]
    for k, count in enumerate(right):
        rows[k][k], rows[k][(k + 1) % 3] = count, each - count
    return Accuracy(split="validation", confusion=tuple(tuple(row) for row in rows), class_names=("cat", "dog", "eel"))


def judged(found: Share, floor: float) -> GateResult:
    result = judge_shares("slices", "slice", (ShareFloor(name=found.name, floor=floor),), (found,))
    assert result is not None
    return result


def test_a_class_that_falls_to_what_another_had_is_caught_and_named() -> None:
    dense, after = confusion(95, 60, 97), confusion(60, 60, 97)
    wanted = AccuracyFloors(max_drop_points=100.0, max_class_drop_points=5.0)
    judgement = judge(make_evidence(Limits(), floors_from(wanted, dense), accuracy=after))
    assert judgement.verdict is Verdict.FAIL
    failed = next(g for g in judgement.gates if g.gate == "classes")
    assert (failed.verdict, failed.measured, failed.limit) == (Verdict.FAIL, 60.0, pytest.approx(90.0))
    assert failed.reason.startswith("class cat: 60 of 100 right (95 of 100 in the dense model), floor 90.0%; at most")
    # The rule of before saw nothing: the worst class is as good as the worst one was.
    old = judge(make_evidence(Limits(), floors_of_schema_1(wanted, dense), accuracy=after))
    assert old.verdict is Verdict.PASS


def test_every_class_at_its_floor_passes_and_the_rarest_is_told() -> None:
    wanted = AccuracyFloors(max_class_drop_points=5.0)
    floors = floors_from(wanted, confusion(95, 60, 97))
    assert [f.floor for f in floors.classes] == pytest.approx([0.90, 0.55, 0.92])
    result = judge_shares("classes", "class", floors.classes, confusion(90, 55, 92).classes)
    assert result is not None
    assert result.verdict is Verdict.PASS
    assert "each of 3 is at or over its floor; nearest class cat: 90 of 100" in result.reason
    assert "fewest examples: class cat, 100: at least" in result.reason


def test_one_example_of_five_fails_nothing_and_is_told() -> None:
    result = judged(Share(name="night", correct=4, total=5), 0.9)
    assert result.verdict is Verdict.INCONCLUSIVE
    # 1 - p^5 = 0.05: with p = 98.98 % four or fewer of five are right in one of twenty sets.
    assert result.bound == pytest.approx(100 * 0.95**0.2)
    assert "slice night: 4 of 5 right, floor 90.0%; 5 examples are too few to tell from chance (up to 99.0%)" in (
        result.reason
    )


@pytest.mark.parametrize(
    ("correct", "verdict"),
    # P(X <= 12 | 20, 0.9) = 6e-5; P(X <= 15) = 0.043; P(X <= 16) = 0.133.
    [
        (18, Verdict.PASS),
        (17, Verdict.INCONCLUSIVE),
        (16, Verdict.INCONCLUSIVE),
        (15, Verdict.FAIL),
        (12, Verdict.FAIL),
    ],
)
def test_a_fall_beyond_chance_fails(correct: int, verdict: Verdict) -> None:
    assert judged(Share(name="night", correct=correct, total=20), 0.9).verdict is verdict


def test_of_a_hundred_classes_none_fails_by_chance_that_would_by_itself() -> None:
    floors = tuple(ShareFloor(name=str(k), floor=0.9) for k in range(100))
    shares = tuple(Share(name=str(k), correct=15 if k == 7 else 20, total=20) for k in range(100))
    result = judge_shares("classes", "class", floors, shares)
    assert result is not None
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reason.startswith("class 7: 15 of 20 right")


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    # Their table for n = 10, 3 hits, 95 % two-sided: 0.067 to 0.652.
    assert share_bounds(3, 10, 0.975) == pytest.approx((0.0667, 0.6525), abs=5e-4)
    assert share_bounds(0, 10, 0.95) == (0.0, pytest.approx(1 - 0.05**0.1))
    assert share_bounds(10, 10, 0.95) == (pytest.approx(0.05**0.1), 1.0)
    assert share_bounds(0, 0, 0.95) == (0.0, 1.0)


def test_a_part_without_examples_or_without_a_dense_figure_is_inconclusive() -> None:
    empty = judged(Share(name="night", correct=0, total=0), 0.9)
    assert (empty.verdict, empty.reason) == (Verdict.INCONCLUSIVE, "slice night: no example was evaluated")
    unknown = judge_shares("slices", "slice", (ShareFloor(name="night", floor=None),), ())
    assert unknown is not None
    assert (unknown.verdict, unknown.reason) == (
        Verdict.INCONCLUSIVE, "slice night: the dense model was not evaluated on it",
    )  # fmt: skip
    missing = judge_shares("robustness", "corruption", floors_from(NOISY, confusion(9, 9, 9)).robustness, ())
    assert missing is not None
    assert missing.verdict is Verdict.INCONCLUSIVE


NOISY = parse_toml(
    """
    [slices.night]
    max_drop_points = 2.0
    min_accuracy = 0.9
    [robustness]
    max_drop_points = 3.0
    """,
    AccuracyFloors,
    where="target.toml",
)


def test_floors_of_parts_are_the_stricter_of_both_ways_to_say_them() -> None:
    night, blur = Share(name="night", correct=19, total=20), Share(name="blur", correct=50, total=100)
    dense = replace(confusion(90, 90, 90), slices=(night,), robustness=(blur,))
    floors = floors_from(NOISY, dense)
    assert floors.slices == (ShareFloor(name="night", floor=pytest.approx(0.93), before=night),)
    assert floors.robustness == (ShareFloor(name="blur", floor=pytest.approx(0.47), before=blur),)
    weak = replace(dense, slices=(Share(name="night", correct=10, total=20),))
    assert floors_from(NOISY, weak).slices[0].floor == 0.9


def test_evidence_of_schema_1_is_held_to_the_floors_of_its_day(tmp_path: Path) -> None:
    bundle = make_bundle(make_manifest(tmp_path))
    wanted = AccuracyFloors(max_class_drop_points=5.0)
    floors = floors_of_schema_1(wanted, bundle.origin.dense.validation)
    old = replace(
        bundle,
        origin=replace(bundle.origin, schema=1, floors=wanted),
        evidence=replace(bundle.evidence, floors=floors),
    )
    assert list(contradictions_of(old)) == []
    now = replace(old, origin=replace(old.origin, schema=2))
    assert any("accuracy floors do not follow" in text for text in contradictions_of(now))
