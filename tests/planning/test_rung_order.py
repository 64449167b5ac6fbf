"""Which rung is tried first, and which need not be tried."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.planning.feasibility import tightness
from edgeprune.planning.rung_order import drop_dominated, ordered
from edgeprune.records.rung import Limits, PlannedRung, Precision, PruningKind, Rung, RungStatus

F32, BF16, INT8 = Precision.FLOAT32, Precision.BF16, Precision.INT8
LIMITS = Limits(p50_ms=1.0, p99_ms=2.0, memory_bytes=10**9, artifact_bytes=10**9)


def rung(precision: Precision = F32, ratio: float = 0.0, runtime: str = "tflite", threads: int = 1) -> Rung:
    pruning = PruningKind.STRUCTURED if ratio else PruningKind.NONE
    return Rung(runtime=runtime, precision=precision, threads=threads, pruning=pruning, pruning_ratio=ratio)


def planned(of: Rung, cost: float | None, error: float = 0.0, p50_ms: float = 0.5, **changes: Any) -> PlannedRung:
    figures = {"p50_ms": p50_ms, "p99_ms": 2 * p50_ms, "artifact_bytes": 1000, "peak_bytes": 10**6, **changes}
    given = {"status": RungStatus.PLANNED, "reason": "", "accuracy_cost": cost, "cost_error": error, **figures}
    return PlannedRung(**{"rung": of, **given})


def names(rungs: list[PlannedRung]) -> list[str]:
    return [r.rung.name.removeprefix("tflite-") for r in rungs]


def test_order_is_by_measured_loss_whatever_the_kind() -> None:
    # INT8 breaks this model, and a cut of float32 does not.
    found = ordered([planned(rung(INT8), 0.9, 0.1), planned(rung(F32, 0.4), 0.05, 0.01)], LIMITS)
    assert names(found) == ["float32-t1-structured40", "int8-t1"]


def test_within_the_noise_what_needs_no_training_comes_first() -> None:
    cut, quantized, dense = (
        planned(rung(F32, 0.2), 0.001, 0.002),
        planned(rung(INT8), 0.0025, 0.001),
        planned(rung(), 0),
    )
    assert names(ordered([cut, quantized], LIMITS)) == ["int8-t1", "float32-t1-structured20"]
    # Of unpruned ones it is habit, and not what happened to be measured lowest, nor the faster.
    quantized = replace(quantized, accuracy_cost=0.0, p50_ms=0.1)
    assert names(ordered([cut, quantized, dense], LIMITS)) == ["float32-t1", "int8-t1", "float32-t1-structured20"]


def test_refused_rungs_come_last_and_those_without_a_cost_at_the_end() -> None:
    refused = [replace(planned(rung(INT8), cost), status=RungStatus.REFUSED) for cost in (None, 0.1)]
    found = ordered([*refused, planned(rung(), 3.0)], LIMITS)
    assert [r.accuracy_cost for r in found] == [3.0, 0.1, None]


def test_equal_rungs_are_ordered_by_the_percentile_that_the_budget_limits() -> None:
    # Two threads: half of the p50, ten times the p99.
    one, two = planned(rung(), 0.0, p50_ms=0.8, p99_ms=1.0), planned(rung(threads=2), 0.0, p50_ms=0.4, p99_ms=9.0)
    assert names(ordered([two, one], LIMITS)) == ["float32-t1", "float32-t2"]
    assert names(ordered([one, two], replace(LIMITS, p99_ms=None))) == ["float32-t2", "float32-t1"]
    assert tightness(one, LIMITS) == pytest.approx(0.8)
    assert tightness(one, Limits(memory_bytes=1)) == 0.8
    assert tightness(replace(one, p50_ms=None), LIMITS) == math.inf


def test_a_better_rung_drops_another_and_is_named() -> None:
    better = planned(rung(INT8), 0.001, 0.001, p50_ms=0.2)
    worse = planned(rung(INT8, runtime="openvino"), 0.002, 0.001, p50_ms=0.3, peak_bytes=2 * 10**6)
    _, dropped = drop_dominated([better, worse], LIMITS)
    assert dropped.status is RungStatus.REFUSED
    assert dropped.reason == (
        "tflite-int8-t1 is nowhere worse: accuracy cost 0.001 against 0.002, p50 0.200 ms against 0.300 ms, "
        "p99 0.400 ms against 0.600 ms, memory 1.00 MB against 2.00 MB, size 0.00100 MB against 0.00100 MB"
    )


@pytest.mark.parametrize(
    "change", [{"p50_ms": 0.19}, {"p99_ms": 0.39}, {"peak_bytes": 10}, {"artifact_bytes": 10}, {"p50_ms": None}]
)
def test_a_rung_that_is_better_in_one_thing_or_was_not_measured_stays(change: dict[str, Any]) -> None:
    head = planned(rung(INT8), 0.001, 0.0, p50_ms=0.2)
    fallback = replace(planned(rung(INT8, 0.5), 0.5, 0.0, p50_ms=0.3), **change)
    assert all(r.status is RungStatus.PLANNED for r in drop_dominated([head, fallback], LIMITS))


def test_what_the_budget_does_not_limit_does_not_count() -> None:
    head = planned(rung(INT8), 0.0, p50_ms=0.2)
    small = planned(rung(INT8, 0.5), 0.5, p50_ms=0.3, artifact_bytes=10, peak_bytes=10, p99_ms=0.1)
    statuses = [r.status for r in drop_dominated([head, small], Limits(p50_ms=1.0))]
    assert statuses == [RungStatus.PLANNED, RungStatus.REFUSED]
    # A limit of the model's memory does not count what the runtime takes by itself.
    other = replace(small, rung=rung(INT8, 0.5, runtime="openvino"))
    limits = Limits(p50_ms=1.0, memory_bytes=10**9, memory_of="model")
    assert all(r.status is RungStatus.PLANNED for r in drop_dominated([head, other], limits))
    lean = replace(head, base_bytes=head.peak_bytes)
    assert [r.status for r in drop_dominated([lean, other], limits)] == [RungStatus.PLANNED, RungStatus.REFUSED]


def test_a_coarser_rung_drops_only_what_is_worse_beyond_the_noise() -> None:
    dense, quantized = planned(rung(), 0.0), planned(rung(INT8), 0.0, 0.01, p50_ms=0.1)
    assert all(r.status is RungStatus.PLANNED for r in drop_dominated([dense, quantized], LIMITS))
    half = planned(rung(BF16), 0.5, 0.01)
    assert [r.status for r in drop_dominated([quantized, half], LIMITS)] == [RungStatus.PLANNED, RungStatus.REFUSED]


def test_of_two_that_are_equal_in_everything_the_first_stays() -> None:
    found = drop_dominated([planned(rung(), 0.0), planned(rung(runtime="openvino"), 0.0)], LIMITS)
    assert [r.status for r in found] == [RungStatus.PLANNED, RungStatus.REFUSED]


kinds = st.tuples(st.sampled_from([F32, BF16, INT8]), st.sampled_from([0.0, 0.3, 0.6]), st.integers(1, 2))
figures = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 3), st.integers(1, 3))
ladders = st.dictionaries(kinds, figures, max_size=8).map(
    lambda found: [
        planned(rung(kind[0], kind[1], threads=kind[2]), cost / 10, error / 10, p50_ms=p50 / 10, peak_bytes=peak)
        for kind, (cost, error, p50, peak) in found.items()
    ]
)


@settings(max_examples=60, deadline=None)
@given(ladders)
def test_laws_of_order_and_dominance(rungs: list[PlannedRung]) -> None:
    order = ordered(rungs, LIMITS)
    assert sorted(r.rung.name for r in order) == sorted(r.rung.name for r in rungs)
    after = drop_dominated(order, LIMITS)
    assert [r.rung for r in after] == [r.rung for r in order]
    stay = [r for r in after if r.status is RungStatus.PLANNED]
    dropped = [r for r in after if r.status is RungStatus.REFUSED]
    assert bool(stay) == bool(rungs)
    if rungs:
        # The lowest cost is never lost beyond the noise, and neither is the fastest.
        assert min(r.accuracy_cost - r.cost_error for r in stay) <= min(r.accuracy_cost for r in rungs)
        assert min(r.p50_ms for r in stay) == min(r.p50_ms for r in rungs)
    for loser in dropped:
        winner = next(r for r in stay if loser.reason.startswith(f"{r.rung.name} is nowhere worse"))
        assert winner.accuracy_cost <= loser.accuracy_cost
        assert winner.p50_ms <= loser.p50_ms
