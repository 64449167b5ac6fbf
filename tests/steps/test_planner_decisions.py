"""What the planner does with what a device shows, the device told beforehand: which places, in which order, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from edgeprune.errors import BuildError
from edgeprune.planning.feasibility import ShapeFigures, decide
from edgeprune.planning.ladder import make_ladder
from edgeprune.records.breakdown import PlaceSurvey
from edgeprune.records.cores import Core
from edgeprune.records.rung import GroupWidth, Limits, Plan, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.schema.base import parse_toml
from edgeprune.schema.compression import Pruning
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.narrowing import structured_rung
from edgeprune.steps.planning import _Planner
from edgeprune.steps.refusal import no_plan_error

F32, W16, INT8 = Precision.FLOAT32, Precision.FLOAT32_W16, Precision.INT8
HALF = (GroupWidth(group="g", before=64, after=32),)
NARROWEST = (GroupWidth(group="g", before=64, after=16),)
ODD = (GroupWidth(group="g", before=64, after=13),)


def profile(budget: str, threads: str = "[1]", runtimes: tuple[str, ...] = ("tflite",)) -> DeviceProfile:
    text = f'schema = 1\nname = "x"\nthreads = {threads}\n[hardware]\narch = "any"\ncores = 4\n'
    tables = "".join(f"[runtimes.{name}]\n" for name in runtimes)
    return parse_toml(f"{text}{tables}[budget]\n{budget}", DeviceProfile, where="x.toml")


def figures(rung: Rung, p50_ms: float, p99_ms: float | None = None, **changes: Any) -> ShapeFigures:
    given = {"rung": rung, "p50_ms": p50_ms, "p99_ms": p99_ms or 1.1 * p50_ms, "artifact_bytes": 10, "peak_bytes": 10}
    return ShapeFigures(**{**given, **changes})


class _Narrower:
    """The narrowest shape takes a quarter of the full one's time, half the channels half of it."""

    def __init__(
        self, full: Mapping[str, tuple[float, float]], least: float, narrowest: Mapping[str, float] | None = None
    ) -> None:
        self.full, self.least, self.searched, self.asked = full, least, list[str](), list[str]()
        self.narrowest, self.rounded, self.roundings = narrowest, dict[str, float](), list[str]()
        self.surveys = list[PlaceSurvey]()
        self.shapes = SimpleNamespace(latest=lambda f: f, look_closer=lambda f: replace(f, processes=5, closer=True))

    def fastest_admissible(self, place: Rung, limits: Limits | None = None) -> ShapeFigures:
        if limits is not None:
            self.asked.append(place.name)
        p50_ms = self.full[place.name][0] / 4 if self.narrowest is None else self.narrowest[place.name]
        if math.isinf(p50_ms):
            raise BuildError(f"{place.name} cannot be compiled")
        if self.rounded and (limits is None or p50_ms <= 2 * (limits.p50_ms or 0.0)):
            self.roundings.append(place.name)
            p50_ms = min(p50_ms, self.rounded[place.name])
        widths = NARROWEST if not self.rounded or p50_ms == self.rounded[place.name] else ODD
        return figures(structured_rung(place, widths), p50_ms, widths=widths)

    def likely_loss(self, *_: Any) -> None:
        return None

    def least_loss(self, *_: Any) -> float:
        return self.least

    def plan(self, dense: ShapeFigures, narrow: ShapeFigures, limits: Limits) -> list[PlannedRung]:
        self.searched.append(dense.rung.name)
        if self.narrowest is not None:
            return [decide(narrow, limits, 3.0)]
        size = dense.artifact_bytes // 2
        found = figures(structured_rung(dense.rung, HALF), dense.p50_ms / 2, widths=HALF, artifact_bytes=size)
        return [decide(found, limits, 0.0)]


