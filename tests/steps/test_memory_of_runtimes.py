"""Which places are searched under a memory limit, with figures of runtimes that are given and not measured."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from edgeprune.planning.feasibility import ShapeFigures, decide
from edgeprune.planning.ladder import Ladder
from edgeprune.records.breakdown import PlaceSurvey
from edgeprune.records.memory import LiveTensor, OpenSchedule, OpenTensor, Schedule
from edgeprune.records.rung import GroupWidth, Limits, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.schema.profile import Budget
from edgeprune.steps.memory import shape_memory
from edgeprune.steps.narrowing import structured_rung
from edgeprune.steps.planning import _Planner
from edgeprune.steps.refusal import no_plan_error

MB = 1_000_000
WIDTHS = (GroupWidth(group="a", before=16, after=8),)


def figures(runtime: str, p50_ms: float, base_mb: int, peak_mb: int) -> ShapeFigures:
    return ShapeFigures(
        rung=Rung(runtime=runtime, precision=Precision.FLOAT32),
        p50_ms=p50_ms,
        p99_ms=p50_ms,
        artifact_bytes=MB,
        peak_bytes=peak_mb * MB,
        base_bytes=base_mb * MB,
    )


@dataclass
class Shapes:
    """Answers with what it was given."""

    dense: dict[str, ShapeFigures]
    bench: Any = field(default_factory=lambda: SimpleNamespace(note=lambda *_: None))

    def measure(self, rung: Rung) -> ShapeFigures:
        return self.dense[rung.runtime]

    @staticmethod
    def latest(figures: ShapeFigures) -> ShapeFigures:
        return figures


@dataclass
class Narrowest:
    """A search that ends with the narrowest widths: half as slow, and so much smaller."""

    dense: dict[str, ShapeFigures]
    less_mb: int
    asked: list[str] = field(default_factory=list)
    surveys: list[PlaceSurvey] = field(default_factory=list)

    def fastest_admissible(self, place: Rung, _: Limits | None = None) -> ShapeFigures:
        self.asked.append(place.runtime)
        found = self.dense[place.runtime]
        rung = structured_rung(place, WIDTHS)
        peak_bytes = found.peak_bytes - self.less_mb * MB
        return replace(found, rung=rung, widths=WIDTHS, p50_ms=found.p50_ms / 2, peak_bytes=peak_bytes)

    def plan(self, dense: ShapeFigures, narrow: ShapeFigures, limits: Limits) -> list[PlannedRung]:
        return [decide(narrow, limits, 1.0)]


def planned(less_mb: int, memory_mb: float, *shapes: ShapeFigures) -> tuple[_Planner, Narrowest]:
    dense = {shape.rung.runtime: shape for shape in shapes}
    places = tuple(shape.rung for shape in shapes)
    narrower = Narrowest(dense, less_mb)
    budget = Budget(p50_ms=10.0, memory_mb=memory_mb)
    shapes, costs = Shapes(dense), SimpleNamespace(measurable=False)
    ladder = Ladder(rungs=places, places=places, finer_places=(), refused=())
    planner = _Planner(shapes, narrower, costs, ladder, budget, [])
    return planner, narrower


FAST, SLOW = figures("openvino", 1.0, 45, 100), figures("tflite", 2.0, 30, 60)


def test_a_slower_runtime_is_searched_where_the_faster_takes_too_much_memory() -> None:
    planner, narrower = planned(20, 50.0, FAST, SLOW)
    plan = planner.plan()
    assert narrower.asked == ["openvino", "tflite"]
    (chosen,) = plan.planned
    assert (chosen.rung.runtime, chosen.rung.pruning) == ("tflite", PruningKind.STRUCTURED)
    # With room for both, the slower one is not worth it.
    planner, narrower = planned(20, 90.0, FAST, SLOW)
    planner.plan()
    assert narrower.asked == ["openvino"]


def test_a_runtime_that_is_too_large_by_itself_is_not_asked_for_widths() -> None:
    planner, narrower = planned(20, 42.0, FAST, SLOW)
    plan = planner.plan()
    assert narrower.asked == ["tflite"]
    refused = next(r for r in plan.rungs if r.rung == replace(FAST.rung, pruning=PruningKind.STRUCTURED))
    assert refused.status is RungStatus.REFUSED
    assert refused.reason.startswith("the runtime alone takes 45.0 MB before it loads a model")


def test_the_no_tells_the_least_memory_that_could_be_met_and_by_what() -> None:
    planner, _ = planned(5, 50.0, FAST, SLOW)
    plan = planner.plan()
    assert plan.planned == ()
    error = no_plan_error(plan)
    assert "memory 50.0 MB" in error.message
    assert "a peak memory of the process of 55.0 MB (by tflite-float32-t1-structured50) could be met" in error.message
    assert error.facts["least_feasible_memory_bytes"] == 55 * MB


def _width(figures: ShapeFigures) -> int:
    return figures.widths[0].after if figures.widths else 16


def test_where_the_compiled_graphs_differ_the_models_calls_stand_for_them_and_that_is_told() -> None:
    calls = OpenSchedule(
        steps=("conv",),
        tensors=(OpenTensor(name="", fixed=0, by_group=(("a", 1e6),), element_bytes=4, first=0, last=0),),
    )
    narrow = replace(SLOW, widths=WIDTHS, peak_bytes=45 * MB)
    limits = Limits(memory_bytes=50 * MB)
    memory = shape_memory(calls, lambda f: 1000 * _width(f), limits, SLOW, narrow)
    assert "differ" in memory.doubt
    forecast = memory.take(replace(narrow, widths=(GroupWidth(group="a", before=16, after=12),), peak_bytes=53 * MB))
    assert 45 * MB < forecast.predicted_bytes < 60 * MB
    assert forecast.activation_bytes == 48 * MB


def test_what_is_not_found_in_the_model_is_told() -> None:
    def compiled(*sizes: int) -> Schedule:
        tensors = tuple(LiveTensor(name="", elements=n, element_bytes=1, first=0, last=0) for n in sizes)
        return Schedule(steps=("conv",), tensors=tensors, weight_bytes=10)

    calls = OpenSchedule(steps=(), tensors=())
    dense = replace(SLOW, schedule=compiled(300, 100))
    narrow = replace(SLOW, widths=WIDTHS, schedule=compiled(300, 50))
    memory = shape_memory(calls, _width, Limits(), dense, narrow)
    assert memory.doubt.startswith("25% of the compiled tensors' bytes follow no tensor of the model")
    all_found = shape_memory(calls, _width, Limits(), dense, replace(dense, widths=WIDTHS))
    assert all_found.doubt == ""
