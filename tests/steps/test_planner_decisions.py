"""What the planner does with what a device shows, the device told beforehand: which places, in which order, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from edgeprune.planning.feasibility import ShapeFigures, decide
from edgeprune.planning.ladder import make_ladder
from edgeprune.records.breakdown import PlaceSurvey
from edgeprune.records.rung import GroupWidth, Limits, Plan, PlannedRung, Precision, Rung, RungStatus
from edgeprune.schema.base import parse_toml
from edgeprune.schema.profile import DeviceProfile
from edgeprune.schema.target import Pruning
from edgeprune.steps.narrowing import structured_rung
from edgeprune.steps.planning import _Planner

F32, INT8 = Precision.FLOAT32, Precision.INT8
HALF = (GroupWidth(group="g", before=64, after=32),)
NARROWEST = (GroupWidth(group="g", before=64, after=16),)


def profile(budget: str, threads: str = "[1]") -> DeviceProfile:
    text = f'schema = 1\nname = "x"\nthreads = {threads}\n[hardware]\narch = "any"\ncores = 4\n[runtimes.tflite]\n'
    return parse_toml(f"{text}[budget]\n{budget}", DeviceProfile, where="x.toml")


def figures(rung: Rung, p50_ms: float, p99_ms: float | None = None, **changes: Any) -> ShapeFigures:
    given = {"rung": rung, "p50_ms": p50_ms, "p99_ms": p99_ms or 1.1 * p50_ms, "artifact_bytes": 10, "peak_bytes": 10}
    return ShapeFigures(**{**given, **changes})


class _Narrower:
    """The narrowest shape takes a quarter of the full one's time, half the channels half of it."""

    def __init__(self, full: Mapping[str, tuple[float, float]], least: float) -> None:
        self.full, self.least, self.searched = full, least, list[str]()
        self.surveys = list[PlaceSurvey]()

    def fastest_admissible(self, place: Rung) -> ShapeFigures:
        return figures(structured_rung(place, NARROWEST), self.full[place.name][0] / 4, widths=NARROWEST)

    def likely_loss(self, *_: Any) -> None:
        return None

    def least_loss(self, *_: Any) -> float:
        return self.least

    def plan(self, dense: ShapeFigures, narrow: ShapeFigures, limits: Limits) -> list[PlannedRung]:
        self.searched.append(dense.rung.name)
        found = figures(structured_rung(dense.rung, HALF), dense.p50_ms / 2, widths=HALF)
        return [decide(found, limits, 0.0)]


def made(
    full: Mapping[str, tuple[float, float]],
    losses: Mapping[str, float] | None,
    budget: str = "p50_ms = 1.0",
    threads: str = "[1]",
    least: float = 0.1,
) -> tuple[Plan, _Narrower]:
    """Plan for one runtime.

    Args:
        full: by place, p50 and p99 of the full widths.
        losses: by precision, and of a cut; None where nothing is measured.
    """

    def priced(rung: PlannedRung) -> PlannedRung:
        cut = (losses or {})["cut"] if rung.widths else 0.0
        return replace(rung, accuracy_cost=(losses or {})[rung.rung.precision] + cut, cost_error=0.001)

    ladder = make_ladder(
        profile(budget, threads), Pruning(ratios=(0.5,), sparsities=(0.7,)), {"tflite": (F32, INT8)}, can_cut=True
    )
    shapes = SimpleNamespace(
        bench=SimpleNamespace(note=lambda *_: None), measure=lambda r: figures(r, *full[r.name])
    )  # fmt: skip
    narrower = _Narrower(full, least)
    costs = SimpleNamespace(measurable=losses is not None, priced=priced)
    return _Planner(shapes, narrower, costs, ladder, profile(budget, threads).budget, []).plan(), narrower


def names(plan: Plan) -> list[str]:
    return [r.rung.name.removeprefix("tflite-") for r in plan.planned]


