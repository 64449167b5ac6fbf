from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from records_for_tests import make_block, make_evidence, make_measurement

from edgeprune.gating.judge import judge, judge_latency
from edgeprune.gating.limits import absolute_limits, latency_limit
from edgeprune.records.measurement import Measurement
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import Evidence, Speedups, Verdict


def measured(samples_ns: np.ndarray) -> Measurement:
    blocks = tuple(
        replace(make_block(), samples_ns=tuple(int(s) for s in part)) for part in np.array_split(samples_ns, 3)
    )
    return replace(make_measurement(), blocks=blocks, disturbed=(), planned_looks=3, confidence=0.95)


def heavy_tailed(rng: np.random.Generator, median_ns: float, count: int = 3000) -> np.ndarray:
    return median_ns * np.exp(0.05 * rng.standard_normal(count)) + rng.pareto(2.5, count) * 0.05 * median_ns


def evidence(**changes: object) -> Evidence:
    return replace(make_evidence(), limits=Limits(), **changes)  # type: ignore[arg-type]


def test_a_limit_in_milliseconds_is_the_same_for_pass_and_fail() -> None:
    limit = latency_limit(replace(evidence(), limits=Limits(p99_ms=5.0)), 99.0)
    assert limit is not None
    assert limit.pass_ms == limit.fail_ms == 5.0


def test_a_relative_limit_brackets_the_point_value_of_the_baseline() -> None:
    baseline = measured(np.arange(1_000_000, 4_000_000, 1000))
    limit = latency_limit(evidence(speedups=Speedups(p50=2.0), baseline=baseline), 50.0)
    assert limit is not None
    assert limit.pass_ms < 2.4995 / 2 < limit.fail_ms


def test_without_a_baseline_nothing_passes_and_nothing_fails() -> None:
    limit = latency_limit(evidence(speedups=Speedups(p99=2.0)), 99.0)
    assert limit is not None
    assert (limit.pass_ms, limit.fail_ms) == (0.0, float("inf"))


def test_no_limit_is_no_gate() -> None:
    assert latency_limit(evidence(), 50.0) is None
    assert absolute_limits(evidence()) == Limits()


@pytest.mark.parametrize(("true_over_limit", "wrong"), [(1.0, (Verdict.PASS, Verdict.FAIL)), (0.95, (Verdict.FAIL,))])
def test_a_relative_verdict_is_wrong_at_most_as_often_as_allowed(
    true_over_limit: float, wrong: tuple[Verdict, ...]
) -> None:
    rng = np.random.default_rng(5)
    campaigns, found = 200, 0
    for _ in range(campaigns):
        dense, candidate = heavy_tailed(rng, 1e6), heavy_tailed(rng, 1e6 * true_over_limit / 2.5)
        case = evidence(speedups=Speedups(p99=2.5))
        found += judge_latency(case, measured(candidate), measured(dense)) in wrong
    assert found <= 0.05 * campaigns + 3 * np.sqrt(0.05 * 0.95 * campaigns)


def test_the_reason_says_what_a_relative_limit_is_relative_to() -> None:
    dense = make_measurement(p50_ms=4.0, processes=30)
    case = replace(evidence(speedups=Speedups(p50=1.5)), measurement=make_measurement(), baseline=dense)
    (gate,) = (g for g in judge(case).gates if g.gate == "p50")
    assert "; limit: 1.5x faster than dense, whose p50 is at least 3." in gate.reason
    assert "(99.9%)" in gate.reason
