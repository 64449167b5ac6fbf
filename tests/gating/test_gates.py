"""The contract of every gate in the folder, then each one's own cases."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from records_for_tests import (
    FLOAT,
    FLOORS,
    LIMITS,
    make_accuracy,
    make_block,
    make_evidence,
    make_measurement,
    make_samples_ns,
)

from edgeprune.clustering import ProcessSamples
from edgeprune.errors import InputError
from edgeprune.gating.gates import GATES
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.measurement import Block, DisturbedBlock
from edgeprune.records.rung import Limits
from edgeprune.records.shares import Share, ShareFloor
from edgeprune.records.verdict import Evidence, Floors, GateResult, Release, Verdict
from edgeprune.statistics import quantile_bounds

NAMES = GATES.names()
NO_LIMITS = make_evidence(Limits(), Floors())
# Beside a dense model, and held against a release that was exactly as fast.
DENSE = make_measurement(FLOAT, p50_ms=6.0, seed=40)
SAME = Release(name="1.0", measurement=make_measurement(seed=20), baseline=DENSE, max_regression=0.2)
# What the dense model gets right, and floors under it: of a class, a slice and a corruption.
BEFORE = Share(name="class4", correct=82, total=100)
NIGHT, BLUR = Share(name="night", correct=38, total=40), Share(name="blur 0.75 px", correct=200, total=256)


def all_floors(floor: float, accuracy: float) -> Floors:
    """Every kind of floor, each at one height."""
    return Floors(
        accuracy=accuracy,
        worst_class_recall=floor,
        classes=(ShareFloor(name="class4", floor=floor, before=BEFORE),),
        slices=(ShareFloor(name="night", floor=floor),),
        robustness=(ShareFloor(name="blur 0.75 px", floor=floor),),
    )


ACCURACY = replace(make_accuracy(480), slices=(NIGHT,), robustness=(BLUR,))
GOOD = replace(make_evidence(floors=all_floors(0.75, 0.905), accuracy=ACCURACY), baseline=DENSE, release=SAME)
BARE = replace(GOOD, measurement=None, accuracy=None)
TIGHT = replace(
    make_evidence(
        Limits(p50_ms=1.0, p99_ms=1.0, memory_bytes=1, artifact_bytes=1),
        all_floors(0.9999, 0.999),
        accuracy=replace(
            make_accuracy(480),
            slices=(Share(name="night", correct=20, total=40),),
            robustness=(Share(name="blur 0.75 px", correct=128, total=256),),
        ),
    ),
    baseline=DENSE,
    release=replace(SAME, measurement=make_measurement(p50_ms=1.0, seed=20), max_regression=0.0),
)


def judged(name: str, evidence: Evidence) -> GateResult:
    result = GATES.get(name).judge(evidence)
    assert result is not None
    return result


def test_the_folder_has_the_ten_gates() -> None:
    assert NAMES == (
        "accuracy", "classes", "memory", "p50", "p99", "regression", "robustness", "size", "slices", "worst_class",
    )  # fmt: skip


def test_an_unknown_gate_is_refused_with_the_closest() -> None:
    with pytest.raises(InputError, match="did you mean 'p99'"):
        GATES.get("p999")


@pytest.mark.parametrize("name", NAMES)
def test_silent_without_a_limit(name: str) -> None:
    assert GATES.get(name).judge(NO_LIMITS) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("evidence", [GOOD, BARE, TIGHT], ids=["good", "bare", "tight"])
def test_contract(name: str, evidence: Evidence) -> None:
    result = judged(name, evidence)
    assert result == judged(name, evidence)
    assert result.gate == name
    assert result.unit
    assert result.reason
    assert all(x is None or math.isfinite(x) for x in (result.measured, result.bound, result.limit))
    assert from_json(GateResult, to_json(result)) == result


@pytest.mark.parametrize("name", NAMES)
def test_good_evidence_passes_and_tight_limits_fail(name: str) -> None:
    assert judged(name, GOOD).verdict is Verdict.PASS
    assert judged(name, TIGHT).verdict is Verdict.FAIL


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"size"}))
def test_what_was_not_measured_is_inconclusive(name: str) -> None:
    result = judged(name, BARE)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reason in {"not measured", "not evaluated"}


def ramp(count: int) -> Block:
    """1 to count microseconds."""
    return make_block(tuple(1000 * (k + 1) for k in range(count)))


def test_latency_confidence_is_split_over_the_planned_looks() -> None:
    measurement = replace(make_measurement(), blocks=(ramp(400),) * 3)
    samples = ProcessSamples(measurement.processes_ns)
    bounds = [quantile_bounds(samples, 0.99, 1 - 0.05 / looks)[1] / 1e6 for looks in (1, 3)]
    assert bounds[0] < bounds[1]
    between = Limits(p99_ms=(bounds[0] + bounds[1]) / 2)
    one_look = replace(measurement, planned_looks=1)
    assert judged("p99", make_evidence(between, measurement=one_look)).verdict is Verdict.PASS
    assert judged("p99", make_evidence(between, measurement=measurement)).verdict is Verdict.INCONCLUSIVE


def test_too_few_runs_for_a_p99_are_inconclusive_and_say_so() -> None:
    measurement = replace(make_measurement(), blocks=(ramp(50),) * 3)
    result = judged("p99", make_evidence(Limits(p50_ms=9, p99_ms=9), measurement=measurement))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.bound is None
    assert "too few runs" in result.reason
    assert judged("p50", make_evidence(Limits(p50_ms=9), measurement=measurement)).verdict is Verdict.PASS


def test_disturbances_that_leave_two_processes_are_invalid() -> None:
    bad = DisturbedBlock(block=make_block(), reason="189 involuntary context switches in 1.20 s (limit 29)")
    other = DisturbedBlock(block=make_block(), reason="another")
    whole = make_measurement()
    measurement = replace(whole, blocks=whole.blocks[:2], disturbed=(bad, bad, other))
    result = judged("p99", make_evidence(measurement=measurement))
    assert result.verdict is Verdict.INVALID
    assert result.reason == (
        "the device was disturbed: 2 of 5 processes count, at least 3 must; "
        "189 involuntary context switches in 1.20 s (limit 29) (and 1 other reasons)"
    )


def test_a_device_that_stayed_disturbed_is_invalid_however_many_blocks_count() -> None:
    bad = DisturbedBlock(block=make_block(), reason="0.60 s of the pinned cores used by other processes")
    measurement = replace(make_measurement(), disturbed=(bad,), gave_up=True)
    for limits in (Limits(p50_ms=9, p99_ms=9), Limits(p50_ms=0.1, p99_ms=0.1)):
        result = judged("p99", make_evidence(limits, measurement=measurement))
        assert result.verdict is Verdict.INVALID
        assert result.reason == (
            "the device was disturbed: 10 of 11 processes count, sampling gave up; "
            "0.60 s of the pinned cores used by other processes"
        )


def test_processes_that_differ_widen_the_bound() -> None:
    alike = make_measurement(processes=5)
    apart = replace(alike, blocks=tuple(make_block(make_samples_ns(200, p50_ms=m)) for m in (1.6, 1.8, 2, 2.2, 2.4)))
    limits = Limits(p50_ms=2.2)
    assert judged("p50", make_evidence(limits, measurement=alike)).verdict is Verdict.PASS
    result = judged("p50", make_evidence(limits, measurement=apart))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "1000 runs in 5 processes, worth" in result.reason


def test_two_quiet_processes_are_inconclusive() -> None:
    measurement = replace(make_measurement(), blocks=make_measurement().blocks[:2])
    result = judged("p50", make_evidence(measurement=measurement))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "only 2" in result.reason


def test_memory_is_the_largest_process_disturbed_ones_too() -> None:
    big = DisturbedBlock(block=make_block(peak_bytes=170_000_000), reason="x")
    assert judged("memory", make_evidence()).measured == pytest.approx(105.4)
    found = judged("memory", make_evidence(measurement=replace(make_measurement(), disturbed=(big,))))
    assert (found.verdict, found.measured) == (Verdict.FAIL, 170.0)


def test_size_at_its_limit_passes() -> None:
    limit = LIMITS.artifact_bytes
    assert limit is not None
    assert judged("size", make_evidence(artifact_bytes=limit)).verdict is Verdict.PASS
    assert judged("size", make_evidence(artifact_bytes=limit + 1)).verdict is Verdict.FAIL


@pytest.mark.parametrize("dense", range(60, 101))
def test_a_floor_one_point_under_dense_is_met_by_exactly_one_point_less(dense: int) -> None:
    floors = Floors(accuracy=dense / 100 - 1 / 100)
    kept, lost = (make_accuracy(5 * n, 500, classes=5) for n in (dense - 1, dense - 2))
    assert judged("accuracy", make_evidence(floors=floors, accuracy=kept)).verdict is Verdict.PASS
    assert judged("accuracy", make_evidence(floors=floors, accuracy=lost)).verdict is Verdict.FAIL


def test_one_example_in_a_million_decides() -> None:
    floors = Floors(accuracy=0.9)
    for correct, verdict in ((900_000, Verdict.PASS), (899_999, Verdict.FAIL)):
        accuracy = make_accuracy(correct, 1_000_000)
        assert judged("accuracy", make_evidence(floors=floors, accuracy=accuracy)).verdict is verdict


def test_worst_class_names_the_class_that_an_average_hides() -> None:
    accuracy = make_accuracy(450)
    found = judged("worst_class", make_evidence(floors=FLOORS, accuracy=accuracy))
    assert (found.verdict, found.measured) == (Verdict.FAIL, 50.0)
    assert found.reason.startswith("class class4: 50 of 100 right, floor 80.0%; at most ")


@pytest.mark.parametrize("name", ["accuracy", "worst_class"])
def test_a_split_without_examples_is_inconclusive(name: str) -> None:
    empty = replace(make_accuracy(), confusion=((0, 0), (0, 0)), class_names=("a", "b"))
    assert judged(name, make_evidence(accuracy=empty)).verdict is Verdict.INCONCLUSIVE