def made(
    full: Mapping[str, tuple[float, float]],
    losses: Mapping[str, float] | None,
    budget: str = "p50_ms = 1.0",
    threads: str = "[1]",
    least: float = 0.1,
    narrowest: Mapping[str, float] | None = None,
    rounded: Mapping[str, float] | None = None,
    topology: Sequence[Core] = (),
    sizes: Mapping[str, int] | None = None,
) -> tuple[Plan, _Narrower]:
    """Plan for the runtimes that are named.

    Args:
        full: by place, p50 and p99 of the full widths.
        losses: by precision, and of a cut; None where nothing is measured. Infinite ones are refused.
        narrowest: by place, p50 of the narrowest widths; then no others are found. Infinite ones cannot be compiled.
        rounded: the same rounded up to multiples of 8.
        sizes: bytes of the full widths by precision, those that there are.
    """

    def priced(rung: PlannedRung) -> PlannedRung:
        if rung.status is RungStatus.PLANNED and math.isinf((losses or {})[rung.rung.precision]):
            raise BuildError(f"weights do not bear it in {rung.rung.precision}")
        cut = (losses or {})["cut"] if rung.widths else 0.0
        return replace(rung, accuracy_cost=(losses or {})[rung.rung.precision] + cut, cost_error=0.001)

    runtimes = tuple(dict.fromkeys(name.split("-")[0] for name in full))
    checked = profile(budget, threads, runtimes)
    bytes_of = sizes or {"float32": 10, "int8": 10}
    precisions = dict.fromkeys(runtimes, tuple(p for p in Precision if p in bytes_of))
    ladder = make_ladder(
        checked, Pruning(ratios=(0.5,), sparsities=(0.7,)), precisions, can_cut=True, topology=topology
    )
    shapes = SimpleNamespace(
        bench=SimpleNamespace(note=lambda *_: None), refer_to=lambda _: None,
        measure=lambda r: figures(r, *full[r.name], artifact_bytes=bytes_of[r.precision]),
        latest=lambda f: f, look_closer=lambda f: replace(f, processes=5, closer=True),
    )  # fmt: skip
    narrower = _Narrower(full, least, narrowest)
    narrower.rounded |= rounded or {}
    costs = SimpleNamespace(measurable=losses is not None, priced=priced)
    return _Planner(shapes, narrower, costs, ladder, checked.budget, []).plan(), narrower


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
    # And where it is the faster and does not fit, float widths are asked all the same.
    slow = {"tflite-float32-t1": (18.0, 20.0), "tflite-int8-t1": (9.0, 9.1)}
    plan, narrower = made(slow, None)
    assert plan.planned == ()
    assert narrower.asked == ["tflite-int8-t1", "tflite-float32-t1"]
    told = "even with the narrowest widths: p50 4.50 ms on the device, over the budget of 1.00 ms"
    assert reasons(plan)["float32-t1-structured75"] == told
    plan, _ = made(slow, None, narrowest={"tflite-float32-t1": 0.8, "tflite-int8-t1": 2.0})
    assert names(plan) == ["float32-t1-structured75"]


def test_threads_are_chosen_by_the_tail_where_that_is_limited() -> None:
    both = {
        "tflite-float32-t1": (9.0, 9.9), "tflite-float32-t2": (5.0, 40.0),
        "tflite-int8-t1": (1.8, 2.0), "tflite-int8-t2": (1.2, 20.0),
    }  # fmt: skip
    losses = {"float32": 0.0, "int8": 0.0, "cut": 0.2}
    plan, narrower = made(both, losses, "p50_ms = 1.0\np99_ms = 2.0", "[1, 2]")
    assert narrower.searched == ["tflite-int8-t1"]
    assert names(plan) == ["int8-t1-structured50"]
    assert reasons(plan)["int8-t2-structured"] == (
        "p99 20.0 ms, and 2.00 ms with 1 thread(s), at full widths; narrower widths were not measured there"
    )
    plan, narrower = made(both, losses, "p50_ms = 1.0", "[1, 2]")
    assert narrower.searched == ["tflite-int8-t2"]


def test_cores_are_chosen_by_the_tail_where_that_is_limited() -> None:
    """Fast cores that are throttled now and then, and slow ones that never are."""
    both = {
        "tflite-float32-t1-cpu4": (5.0, 40.0), "tflite-float32-t1-cpu3": (9.0, 9.9),
        "tflite-int8-t1-cpu4": (1.2, 20.0), "tflite-int8-t1-cpu3": (1.8, 2.0),
    }  # fmt: skip
    kinds = [Core(cpus=(number,), capacity=1024 if number == 4 else 400) for number in range(5)]
    losses = {"float32": 0.0, "int8": 0.0, "cut": 0.2}
    plan, narrower = made(both, losses, "p50_ms = 1.0\np99_ms = 2.0", topology=kinds)
    assert narrower.searched == ["tflite-int8-t1-cpu3"]
    assert [r.rung.cpus for r in plan.planned] == [(3,)]
    assert reasons(plan)["int8-t1-cpu4-structured"] == (
        "p99 20.0 ms, and 2.00 ms with 1 thread(s) on core(s) 3, at full widths; "
        "narrower widths were not measured there"
    )
    # The dense model that speedups are of is the fastest, wherever that is.
    assert plan.dense.rung.cpus == (4,)
    _, narrower = made(both, losses, "p50_ms = 1.0", topology=kinds)
    assert narrower.searched == ["tflite-int8-t1-cpu4"]