def reasons(plan: Plan) -> dict[str, str]:
    refused = (r for r in plan.rungs if r.status is RungStatus.REFUSED)
    return {r.rung.name.removeprefix("tflite-"): r.reason for r in refused}


ONE_THREAD = {"tflite-float32-t1": (1.8, 2.0), "tflite-int8-t1": (0.5, 0.6)}


def test_int8_that_loses_nothing_to_be_seen_is_all_that_is_planned() -> None:
    plan, narrower = made(ONE_THREAD, {"float32": 0.0, "int8": 0.0005, "cut": 0.2})
    assert names(plan) == ["int8-t1"]
    assert plan.costs_measured
    assert narrower.searched == []
    assert "no widths in float32 could cost less" in reasons(plan)["float32-t1-structured"]


def test_int8_that_breaks_the_model_comes_after_a_cut_in_float32() -> None:
    plan, narrower = made(ONE_THREAD, {"float32": 0.0, "int8": 0.9, "cut": 0.2})
    assert names(plan) == ["float32-t1-structured50", "int8-t1"]
    assert narrower.searched == ["tflite-float32-t1"]
    assert [r.accuracy_cost for r in plan.planned] == [0.2, 0.9]


def test_without_a_trained_model_the_order_is_habit_and_the_plan_says_so() -> None:
    plan, narrower = made(ONE_THREAD, None)
    assert names(plan) == ["int8-t1"]
    assert not plan.costs_measured
    assert narrower.searched == []
    assert "only when the costs of the planned rungs are measured" in reasons(plan)["float32-t1-structured"]
    assert any(n.startswith("accuracy costs are ranks, not losses") for n in plan.notes)


def test_where_int8_is_the_slower_float_widths_are_the_last_resort() -> None:
    slow_int8 = {"tflite-float32-t1": (1.8, 2.0), "tflite-int8-t1": (9.0, 9.1)}
    plan, narrower = made(slow_int8, {"float32": 0.0, "int8": 0.1, "cut": 0.2})
    assert names(plan) == ["float32-t1-structured50"]
    assert narrower.searched == ["tflite-int8-t1", "tflite-float32-t1"]
    # And where it is the faster and does not fit, nothing else is asked.
    plan, narrower = made({"tflite-float32-t1": (18.0, 20.0), "tflite-int8-t1": (9.0, 9.1)}, None)
    assert plan.planned == ()
    assert narrower.searched == ["tflite-int8-t1"]
    assert "tflite-int8-t1 is as fast at full widths, and no widths fit there" in reasons(plan).values()


def test_threads_are_chosen_by_the_tail_where_that_is_limited() -> None:
    both = {
        "tflite-float32-t1": (9.0, 9.9), "tflite-float32-t2": (5.0, 40.0),
        "tflite-int8-t1": (1.8, 2.0), "tflite-int8-t2": (1.2, 20.0),
    }  # fmt: skip
    losses = {"float32": 0.0, "int8": 0.0, "cut": 0.2}
    plan, narrower = made(both, losses, "p50_ms = 1.0\np99_ms = 2.0", "[1, 2]")
    assert narrower.searched == ["tflite-int8-t1"]
    assert names(plan) == ["int8-t1-structured50"]
    assert reasons(plan)["int8-t2-structured"] == "p99 20.0 ms, and 2.00 ms with 1 thread(s)"
    plan, narrower = made(both, losses, "p50_ms = 1.0", "[1, 2]")
    assert narrower.searched == ["tflite-int8-t2"]


def test_a_dominated_rung_is_refused_by_name() -> None:
    both = {"tflite-float32-t1": (0.9, 1.0), "tflite-int8-t1": (0.95, 1.0)}
    plan, _ = made(both, {"float32": 0.0, "int8": 0.3, "cut": 0.2})
    assert names(plan)[0] == "float32-t1"
    assert reasons(plan)["int8-t1"].startswith("tflite-float32-t1 is nowhere worse: accuracy cost 0 against 0.3")
