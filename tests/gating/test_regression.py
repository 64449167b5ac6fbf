from __future__ import annotations

from dataclasses import replace

import pytest
from records_for_tests import FLOAT, make_block, make_evidence, make_measurement

from edgeprune.gating.gates import GATES
from edgeprune.gating.judge import judge
from edgeprune.records.measurement import DisturbedBlock, Measurement
from edgeprune.records.verdict import Evidence, GateResult, Release, Verdict


def measured(p50_ms: float, seed: int, processes: int = 6) -> Measurement:
    return make_measurement(p50_ms=p50_ms, seed=seed, processes=processes, runs=300)


def evidence(now_ms: float, *, margin: float = 0.05, dense_now_ms: float = 6.0, processes: int = 6) -> Evidence:
    """A run against a release of 2 ms beside 6 ms."""
    return replace(
        make_evidence(measurement=measured(now_ms, 0, processes)),
        baseline=measured(dense_now_ms, 100, processes),
        release=Release(
            name="1.4.0", measurement=measured(2.0, 200), baseline=measured(6.0, 300), max_regression=margin
        ),
    )


def gate(case: Evidence) -> GateResult:
    found = GATES.get("regression").judge(case)
    assert found is not None
    return found


def test_silent_without_a_release() -> None:
    assert GATES.get("regression").judge(replace(evidence(2.0), release=None)) is None


@pytest.mark.parametrize(
    ("now_ms", "margin", "verdict"),
    [
        (2.0, 0.05, Verdict.PASS),
        (1.5, 0.0, Verdict.PASS),
        (2.2, 0.05, Verdict.FAIL),
        (2.2, 0.2, Verdict.PASS),
        (2.1, 0.05, Verdict.INCONCLUSIVE),
        (2.0, 0.0, Verdict.INCONCLUSIVE),
    ],
)
def test_the_interval_decides(now_ms: float, margin: float, verdict: Verdict) -> None:
    found = gate(evidence(now_ms, margin=margin))
    assert found.verdict is verdict
    assert (found.limit, found.unit) == (1.0 + margin, "times")
    assert found.measured == pytest.approx(now_ms / 2.0, rel=0.03)
    assert found.bound is not None
    assert found.bound < found.measured if verdict is Verdict.FAIL else found.bound > found.measured


def test_a_warmer_device_is_no_regression_and_a_cooler_one_hides_none() -> None:
    assert gate(evidence(2.6, dense_now_ms=7.8)).verdict is Verdict.PASS
    assert gate(evidence(2.0, dense_now_ms=5.0)).verdict is Verdict.FAIL


def test_a_tail_alone_fails_and_p50_alone_does_not_excuse_it() -> None:
    whole = evidence(2.0)
    assert whole.measurement is not None
    slow = tuple(
        replace(b, samples_ns=tuple(s if k % 25 else 3 * s for k, s in enumerate(b.samples_ns)))
        for b in whole.measurement.blocks
    )
    found = gate(replace(whole, measurement=replace(whole.measurement, blocks=slow)))
    assert found.verdict is Verdict.FAIL
    assert found.measured is not None
    assert found.measured > 2.0
    assert "p50 0.998 times" in found.reason
    assert "p99 2." in found.reason


def test_the_reason_says_what_was_compared_and_how() -> None:
    reason = gate(evidence(2.0)).reason
    for part in ("that of 1.4.0", "ratio to the dense model", "bootstrap over 6 and 6 processes", "98% confidence"):
        assert part in reason


def test_fewer_processes_are_less_certain() -> None:
    few, many = gate(evidence(2.05, margin=0.5, processes=3)), gate(evidence(2.05, margin=0.5, processes=12))
    assert few.bound is not None
    assert many.bound is not None
    assert few.bound > many.bound


@pytest.mark.parametrize("role", ["measurement", "baseline", "release.measurement", "release.baseline"])
def test_too_few_processes_anywhere_are_undecided_and_named(role: str) -> None:
    whole = evidence(2.0)
    assert whole.release is not None
    short = replace(measured(2.0, 0), blocks=measured(2.0, 0).blocks[:2])
    upset = replace(short, disturbed=(DisturbedBlock(block=make_block(), reason="a busy neighbour"),))
    for measurement, verdict in ((short, Verdict.INCONCLUSIVE), (upset, Verdict.INVALID)):
        name = role.removeprefix("release.")
        if role.startswith("release"):
            case = replace(whole, release=replace(whole.release, **{name: measurement}))
        else:
            case = replace(whole, **{name: measurement})
        found = gate(case)
        assert found.verdict is verdict
        assert ("release 1.4.0" if role.startswith("release") else "this run") in found.reason
        assert "2 of at least 3 processes" in found.reason


def test_too_few_runs_say_nothing_of_p99() -> None:
    short = make_measurement(FLOAT, runs=29)
    found = gate(replace(evidence(2.0), baseline=short))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "290 runs" in found.reason


def test_the_judge_asks_it() -> None:
    judgement = judge(evidence(2.2))
    assert [g.gate for g in judgement.gates if g.verdict is Verdict.FAIL] == ["regression"]
    assert judgement.verdict is Verdict.FAIL