def test_a_dominated_rung_is_refused_by_name() -> None:
    both = {"tflite-float32-t1": (0.9, 1.0), "tflite-int8-t1": (0.95, 1.0)}
    plan, _ = made(both, {"float32": 0.0, "int8": 0.3, "cut": 0.2})
    assert names(plan)[0] == "float32-t1"
    assert reasons(plan)["int8-t1"].startswith("tflite-float32-t1 is nowhere worse: accuracy cost 0 against 0.3")


TWO_RUNTIMES = {
    "openvino-float32-t1": (10.0, 11.0), "openvino-int8-t1": (4.0, 4.4),
    "tflite-float32-t1": (12.0, 13.0), "tflite-int8-t1": (5.5, 6.0),
}  # fmt: skip


def test_no_answer_is_no_before_another_runtime_was_asked() -> None:
    """1.38x slower at full widths, and five times faster at the narrowest."""
    narrowest = {
        "openvino-int8-t1": 1.5, "tflite-int8-t1": 0.3, "openvino-float32-t1": 2.0, "tflite-float32-t1": 0.6,
    }  # fmt: skip
    plan, narrower = made(TWO_RUNTIMES, None, narrowest=narrowest)
    assert [r.rung.name for r in plan.planned] == ["tflite-int8-t1-structured75"]
    # That of the runtime that was not asked yet comes first.
    assert narrower.asked[:2] == ["openvino-int8-t1", "tflite-int8-t1"]
    # What fits too, with less room, is not searched from; what does not is refused with what it took.
    assert narrower.searched == ["openvino-int8-t1", "tflite-int8-t1"]
    assert (
        "even with the narrowest widths: p50 2.00 ms on the device" in reasons(plan)["openvino-float32-t1-structured75"]
    )
    assert plan.not_asked == ()


def test_another_number_of_threads_is_asked_before_the_answer_is_no() -> None:
    full = {
        "tflite-float32-t1": (9.0, 9.9), "tflite-float32-t2": (5.0, 6.0),
        "tflite-int8-t1": (4.0, 4.4), "tflite-int8-t2": (2.4, 2.8),
    }  # fmt: skip
    narrowest = {"tflite-float32-t1": 9.0, "tflite-float32-t2": 9.0, "tflite-int8-t1": 0.2, "tflite-int8-t2": 1.4}
    plan, narrower = made(full, None, "p50_ms = 1.0", "[1, 2]", narrowest=narrowest)
    assert names(plan) == ["int8-t1-structured75"]
    assert narrower.asked[0] == "tflite-int8-t2"


def test_the_best_possible_is_the_best_of_all_places() -> None:
    narrowest = {
        "openvino-int8-t1": 1.5, "tflite-int8-t1": 1.4, "openvino-float32-t1": 1.3, "tflite-float32-t1": 6.0,
    }  # fmt: skip
    plan, narrower = made(TWO_RUNTIMES, None, narrowest=narrowest)
    assert plan.planned == ()
    assert sorted(narrower.asked) == sorted(TWO_RUNTIMES)
    assert (plan.best.rung.name, plan.best.p50_ms) == ("openvino-float32-t1-structured75", 1.3)
    structured = [r for r in plan.rungs if r.rung.pruning is PruningKind.STRUCTURED]
    assert {r.rung.place: r.p50_ms for r in structured} == narrowest
    assert plan.not_asked == ()


def test_a_no_names_the_places_that_it_did_not_ask() -> None:
    full = {
        f"{r}-{p}-t{t}": (ms * t, ms * t)
        for r, ms in (("openvino", 4.0), ("tflite", 5.0))
        for p in ("float32", "int8")
        for t in (1, 2)
    }
    plan, narrower = made(full, None, threads="[1, 2]", narrowest=dict.fromkeys(full, 3.0))
    assert plan.planned == ()
    # Two places at full widths 1.25x apart, and half of eight more.
    assert len(narrower.asked) == 6
    assert set(plan.not_asked) == set(full) - set(narrower.asked)
    told = [reasons(plan)[f"{place}-structured".removeprefix("tflite-")] for place in plan.not_asked]
    assert all(reason.endswith("; narrower widths were not measured there") for reason in told)
    error = no_plan_error(plan)
    assert (
        f"; not asked for their narrowest widths, others promised more: {', '.join(plan.not_asked)}; " in error.message
    )
    assert error.facts["not_asked"] == list(plan.not_asked)


