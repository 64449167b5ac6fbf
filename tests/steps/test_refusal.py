"""What a no says: the best, what limits it, and what could be met."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from records_for_tests import FLOAT, INT8, make_breakdown
from targets_for_tests import make_target, until_quiet

import edgeprune
from edgeprune.records.rung import Limits, Plan, PlannedRung, Rung, RungStatus
from edgeprune.reporting.plan_html import render_plan_html
from edgeprune.steps.refusal import _too_slow, no_plan_error


def refused(rung: Rung, p50_ms: float, p99_ms: float, mb: float, peak_mb: float) -> PlannedRung:
    return PlannedRung(
        rung=rung, status=RungStatus.REFUSED, reason="over", accuracy_cost=1.0, p50_ms=p50_ms, p99_ms=p99_ms,
        artifact_bytes=int(mb * 1e6), peak_bytes=int(peak_mb * 1e6),
    )  # fmt: skip


DENSE = refused(FLOAT, 8.0, 9.0, 4.0, 100.0)
SMALL = refused(INT8, 2.0, 2.5, 1.0, 110.0)


def plan(limits: Limits, *rungs: PlannedRung) -> Plan:
    return Plan(rungs=rungs or (SMALL, DENSE), limits=limits, dense=DENSE)


def test_both_percentiles_of_the_best_and_the_least_budget_are_told() -> None:
    error = no_plan_error(plan(Limits(p50_ms=1.0, p99_ms=1.5)), Path("report.html"))
    assert error.exit_code == 3
    assert error.message.startswith(
        "no plan fits the budget (p50 1.00 ms, p99 1.50 ms); the best possible is p50 2.00 ms and p99 2.50 ms "
        "(a hint: few runs) by openvino-int8-t1: over; "
    )
    assert "a p50 of 2.04 ms (3.92x dense) and a p99 of about 2.50 ms could be met" in error.message
    assert error.message.endswith("every rung and why: report.html")
    assert error.facts["best_p99_ms"] == 2.5
    assert error.facts["least_feasible_p50_ms"] == pytest.approx(2.0 / 0.98)
    assert error.facts["limited_by"] is None


def test_the_least_of_each_limit_that_is_missed_may_be_another_rungs() -> None:
    error = no_plan_error(plan(Limits(p50_ms=5.0, memory_bytes=50_000_000, artifact_bytes=500_000)))
    told = "a peak memory of the process of 100 MB (by openvino-float32-t1) and a size of 1.00 MB (by openvino-int8-t1)"
    assert f"; {told} could be met" in error.message
    assert error.facts["least_feasible_p50_ms"] is None
    assert error.facts["least_feasible_artifact_bytes"] == 1_000_000


def test_a_p99_that_long_looks_refused_stands_in_the_way_though_every_p50_is_under_it() -> None:
    """Only a p99 is limited, as for a camera: 2.2 ms where the fastest p50 is 2 ms."""
    quick = no_plan_error(plan(Limits(p99_ms=2.2)))
    assert quick.message.endswith("no limit is out of reach by itself, but no rung meets all of them")
    sure = [replace(rung, long_looks=2) for rung in (SMALL, DENSE)]
    error = no_plan_error(plan(Limits(p99_ms=2.2), *sure)).message
    assert "a p99 of about 2.55 ms could be met" in error


def test_limits_that_are_met_one_by_one_only() -> None:
    error = no_plan_error(plan(Limits(p50_ms=5.0, memory_bytes=105_000_000)))
    assert error.message.endswith(
        "no limit is out of reach by itself, but no rung meets all of them; all else as it is, a p50 of 8.00 ms (by "
        "openvino-float32-t1) or a peak memory of 110 MB (by openvino-int8-t1) could be met"
    )
    assert error.facts["feasible_alone"] == {"p50_ms": 8.0, "memory_bytes": 110_000_000.0}


def test_the_lowest_tail_may_be_another_rungs_than_the_lowest_p50() -> None:
    fast = replace(SMALL, p99_ms=9.5, long_looks=2)
    error = no_plan_error(plan(Limits(p99_ms=3.0), fast, replace(DENSE, long_looks=2)))
    assert "; the lowest p99 of a long look is 9.00 ms by openvino-float32-t1; " in error.message
    assert (error.facts["lowest_p99_ms"], error.facts["lowest_p99_rung"]) == (9.0, "openvino-float32-t1")
    # What takes the fastest one's time is asked where only its tail is in the way, too.
    assert _too_slow(fast, Limits(p99_ms=3.0))
    assert not _too_slow(replace(fast, long_looks=0), Limits(p99_ms=3.0))
    assert "lowest p99" not in no_plan_error(plan(Limits(p50_ms=1.0), fast, replace(DENSE, long_looks=2))).message


def test_what_limits_the_best_is_told_and_is_a_fact() -> None:
    best = replace(SMALL, breakdown=make_breakdown(measured_ms=2.0))
    error = no_plan_error(plan(Limits(p50_ms=1.0), best, DENSE))
    assert f"; of its latency, {make_breakdown().summary}; " in error.message
    facts = error.facts["limited_by"]
    assert isinstance(facts, dict)
    assert (facts["fixed_ms"], facts["rest_ms"], facts["runtime_ms"], facts["measured_ms"]) == (0.1, 0.4, 0.03, 2.0)
    assert facts["operators"][0] == {"layer": "layer0.0.conv1", "kind": "conv3x3", "latency_ms": 0.25}


def test_only_the_fastest_models_own_operators_are_measured_for_a_no(tmp_path: Path) -> None:
    made = make_target(tmp_path, target={"pruning.ignored": ["conv1"]}, profile={"budget.p50_ms": 1e-6})
    found = until_quiet(lambda: edgeprune.plan(made.folder, output=tmp_path / "runs"))
    assert found.planned == ()
    explained = [r for r in found.rungs if r.breakdown is not None]
    assert explained == [found.best]
    where = found.best.breakdown
    assert where is not None
    assert [o.layer for o in where.operators] == ["conv1", "conv2", "head"]
    assert where.predicted_ms == pytest.approx(found.best.p50_ms, rel=0.25)
    assert where.measured_ms == found.best.p50_ms
    assert where.runtime_ms is not None
    assert where.runtime_ms > 0
    assert [o.layer for o in where.operators if o.fixed] == ["conv1"]
    assert where.observations == 1
    page = (tmp_path / "runs" / "tiny-bench-box-local" / "plan.html").read_text()
    assert page == render_plan_html(found, "tiny", "bench-box", "local")
    assert "Where the milliseconds go" in page
