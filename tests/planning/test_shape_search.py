from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators_for_tests import conv_use

from edgeprune.graph.names import block_of
from edgeprune.planning import shape_search
from edgeprune.planning.allocation import Absent, Allocation, Infeasible, allocate
from edgeprune.planning.allocation_problem import Block, Choice, Configuration
from edgeprune.planning.cost import CostModel, Observation
from edgeprune.planning.operator_price import weight_count
from edgeprune.planning.shape_problem import LATENCY, WEIGHTS, ShapeProblem
from edgeprune.planning.shape_search import MOST_TRIPS, Found, Measured, ShapeSearch
from edgeprune.planning.tail import TailLimit
from edgeprune.records.memory import OpenCall
from edgeprune.records.operators import ChannelPart, OperatorShape, OperatorUse
from edgeprune.units import format_ms

WIDTHS = (8, 16, 24, 32)
FULL = 32


def _conv(layer: str, into: str | None, out: str | None) -> OperatorUse:
    return conv_use(layer, into, out, width=FULL, pixels=16)


def _entry_ms(shape: OperatorShape) -> float:
    """A staircase: blocks of 16 channels out, of 8 in."""
    return 0.002 * -(-shape.in_channels // 8) * -(-shape.out_channels // 16)


class Device:
    """A device that takes longer than the tables say, by a factor and a constant, and not quite evenly."""

    def __init__(self, problem: ShapeProblem, *, factor: float = 1.3, constant_ms: float = 0.02, seed: int = 0) -> None:
        self._problem = problem
        self._factor = factor
        self._constant_ms = constant_ms
        self._seed = seed
        self.trips = 0

    def latency_ms(self, widths: Mapping[str, int], removed: Collection[str] = ()) -> float:
        seed = [self._seed, *(widths[g] for g in sorted(widths)), *map(len, sorted(removed))]
        left = [use for use in self._problem.uses if block_of(use.layer, removed) is None]
        tables = sum(self._problem.operator_ms(use, widths) for use in left)
        return (self._constant_ms + self._factor * tables) * float(np.random.default_rng(seed).normal(1.0, 0.005))

    def measure(self, limit_ms: float) -> Callable[[Configuration], Measured]:
        def measured(shape: Configuration) -> Measured:
            self.trips += 1
            latency_ms = self.latency_ms(shape.widths, shape.removed_blocks)
            return Measured(latency_ms=latency_ms, over="over the budget" if latency_ms > limit_ms else "")

        return measured


def _problem(losses: Mapping[str, tuple[float, ...]]) -> ShapeProblem:
    names = tuple(losses)
    uses = [_conv("first", None, names[0])]
    uses += [_conv(f"to {b}", a, b) for a, b in pairwise(names)]
    uses.append(_conv("last", names[-1], None))
    choices = {
        name: tuple(Choice(width=w, loss=x) for w, x in zip(WIDTHS, found, strict=True))
        for name, found in losses.items()
    }
    return ShapeProblem(uses=tuple(uses), full=dict.fromkeys(names, FULL), choices=choices, entry_ms=_entry_ms)


def _search(problem: ShapeProblem, device: Device, limit_ms: float) -> Found:
    ends = [dict.fromkeys(problem.full, width) for width in (WIDTHS[0], FULL)]
    cost = CostModel().updated(
        *(Observation(problem.terms(Configuration(widths=w)), device.latency_ms(w)) for w in ends)
    )
    return ShapeSearch(problem, {LATENCY: limit_ms}, device.measure(limit_ms), cost).run()


def _loss(problem: ShapeProblem, widths: Mapping[str, int]) -> float:
    return sum(next(c.loss for c in problem.choices[g] if c.width == w) for g, w in widths.items())


def _least_loss(problem: ShapeProblem, device: Device, limit_ms: float) -> float | None:
    every = (dict(zip(problem.full, widths, strict=True)) for widths in product(WIDTHS, repeat=len(problem.full)))
    return min((_loss(problem, w) for w in every if device.latency_ms(w) <= limit_ms), default=None)


falling = st.lists(st.floats(0.01, 2.0), min_size=3, max_size=3).map(
    lambda steps: tuple(float(sum(steps[k:])) for k in range(4))
)


@settings(max_examples=25, deadline=None)
@given(st.lists(falling, min_size=2, max_size=4), st.floats(0.2, 1.05), st.integers(0, 5))
def test_what_is_found_fits_and_few_trips_find_it(losses: list[tuple[float, ...]], share: float, seed: int) -> None:
    problem = _problem({f"g{k}": found for k, found in enumerate(losses)})
    device = Device(problem, seed=seed)
    limit_ms = share * device.latency_ms(dict.fromkeys(problem.full, FULL))
    found = _search(problem, device, limit_ms)
    assert device.trips == len(found.trips) <= MOST_TRIPS
    least = _least_loss(problem, device, limit_ms)
    if found.best is None:
        # Widths that fit may exist, but only within the noise of the prediction.
        narrowest = device.latency_ms(dict.fromkeys(problem.full, WIDTHS[0]))
        assert least is None or limit_ms < 1.03 * narrowest or len(found.trips) == MOST_TRIPS
        return
    assert device.latency_ms(found.best.widths) <= limit_ms
    assert least is not None
    assert _loss(problem, found.best.widths) >= least - 1e-12
    # Nothing that loses less has a clear margin under the limit, unless the trips ran out.
    clear = _least_loss(problem, device, 0.96 * limit_ms)
    assert len(found.trips) == MOST_TRIPS or clear is None or _loss(problem, found.best.widths) <= clear + 1e-9
    # While trips are left, only a measurement ends it, or that there is nothing better.
    if len(found.trips) < MOST_TRIPS and "widths lose less" not in found.ended:
        assert found.ended == "the next better widths were measured to be over the budget"
        assert (found.trips[-1].fits, found.trips[-1].over) == (False, "over the budget")


def test_a_budget_that_the_full_widths_meet_takes_one_trip() -> None:
    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0), "b": (3.0, 2.0, 1.0, 0.0)})
    device = Device(problem)
    found = _search(problem, device, 2 * device.latency_ms({"a": FULL, "b": FULL}))
    assert found.best == problem.whole()
    assert len(found.trips) == 1