def test_a_place_that_is_left_out_of_a_plan_says_what_was_measured_there() -> None:
    plan, narrower = made(TWO_RUNTIMES, None, "p50_ms = 2.0")
    assert [r.rung.name for r in plan.planned] == ["openvino-int8-t1-structured50"]
    assert narrower.asked == ["openvino-int8-t1"]
    assert reasons(plan)["int8-t1-structured"] == (
        "5.50 ms at full widths, 1.38x of openvino-int8-t1; narrower widths were not measured there"
    )


def test_a_refusal_names_the_budget_that_was_given() -> None:
    """Full widths that nearly fit: nine tenths of the budget are aimed at, and nobody gave that."""
    full = {"tflite-float32-t1": (9.0, 9.9), "tflite-int8-t1": (0.97, 1.1)}
    plan, _ = made(full, None, narrowest={"tflite-float32-t1": 2.0, "tflite-int8-t1": 0.95})
    assert names(plan) == ["int8-t1", "int8-t1-structured75"]
    assert plan.planned[1].reason == (
        "p50 0.950 ms on the device by 5 processes, within the budget; "
        "90% of it was aimed at, and no widths are under that"
    )
    plan, _ = made(full, None, narrowest={"tflite-float32-t1": 2.0, "tflite-int8-t1": 1.2})
    assert names(plan) == ["int8-t1"]
    assert reasons(plan)["int8-t1-structured75"] == "p50 1.20 ms on the device, over the budget of 1.00 ms"


def test_a_place_that_cannot_be_compiled_is_refused_and_the_others_are_asked() -> None:
    narrowest = {
        "openvino-int8-t1": math.inf, "tflite-int8-t1": math.inf, "openvino-float32-t1": 0.5, "tflite-float32-t1": 0.6,
    }  # fmt: skip
    plan, _ = made(TWO_RUNTIMES, None, narrowest=narrowest)
    assert [r.rung.name for r in plan.planned] == ["openvino-float32-t1-structured75"]
    assert reasons(plan)["int8-t1-structured"] == "tflite-int8-t1 cannot be compiled"
    # The other one fits too, with less room: at float32 the fastest place counts, and what was seen here is told.
    assert reasons(plan)["float32-t1-structured"].startswith(
        "openvino-float32-t1 is faster at full widths; of narrower"
    )
    assert reasons(plan)["float32-t1-structured"].endswith("only the narrowest were measured there: 0.600 ms")


def test_float_widths_with_less_room_wait_for_their_price() -> None:
    """The fastest that fits is INT8 and is planned; float32 fits too, and may lose less once losses are measured."""
    narrowest = {
        "openvino-int8-t1": 1.5, "tflite-int8-t1": 0.3, "openvino-float32-t1": 0.5, "tflite-float32-t1": 0.6,
    }  # fmt: skip
    plan, narrower = made(TWO_RUNTIMES, {"float32": 0.0, "int8": 0.9, "cut": 0.2}, narrowest=narrowest)
    assert narrower.searched[-1] == "openvino-float32-t1"
    assert [r.rung.name for r in plan.planned] == ["openvino-float32-t1-structured75", "tflite-int8-t1-structured75"]


@pytest.mark.parametrize(("rounded_ms", "best_ms"), [(3.4, 3.4), (3.6, 3.5)])
def test_far_over_the_budget_only_the_fastest_is_measured_in_both_roundings(rounded_ms: float, best_ms: float) -> None:
    narrowest = {
        "openvino-int8-t1": 3.5, "tflite-int8-t1": 3.6, "openvino-float32-t1": 8.0, "tflite-float32-t1": 6.0,
    }  # fmt: skip
    rounded = {**narrowest, "openvino-int8-t1": rounded_ms}
    plan, narrower = made(TWO_RUNTIMES, None, narrowest=narrowest, rounded=rounded)
    assert plan.planned == ()
    assert narrower.roundings == ["openvino-int8-t1"]
    assert (plan.best.rung.place, plan.best.p50_ms) == ("openvino-int8-t1", best_ms)
    assert len([r for r in plan.rungs if r.rung.place == "openvino-int8-t1"]) == 2
    assert any("rounded up to multiples of 8 were measured at the fastest place only" in note for note in plan.notes)


HALVED = {"tflite-float32-t1": (0.9, 1.0), "tflite-float32w16-t1": (0.9, 1.0), "tflite-int8-t1": (0.5, 0.6)}
NO_INT8 = {"float32": 4000, "float32w16": 2100}


def sized(artifact_bytes: int, p50_ms: float = 1.0) -> str:
    return f"p50_ms = {p50_ms}\nartifact_mb = {artifact_bytes / 1e6:f}"


