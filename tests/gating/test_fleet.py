"""The verdict over several devices: by hand, by law, and against a simulation with a known truth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_for_tests import make_artifact, make_judgement, make_measurement
from scipy.stats import binom

from edgeprune.gating import fleet
from edgeprune.records.fleet import FleetDemand, FleetDevice
from edgeprune.records.measurement import Percentile
from edgeprune.records.result import BenchResult
from edgeprune.records.verdict import Verdict

EVERY = FleetDemand(share=None, confidence=0.95, device_confidence=0.95, latency_limits=1)
NINETY = FleetDemand(share=0.9, confidence=0.95, device_confidence=0.995, latency_limits=1)
PASS, FAIL, INCONCLUSIVE, INVALID = Verdict


def _devices(*verdicts: Verdict, sure: bool = True) -> list[FleetDevice]:
    return [
        FleetDevice(device=f"edge{i}", profile="p", verdict=v, sure_fail=sure and v is FAIL, machine=f"boot{i}")
        for i, v in enumerate(verdicts)
    ]


def test_29_of_29_show_90_percent_at_95_percent() -> None:
    assert fleet.boxes_needed(0.9, 0, NINETY) == 29
    assert fleet.judge_fleet(_devices(*[PASS] * 29), NINETY).verdict is PASS
    few = fleet.judge_fleet(_devices(*[PASS] * 28), NINETY)
    assert few.verdict is INCONCLUSIVE
    assert few.needed == 29
    assert "it takes 29 of 29 devices that pass" in few.reason


def test_what_one_and_two_devices_more_that_do_not_pass_cost() -> None:
    """By the binomial distribution, at the edge: 1 - 0.9 - 0.1 * 0.005 = 0.0995 do not pass."""
    assert [fleet.boxes_needed(0.9, k, NINETY) for k in (0, 1, 2)] == [29, 46, 62]
    assert binom.cdf(1, 46, 0.0995) <= 0.05 < binom.cdf(1, 45, 0.0995)
    assert binom.cdf(2, 62, 0.0995) <= 0.05 < binom.cdf(2, 61, 0.0995)
    # With devices that are never wrong, what the tables of tolerance limits say.
    exact = replace(NINETY, device_confidence=1 - 1e-12)
    assert [fleet.boxes_needed(0.9, k, exact) for k in range(5)] == [29, 46, 61, 76, 89]
    # At 99 % for 99 %: 459, as for the samples of a p99.
    assert fleet.boxes_needed(0.99, 0, replace(NINETY, share=0.99, confidence=0.99, device_confidence=0.999)) >= 459


def test_the_error_of_a_device_is_taken_out() -> None:
    """Without a lower error of each device, 29 would not do: the share could be 90 % and a tenth pass by chance."""
    blunt = replace(NINETY, device_confidence=0.95)
    assert fleet.boxes_needed(0.9, 0, blunt) == 31
    # 0.9 + 0.1 * 0.05 = 0.905 pass at the edge.
    assert 0.905**31 <= 0.05 < 0.905**30 + 1e-4
    assert fleet.device_confidence(0.95, 0.9) == pytest.approx(0.995)
    assert fleet.device_confidence(0.95, None) == 0.95


def test_a_share_fails_by_the_devices_that_failed() -> None:
    """P(Binomial(5, 0.1) >= 3) is 0.0086, P(Binomial(5, 0.1) >= 2) is 0.081."""
    assert fleet.judge_fleet(_devices(*[FAIL] * 3, *[PASS] * 2), NINETY).verdict is FAIL
    assert fleet.judge_fleet(_devices(*[FAIL] * 2, *[PASS] * 3), NINETY).verdict is INCONCLUSIVE


def test_devices_that_were_not_measured_are_no_pass() -> None:
    nearly = fleet.judge_fleet(_devices(*[PASS] * 28, INVALID), NINETY)
    assert nearly.verdict is INVALID
    assert (nearly.boxes, nearly.passed) == (29, 28)
    assert fleet.judge_fleet(_devices(*[PASS] * 28, INCONCLUSIVE), NINETY).verdict is INCONCLUSIVE
    # Two devices could not show it anyhow, nor could the one that is left fail it.
    assert fleet.judge_fleet(_devices(PASS, INVALID), NINETY).verdict is INCONCLUSIVE
    # Enough passed all the same: 45 of 46.
    assert fleet.judge_fleet(_devices(*[PASS] * 45, INVALID), NINETY).verdict is PASS


def test_entries_of_one_machine_count_once() -> None:
    twins = [replace(d, machine="one") for d in _devices(*[PASS] * 29)]
    judged = fleet.judge_fleet(twins, NINETY)
    assert (judged.verdict, judged.boxes, judged.passed) == (INCONCLUSIVE, 1, 1)
    assert "29 entries are on 1 machines" in judged.reason
    quarrel = [replace(d, machine="one") for d in _devices(PASS, FAIL)]
    judged = fleet.judge_fleet(quarrel, NINETY)
    assert (judged.boxes, judged.passed, judged.failed) == (1, 0, 0)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((PASS, PASS), PASS),
        ((PASS, INCONCLUSIVE), INCONCLUSIVE),
        ((PASS, INVALID, INCONCLUSIVE), INVALID),
        ((PASS, FAIL, INVALID), FAIL),
    ],
)
def test_the_worst_device_decides(verdicts: tuple[Verdict, ...], expected: Verdict) -> None:
    judged = fleet.judge_fleet(_devices(*verdicts), EVERY)
    assert judged.verdict is expected
    assert judged.needed is None


def test_a_fail_by_itself_is_not_yet_one_among_many() -> None:
    judged = fleet.judge_fleet(_devices(PASS, FAIL, sure=False), EVERY)
    assert judged.verdict is INCONCLUSIVE
    assert "edge1: over a limit by itself, but not for sure as one of so many" in judged.reason
    assert fleet.sure_fail_confidence(EVERY, 10) == pytest.approx(0.995)
    assert fleet.sure_fail_confidence(replace(EVERY, latency_limits=2), 10) == pytest.approx(0.9975)


def test_the_reason_names_who_was_not_measured_and_who_is_slowest() -> None:
    lost = replace(_devices(INVALID)[0], error="no route to host")
    for demand in (EVERY, NINETY):
        assert "edge0: not measured" in fleet.judge_fleet([lost], demand).reason
    beside = replace(_devices(PASS, FAIL)[1], device="slow")
    reason = fleet.judge_fleet([lost, beside], EVERY).reason
    assert reason == "1 of 2 devices are FAIL: slow: fail; edge0: not measured"
    assert "was measured; there is no limit" in fleet.judge_fleet(_devices(PASS), EVERY).reason


def test_the_bounds_are_clopper_and_pearsons() -> None:
    """NIST's example of the tables: 0 and 3 of 10; with a device that cannot be wrong, nothing is taken out."""
    exact = replace(NINETY, device_confidence=1 - 1e-12)
    lower, upper = fleet.share_bounds(10, 7, 3, exact)
    assert binom.sf(6, 10, lower) == pytest.approx(0.05, rel=1e-6)
    assert binom.sf(2, 10, 1 - upper) == pytest.approx(0.05, rel=1e-6)
    assert fleet.share_bounds(10, 0, 0, exact) == pytest.approx((0.0, 1.0))