def test_an_impossible_budget_measures_the_least_and_says_so() -> None:
    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0), "b": (3.0, 2.0, 1.0, 0.0)})
    device = Device(problem)
    found = _search(problem, device, 0.5 * device.latency_ms({"a": 8, "b": 8}))
    assert found.best is None
    assert [t.fits for t in found.trips] == [False]
    assert found.ended == "even the fastest were measured to be over the budget"


def test_where_the_device_contradicts_the_tables_the_aim_gets_lower() -> None:
    """Some widths are slower than any table says; what fits is still found within the trips."""
    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0), "b": (3.0, 2.0, 1.0, 0.0), "c": (3.0, 2.0, 1.0, 0.0)})
    device = Device(problem, factor=1.0, constant_ms=0.0)
    limit_ms = 0.7 * device.latency_ms(dict.fromkeys("abc", FULL))
    plain = device.measure(limit_ms)

    def slower_near_the_limit(shape: Configuration) -> Measured:
        measured = plain(shape)
        if measured.latency_ms <= 0.93 * limit_ms:
            return measured
        return Measured(latency_ms=1.1 * measured.latency_ms, over="over the budget")

    found = ShapeSearch(problem, {LATENCY: limit_ms}, slower_near_the_limit, CostModel()).run()
    assert found.best is not None
    assert len(found.trips) <= MOST_TRIPS


def _with_a_tail(device: Device, limit_ms: float, p99_limit_ms: float, ratio: float) -> Callable[..., Measured]:
    """A device whose slowest runs take `ratio` times as long."""

    def measured(shape: Configuration) -> Measured:
        p50_ms = device.latency_ms(shape.widths, shape.removed_blocks)
        over = (
            "over the budget" if p50_ms > limit_ms else "over the p99 budget" if ratio * p50_ms > p99_limit_ms else ""
        )
        return Measured(latency_ms=p50_ms, p99_ms=ratio * p50_ms, over=over)

    return measured