def test_half_of_the_bytes_meet_a_size_that_float32_misses() -> None:
    losses = {"float32": 0.0, "float32w16": 0.0001, "cut": 0.2}
    plan, narrower = made(HALVED, losses, sized(2500), sizes=NO_INT8)
    assert names(plan)[0] == "float32w16-t1"
    assert plan.planned[0].accuracy_cost == 0.0001
    assert "over the budget" in reasons(plan)["float32-t1"]
    assert narrower.searched == []
    # Before a model is trained the order is habit.
    assert names(made(HALVED, None, sized(2500), sizes=NO_INT8)[0])[0] == "float32w16-t1"


def test_int8_that_costs_accuracy_comes_after_half_of_the_bytes() -> None:
    losses = {"float32": 0.0, "float32w16": 0.0001, "int8": 0.3, "cut": 0.2}
    plan, narrower = made(HALVED, losses, sized(2500), sizes={**NO_INT8, "int8": 1100})
    assert names(plan) == ["float32w16-t1", "int8-t1"]
    assert narrower.searched == []
    # Where it is as good as INT8, as far as that can be told, habit has it first; the faster one stays behind it.
    plan, _ = made(HALVED, {**losses, "int8": 0.0}, sized(2500), sizes={**NO_INT8, "int8": 1100})
    assert names(plan) == ["float32w16-t1", "int8-t1"]


def test_where_float32_is_small_enough_half_of_the_bytes_are_not_looked_at() -> None:
    plan, _ = made({"tflite-float32-t1": (0.5, 0.6)}, None, sized(4000), sizes=NO_INT8)
    assert names(plan) == ["float32-t1"]
    assert reasons(plan)["float32w16-t1"] == (
        "weights of 16 bits save size alone, and tflite-float32-t1 has 0.00400 MB"
    )
    without, _ = made({"tflite-float32-t1": (0.5, 0.6)}, None, sizes=NO_INT8)
    assert [r.rung.name for r in without.rungs] == ["tflite-float32-t1"]


def test_too_large_and_too_slow_without_int8_widths_are_cut_with_half_of_the_bytes() -> None:
    slow = {"tflite-float32-t1": (1.8, 2.0), "tflite-float32w16-t1": (1.8, 2.0)}
    losses = {"float32": 0.0, "float32w16": 0.0001, "cut": 0.2}
    plan, narrower = made(slow, losses, sized(1500), sizes=NO_INT8)
    assert narrower.searched == ["tflite-float32w16-t1"]
    assert names(plan) == ["float32w16-t1-structured50"]
    assert (plan.planned[0].artifact_bytes, plan.planned[0].accuracy_cost) == (1050, 0.2001)
    assert "takes 1.80 ms with half the bytes, float32 1.80 ms" in reasons(plan)["float32-t1-structured"]


def test_trained_weights_that_do_not_bear_16_bits_are_cut_in_float32() -> None:
    slow = {"tflite-float32-t1": (1.8, 2.0), "tflite-float32w16-t1": (1.8, 2.0)}
    losses = {"float32": 0.0, "float32w16": math.inf, "cut": 0.2}
    plan, narrower = made(slow, losses, sized(2200), sizes=NO_INT8)
    assert narrower.searched == ["tflite-float32w16-t1", "tflite-float32-t1"]
    assert names(plan) == ["float32-t1-structured50"]
    assert plan.planned[0].accuracy_cost == 0.2
    assert "do not bear it" in reasons(plan)["float32w16-t1-structured50"]


def test_trained_weights_that_bear_neither_int8_nor_16_bits_are_cut_in_float32() -> None:
    slow = {"tflite-float32-t1": (1.8, 2.0), "tflite-float32w16-t1": (1.8, 2.0), "tflite-int8-t1": (0.5, 0.6)}
    losses = {"float32": 0.0, "float32w16": math.inf, "int8": 0.9, "cut": 0.2}
    plan, narrower = made(slow, losses, sized(2200), sizes={**NO_INT8, "int8": 1100})
    assert narrower.searched == ["tflite-float32-t1"]
    assert names(plan) == ["float32-t1-structured50", "int8-t1"]
    assert "do not bear it" in reasons(plan)["float32w16-t1-structured"]


def test_too_large_and_too_slow_where_int8_breaks_the_model() -> None:
    slow = {"tflite-float32-t1": (1.8, 2.0), "tflite-float32w16-t1": (1.8, 2.0), "tflite-int8-t1": (0.5, 0.6)}
    losses = {"float32": 0.0, "float32w16": 0.0001, "int8": 0.9, "cut": 0.2}
    plan, narrower = made(slow, losses, sized(1500), sizes={**NO_INT8, "int8": 1100})
    assert narrower.searched == ["tflite-float32w16-t1"]
    assert names(plan) == ["float32w16-t1-structured50", "int8-t1"]