@given(
    share=st.floats(0.3, 0.98), boxes=st.integers(1, 80), confidence=st.floats(0.6, 0.99), bad=st.floats(0.001, 0.999)
)
@settings(max_examples=60, deadline=None)
def test_the_verdict_is_wrong_no_more_often_than_it_says(
    share: float, boxes: int, confidence: float, bad: float
) -> None:
    """Exactly, over the binomial: the truth at the edge, each bad device passing as often as it may."""
    each = fleet.device_confidence(confidence, share)
    demand = FleetDemand(share=share, confidence=confidence, device_confidence=each, latency_limits=1)
    truth = share * bad
    passes = truth + (1 - truth) * (1 - each)
    wrong = sum(
        binom.pmf(k, boxes, passes) for k in range(boxes + 1) if fleet.share_bounds(boxes, k, 0, demand)[0] >= share
    )
    assert wrong <= 1 - confidence + 1e-9
    # And the other way: the truth is good enough, each good device failing as often as it may.
    truth = share + (1 - share) * bad
    fails = (1 - truth) + truth * (1 - each)
    wrong = sum(
        binom.pmf(k, boxes, fails) for k in range(boxes + 1) if fleet.share_bounds(boxes, 0, k, demand)[1] < share
    )
    assert wrong <= 1 - confidence + 1e-9


@given(passed=st.integers(0, 40), more=st.integers(0, 40), failed=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_bounds_keep_their_order(passed: int, more: int, failed: int) -> None:
    boxes = passed + more + failed
    if not boxes:
        return
    lower, upper = fleet.share_bounds(boxes, passed, failed, NINETY)
    assert 0 <= lower <= upper <= 1
    if more:
        assert fleet.share_bounds(boxes, passed + 1, failed, NINETY)[0] >= lower
        assert fleet.share_bounds(boxes, passed, failed + 1, NINETY)[1] <= upper


def test_an_outlier_by_hand() -> None:
    """Medians 10.0, 10.1, 10.2, 10.3 and 13: log distances 0.020, 0.010, 0, 0.010, 0.243; MAD 0.010, score 16."""
    found = fleet.outliers({"a": 10.0, "b": 10.1, "c": 10.2, "d": 10.3, "e": 13.0})
    assert found == pytest.approx({"e": 13 / 10.2})
    fast = fleet.outliers({"a": 10.0, "b": 10.1, "c": 10.2, "d": 10.3, "e": 5.0})
    assert found.keys() == fast.keys()
    assert fast["e"] == pytest.approx(5 / 10.1)


def test_too_few_alike_or_spread_out_have_no_outlier() -> None:
    assert fleet.outliers({"a": 1.0, "b": 1.0, "c": 9.0}) == {}
    assert fleet.outliers({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.04}) == {}
    assert fleet.outliers({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.06}).keys() == {"d"}
    assert fleet.outliers({"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}) == {}


@given(st.lists(st.floats(0.1, 1000), min_size=4, max_size=12), st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_outliers_are_a_minority_and_do_not_depend_on_the_unit(values: list[float], unit: float) -> None:
    named = {f"d{i}": value for i, value in enumerate(values)}
    found = fleet.outliers(named)
    assert len(found) <= len(values) / 2
    scores = sorted(abs(math.log(ratio)) for ratio in found.values())
    scaled = fleet.outliers({name: value * unit for name, value in named.items()})
    assert sorted(abs(math.log(r)) for r in scaled.values()) == pytest.approx(scores)


def test_a_percentile_of_each_device_names_the_slowest() -> None:
    slow = Percentile(percent=99.0, value_ms=9.0, lower_ms=8.0, upper_ms=9.5, confidence=0.95, samples=1000)
    one, two = _devices(PASS, PASS)
    result = BenchResult(
        artifact=make_artifact(),
        device="edge0",
        measurement=make_measurement(),
        percentiles=(),
        load_ms=1.0,
        judgement=make_judgement(),
    )
    devices = [replace(one, p99=slow, result=result), replace(two, p99=replace(slow, value_ms=3.0), result=result)]
    assert "the slowest is edge0 with p99 9.00 ms" in fleet.judge_fleet(devices, EVERY).reason