@pytest.mark.parametrize("first", [1.0, 1.8, 4.0], ids=["a tail nobody saw", "as it is", "a disturbed first look"])
def test_widths_for_a_p99_are_those_for_the_p50_that_goes_with_it(first: float) -> None:
    problem = _problem(dict.fromkeys("abcd", (3.0, 2.0, 1.0, 0.0)))
    device = Device(problem)
    full_ms = device.latency_ms(dict.fromkeys("abcd", FULL))
    p99_limit_ms, ratio = 0.9 * full_ms, 1.8
    measure = _with_a_tail(device, full_ms, p99_limit_ms, ratio)
    ends = [Configuration(widths=dict.fromkeys("abcd", w)) for w in (WIDTHS[0], FULL)]
    cost = CostModel().updated(*(Observation(problem.terms(c), device.latency_ms(c.widths)) for c in ends))
    tail = TailLimit(limit_ms=p99_limit_ms, first=first)
    found = ShapeSearch(problem, {LATENCY: full_ms}, measure, cost, tail).run()
    assert found.best is not None
    assert ratio * device.latency_ms(found.best.widths) <= p99_limit_ms
    clear = _least_loss(problem, device, 0.96 * p99_limit_ms / ratio)
    assert clear is not None
    assert _loss(problem, found.best.widths) <= clear + 1e-9
    assert found.latency_ms == pytest.approx(p99_limit_ms / ratio)
    # Each trip says what p99 was predicted from what was seen before it.
    assert found.trips[0].predicted_p99_ms == pytest.approx(first * found.trips[0].predicted_ms)
    assert all(t.predicted_p99_ms == pytest.approx(t.measured_p99_ms, rel=0.1) for t in found.trips[1:])
    assert f"p99 {format_ms(found.trips[0].predicted_p99_ms)}, measured" in found.trips[0].summary


def test_a_tail_that_nobody_could_see_is_that_of_the_shapes_before() -> None:
    """The device is disturbed on every trip: what p50 is held to stays what the first looks said."""
    problem = _problem(dict.fromkeys("abcd", (3.0, 2.0, 1.0, 0.0)))
    device = Device(problem)
    full_ms = device.latency_ms(dict.fromkeys("abcd", FULL))
    tail = TailLimit(limit_ms=0.9 * full_ms, first=1.8)
    plain = device.measure(full_ms)
    found = ShapeSearch(problem, {LATENCY: full_ms}, plain, CostModel(), tail).run()
    assert found.best is not None
    assert device.latency_ms(found.best.widths) <= 0.9 * full_ms / 1.8
    assert found.tail == tail
    over = [t for t in found.trips if not t.fits]
    assert {t.over for t in over} == {"over the p99 budget by the tails of others"}
    assert ", disturbed, " in over[0].summary


def test_a_p99_that_has_room_changes_nothing() -> None:
    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0), "b": (3.0, 2.0, 1.0, 0.0)})
    device = Device(problem)
    limit_ms = 0.7 * device.latency_ms({"a": FULL, "b": FULL})
    measure = _with_a_tail(device, limit_ms, 2.0 * limit_ms, 1.5)
    tail = TailLimit(limit_ms=2.0 * limit_ms, first=1.5)
    found = ShapeSearch(problem, {LATENCY: limit_ms}, measure, CostModel(), tail).run()
    plain = ShapeSearch(problem, {LATENCY: limit_ms}, measure, CostModel()).run()
    assert [t.widths for t in found.trips] == [t.widths for t in plain.trips]
    assert found.ended == plain.ended
    assert plain.trips[0].predicted_p99_ms is None
    assert "p99" not in plain.trips[0].summary


def test_a_shape_that_takes_too_much_memory_alone_leaves_the_aim_for_latency_as_it_is() -> None:
    problem = _problem(dict.fromkeys("abcd", (3.0, 2.0, 1.0, 0.0)))
    device = Device(problem, factor=1.0, constant_ms=0.0)
    limit_ms = 0.7 * device.latency_ms(dict.fromkeys("abcd", FULL))

    def search(*, late: bool) -> Found:
        def measure(shape: Configuration) -> Measured:
            predicted_ms = sum(problem.operator_ms(use, shape.widths) for use in problem.uses)
            return Measured(latency_ms=predicted_ms, over="over something", late=late)

        return ShapeSearch(problem, {LATENCY: limit_ms}, measure, CostModel()).run()

    slow, large = search(late=True), search(late=False)
    assert slow.trips[0] == large.trips[0]
    assert [t.predicted_ms for t in slow.trips] != [t.predicted_ms for t in large.trips]
    losses = [sum(t.loss for t in found.trips) for found in (large, slow)]
    assert losses == sorted(losses)
    assert large.trips[0].summary.endswith("over something")
    assert large.ended == "its trips are used up, and none fitted"


def test_when_nothing_else_is_predicted_to_fit_the_next_better_is_measured_all_the_same() -> None:
    """All but what fits is slower than any table says, so that after two trips the rest is predicted to be over."""
    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0), "b": (3.0, 2.0, 1.0, 0.0)})
    least = {"a": 8, "b": 8}

    def measure(shape: Configuration) -> Measured:
        fits = dict(shape.widths) == least
        return Measured(latency_ms=0.01 if fits else 1.0, over="" if fits else "over the budget")

    narrow = Observation(problem.terms(Configuration(widths=least)), 0.01)
    found = ShapeSearch(problem, {LATENCY: 0.0101}, measure, CostModel().updated(narrow)).run()
    assert found.best == Configuration(widths=least)
    assert not found.trips[-1].fits
    assert found.trips[-1].predicted_ms > 1.1 * 0.0101
    assert found.ended == "the next better widths were measured to be over the budget"


def test_when_the_trips_are_used_up_what_they_left_open_is_told() -> None:
    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0), "b": (3.0, 2.0, 1.0, 0.0)})
    device = Device(problem)
    limit_ms = 0.7 * device.latency_ms({"a": FULL, "b": FULL})
    told = [
        ShapeSearch(problem, {LATENCY: limit_ms}, device.measure(limit_ms), CostModel(), most_trips=most).run()
        for most in range(1, MOST_TRIPS + 1)
    ]
    assert any(f.best and f.ended.startswith("its trips were used up before the next better") for f in told)
    assert told[-1].ended == "the next better widths were measured to be over the budget"
    full = ShapeSearch(problem, {LATENCY: 9.0}, device.measure(9.0), CostModel(), most_trips=1).run()
    assert full.ended == "no widths lose less"


def test_a_width_that_a_larger_one_equals_is_not_proposed() -> None:
    """Outputs come in blocks of 16: 8 channels are as slow as 16 where only the output counts."""
    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0)})
    problem = ShapeProblem(uses=problem.uses[:1], full=problem.full, choices=problem.choices, entry_ms=problem.entry_ms)
    device = Device(problem)
    found = _search(problem, device, 0.8 * device.latency_ms({"a": FULL}))
    assert found.best == Configuration(widths={"a": 16})


def test_the_limit_on_weights_holds_too() -> None:
    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0), "b": (3.0, 2.0, 1.0, 0.0)})
    device = Device(problem)
    limits = {LATENCY: 10.0, WEIGHTS: 15_000.0}
    found = ShapeSearch(problem, limits, device.measure(10.0), CostModel()).run()
    assert found.best is not None
    weights = sum(weight_count(use.at(found.best.widths)) for use in problem.uses)
    assert weights <= 15_000 < sum(weight_count(use.at({})) for use in problem.uses)


def _with_a_block(loss: float) -> ShapeProblem:
    """`first` to a, then a block with a group inside, then `last` from a."""
    uses = (
        _conv("first", None, "a"),
        _conv("block.1", "a", "block.1"),
        _conv("block.2", "block.1", "a"),
        _conv("last", "a", None),
    )
    choices = {g: tuple(Choice(width=w, loss=1.0 - w / FULL) for w in WIDTHS) for g in ("a", "block.1")}
    blocks = (Block(name="block", loss=loss),)
    return ShapeProblem(
        uses=uses, full=dict.fromkeys(choices, FULL), choices=choices, entry_ms=_entry_ms, blocks=blocks
    )


@pytest.mark.parametrize(("loss", "gone"), [(0.2, True), (3.0, False)])
def test_a_block_goes_when_that_loses_less_than_narrowing(loss: float, *, gone: bool) -> None:
    problem = _with_a_block(loss)
    device = Device(problem)
    limit_ms = 0.62 * device.latency_ms(problem.full)
    found = _search(problem, device, limit_ms)
    assert found.best is not None
    assert found.best.removed_blocks == ({"block"} if gone else frozenset())
    assert set(found.best.widths) == ({"a"} if gone else {"a", "block.1"})
    assert device.latency_ms(found.best.widths, found.best.removed_blocks) <= limit_ms
    assert [t.removed_blocks for t in found.trips if t.fits][-1] == (("block",) if gone else ())


@pytest.mark.parametrize("removed", [frozenset[str](), frozenset({"block"})])
@pytest.mark.parametrize("width", WIDTHS)
def test_calls_count_alike_for_the_solver_and_for_the_fit(width: int, removed: frozenset[str]) -> None:
    calls = (
        OpenCall(name="softmax", layer="block", fixed=10.0, by_group=(("a", 64.0), ("block.1", 8.0))),
        OpenCall(name="pad", layer="", fixed=7.0, by_group=(("a", 16.0), ("block.1", 4.0))),
        OpenCall(name="pad", layer="last", fixed=100.0),
    )
    problem = replace(_with_a_block(0.2), calls=calls)
    widths = {"a": width} | ({} if removed else {"block.1": FULL})
    shape = Configuration(widths=widths, removed_blocks=removed)
    elements = dict(problem.terms(shape).by_call)
    inside = 0 if removed else FULL
    assert elements["pad"] == 7 + 16 * width + 4 * inside
    assert elements.get("softmax") == (None if removed else 10 + 64 * width + 8 * FULL)
    shapes = [problem.whole(), shape, Configuration(widths=dict.fromkeys(problem.full, WIDTHS[0]))]
    cost = CostModel().updated(*(Observation(problem.terms(s), 1.0 + 0.1 * k) for k, s in enumerate(shapes)))
    terms = problem.terms(shape)
    unlike_the_last = problem.terms(shapes[-1]).distinct - terms.distinct
    expected_ms = cost.predict_ms(terms) + cost.code_ms * unlike_the_last
    assert problem.allocation(cost).used(shape, LATENCY) == pytest.approx(expected_ms)


def test_averages_that_the_tables_have_are_no_calls_as_well() -> None:
    problem = _with_a_block(0.2)
    calls = tuple(
        OpenCall(name=name, layer="", fixed=0.0, by_group=(("a", 64.0),)) for name in ("pad", "mean", "avg_pool2d")
    )
    shape = OperatorShape(kind="average", in_channels=FULL, out_channels=FULL, extent=(8, 8))
    parts = (ChannelPart(group="a", width=FULL),)
    average = OperatorUse(layer="first", shape=shape, in_parts=parts, out_parts=parts)
    some = replace(problem, calls=calls, uses=(*problem.uses, average))
    every = replace(problem, calls=calls, uses=(*problem.uses, average, average))
    # Which one of two is in the tables nobody can tell: its rate is drawn to nothing, so it may be there twice.
    assert [name for name, _ in some.by_call(some.whole())] == ["avg_pool2d", "mean", "pad"]
    assert [name for name, _ in every.by_call(every.whole())] == ["pad"]


def test_what_lies_in_a_removed_block_costs_nothing() -> None:
    problem = _with_a_block(0.2)
    without = Configuration(widths={"a": FULL}, removed_blocks=frozenset({"block"}))
    assert dict(problem.terms(without).by_kind) == {"conv3x3": pytest.approx(2 * 0.002 * 4 * 2)}
    allocation = problem.allocation(CostModel())
    assert allocation.used(without, LATENCY) == pytest.approx(0.5 * allocation.used(problem.whole(), LATENCY))
    assert allocation.used(without, WEIGHTS) == pytest.approx(0.5 * allocation.used(problem.whole(), WEIGHTS))


def test_where_the_solver_ends_first_nothing_is_told_as_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0)})
    unproven = Infeasible(proven=False, least={LATENCY: None}, seconds=30.0)
    monkeypatch.setattr(shape_search, "allocate", lambda *_, **__: unproven)
    monkeypatch.setattr(shape_search, "cheapest", lambda *_, **__: Absent(proven=False))
    found = _search(problem, Device(problem), 1.0)
    assert found.best is None
    assert found.ended == "no widths are predicted to fit (not proven: the solver ended before it found any)"


def test_widths_that_are_not_proven_to_be_the_best_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def hurried(*arguments: object, **options: object) -> Allocation | Infeasible:
        """What the solver gives where its time ends with something in hand."""
        found = allocate(*arguments, **options)  # type: ignore[arg-type]
        return replace(found, proven_optimal=False, gap=0.03) if isinstance(found, Allocation) else found

    problem = _problem({"a": (3.0, 2.0, 1.0, 0.0), "b": (3.0, 2.0, 1.0, 0.0)})
    device = Device(problem)
    limit_ms = 0.6 * device.latency_ms(problem.full)
    assert _search(problem, device, limit_ms).doubts == ()
    monkeypatch.setattr(shape_search, "allocate", hurried)
    found = _search(problem, device, limit_ms)
    assert found.doubts[0] == (
        "the widths of trip 1 are not proven to be the best: the solver's time ended at a gap of 3.00%"
    )
