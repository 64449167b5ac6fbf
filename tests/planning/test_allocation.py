from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from math import isclose

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.planning.allocation import GAIN, Absent, Allocation, Infeasible, allocate, cheapest, next_better
from edgeprune.planning.allocation_problem import (
    AllocationProblem,
    Block,
    Choice,
    Configuration,
    Group,
    Step,
    Term,
    tabulate,
)
from edgeprune.planning.dominance import drop_dominated

RESOURCES = ("latency_ms", "size_bytes", "memory_bytes")
SCALES = {"latency_ms": 0.001, "size_bytes": 1e9, "memory_bytes": 1.0}
"""Of very different size, as they are."""


def group(name: str, losses: dict[int, float], block: str | None = None) -> Group:
    return Group(name=name, choices=tuple(Choice(width=w, loss=x) for w, x in losses.items()), block=block)


def every_configuration(problem: AllocationProblem) -> list[Configuration]:
    found = []
    names = [block.name for block in problem.blocks]
    for stays in product([True, False], repeat=len(names)):
        removed = frozenset(name for name, stay in zip(names, stays, strict=True) if not stay)
        kept = [g for g in problem.groups if g.block not in removed]
        for widths in product(*([choice.width for choice in g.choices] for g in kept)):
            chosen = dict(zip([g.name for g in kept], widths, strict=True))
            found.append(Configuration(widths=chosen, removed_blocks=removed))
    return found


def within(problem: AllocationProblem, configuration: Configuration, limits: dict[str, float]) -> bool:
    return all(problem.used(configuration, resource) <= limit for resource, limit in limits.items())


@st.composite
def tables(draw: st.DrawFn, shape: tuple[int, ...], resource: str) -> np.ndarray:
    """Whole multiples: ties, and sums that meet limits exactly; or anything as a measurement is, to a millionth.

    Of two costs a solver in floating point does not see one that is 1e-100 of the other.
    """
    count = int(np.prod(shape))
    whole = st.integers(0, 6).map(float)
    value = draw(st.sampled_from([whole, st.floats(0, 6).map(lambda x: round(x, 6))]))
    values = draw(st.lists(value, min_size=count, max_size=count))
    return np.array(values, dtype=np.float64).reshape(shape) * SCALES[resource]


@st.composite
def terms(draw: st.DrawFn, groups: list[Group], name: str, resources: tuple[str, ...] = RESOURCES) -> Term:
    axes = draw(st.lists(st.sampled_from(groups), min_size=0, max_size=2, unique_by=lambda g: g.name))
    inside = {g.block for g in axes} - {None}
    if len(inside) > 1:
        axes = axes[:1]
        inside = {g.block for g in axes} - {None}
    free = draw(st.sampled_from([None, *{g.block for g in groups}]))
    shape = tuple(len(g.choices) for g in axes)
    costs = {r: draw(tables(shape, r)) for r in resources if draw(st.booleans())}
    return Term(name=name, groups=tuple(g.name for g in axes), costs=costs, block=next(iter(inside), free))


@st.composite
def problems(draw: st.DrawFn) -> AllocationProblem:
    """Chains, diamonds and whatever else two-group terms over at most four groups make, with blocks and steps."""
    loss = draw(st.sampled_from([st.integers(0, 5).map(float), st.floats(0, 5)]))
    blocks = [Block(name=f"b{i}", loss=draw(loss)) for i in range(draw(st.integers(0, 2)))]
    groups = []
    for i in range(draw(st.integers(1, 4))):
        widths = draw(st.lists(st.integers(1, 16), min_size=1, max_size=3, unique=True))
        block = draw(st.sampled_from([None, *(b.name for b in blocks)]))
        groups.append(group(f"g{i}", {width: draw(loss) for width in sorted(widths)}, block))
    always = [draw(terms(groups, f"t{i}")) for i in range(draw(st.integers(1, 5)))]
    steps = [
        Step(name=f"s{i}", terms=tuple(draw(terms(groups, f"s{i}.{j}", ("memory_bytes",))) for j in range(2)))
        for i in range(draw(st.integers(0, 3)))
    ]
    return AllocationProblem(groups=tuple(groups), terms=tuple(always), steps=tuple(steps), blocks=tuple(blocks))


@st.composite
def limited(draw: st.DrawFn) -> tuple[AllocationProblem, dict[str, float]]:
    """Limits are often exactly what some configuration uses, or the next float below."""
    problem = draw(problems())
    limits = {}
    configurations = every_configuration(problem)
    for resource in problem.resources:
        if draw(st.booleans()):
            used = problem.used(draw(st.sampled_from(configurations)), resource)
            limits[resource] = draw(st.sampled_from([used, used * 1.1, float(np.nextafter(used, -np.inf))]))
    return problem, limits


@settings(max_examples=120, deadline=None)
@given(limited())
def test_no_configuration_within_the_limits_loses_less(case: tuple[AllocationProblem, dict[str, float]]) -> None:
    problem, limits = case
    fitting = [c for c in every_configuration(problem) if within(problem, c, limits)]
    found = allocate(problem, limits)
    if not fitting:
        assert isinstance(found, Infeasible)
        # So many are over by one unit in the last place that they cannot all be cut out: then that is said.
        nearly = {resource: limit + 1e-8 * abs(limit) + 1e-12 for resource, limit in limits.items()}
        assert found.proven or any(within(problem, c, nearly) for c in every_configuration(problem))
        return
    assert isinstance(found, Allocation)
    best = min(problem.loss(c) for c in fitting)
    assert within(problem, found.configuration, limits)
    assert isclose(found.loss, best, rel_tol=1e-6, abs_tol=1e-8)
    assert found.bound <= best * (1 + 1e-8) + 1e-8
    assert found.loss == problem.loss(found.configuration)
    assert found.used == {resource: problem.used(found.configuration, resource) for resource in problem.resources}


def test_a_limit_may_be_what_is_used_to_the_last_digit() -> None:
    """Summed in two parts, these three are over their own sum by one unit in the last place."""
    first, second, third = ({"memory_bytes": np.array(cost)} for cost in (2.983664, 6.0, 1.035156))
    problem = AllocationProblem(
        groups=(Group(name="g", choices=(Choice(width=1, loss=0.0),)),),
        terms=(Term(name="t0", groups=(), costs=first), Term(name="t1", groups=(), costs=second)),
        steps=(Step(name="s", terms=(Term(name="s.0", groups=(), costs=third),)),),
    )
    assert isinstance(allocate(problem, {"memory_bytes": 10.01882}), Allocation)


@settings(max_examples=40, deadline=None)
@given(limited())
def test_what_is_infeasible_comes_with_the_least_of_each_resource(
    case: tuple[AllocationProblem, dict[str, float]],
) -> None:
    problem, limits = case
    found = allocate(problem, limits)
    if isinstance(found, Allocation):
        return
    everything = every_configuration(problem)
    for resource in limits:
        least = found.least[resource]
        assert least is not None
        assert isclose(least.used[resource], min(problem.used(c, resource) for c in everything), rel_tol=1e-6)
        others = {other: limit for other, limit in limits.items() if other != resource}
        fitting = [problem.used(c, resource) for c in everything if within(problem, c, others)]
        at_least = cheapest(problem, resource, others)
        if isinstance(at_least, Allocation):
            assert isclose(at_least.used[resource], min(fitting), rel_tol=1e-6)
            assert min(fitting) > limits[resource]
        else:
            assert not fitting


@settings(max_examples=40, deadline=None)
@given(limited())
def test_the_next_better_one_is_the_cheapest_of_those_that_lose_less(
    case: tuple[AllocationProblem, dict[str, float]],
) -> None:
    problem, limits = case
    found = allocate(problem, limits)
    if isinstance(found, Infeasible) or not limits:
        return
    resource = next(iter(limits))
    others = {other: limit for other, limit in limits.items() if other != resource}
    target = min(found.loss - GAIN * abs(found.loss), float(np.nextafter(found.loss, -np.inf)))
    better = [
        problem.used(c, resource)
        for c in every_configuration(problem)
        if within(problem, c, others) and problem.loss(c) <= target
    ]
    following = next_better(problem, found, resource, limits)
    if isinstance(following, Absent):
        assert following.proven
        assert not better
        return
    assert following.loss <= target
    assert within(problem, following.configuration, others)
    assert isclose(following.used[resource], min(better), rel_tol=1e-6, abs_tol=1e-12)
    assert following.used[resource] > limits[resource]


@settings(max_examples=40, deadline=None)
@given(limited())
def test_dominated_widths_are_never_chosen_and_never_needed(
    case: tuple[AllocationProblem, dict[str, float]],
) -> None:
    problem, limits = case
    reduced, dropped = drop_dominated(problem, limits)
    gone = {(width.group, width.width) for width in dropped}
    fitting = [problem.loss(c) for c in every_configuration(problem) if within(problem, c, limits)]
    remaining = [problem.loss(c) for c in every_configuration(reduced) if within(reduced, c, limits)]
    assert bool(fitting) == bool(remaining)
    if fitting:
        assert min(remaining) == min(fitting)
        found = allocate(problem, limits)
        assert isinstance(found, Allocation)
        assert not gone & set(found.widths.items())


@settings(max_examples=40, deadline=None)
@given(limited())
def test_excluding_what_was_found_gives_them_all_in_order_of_loss(
    case: tuple[AllocationProblem, dict[str, float]],
) -> None:
    problem, limits = case
    reduced, _ = drop_dominated(problem, limits)
    expected = sorted(problem.loss(c) for c in every_configuration(reduced) if within(reduced, c, limits))[:4]
    excluded: list[Configuration] = []
    for loss in expected:
        found = allocate(problem, limits, excluding=excluded)
        assert isinstance(found, Allocation)
        assert found.configuration not in excluded
        assert isclose(found.loss, loss, rel_tol=1e-6, abs_tol=1e-8)
        excluded.append(found.configuration)


def test_a_chain_worked_by_hand() -> None:
    a = group("a", {8: 3.0, 16: 0.0})
    b = group("b", {8: 2.0, 16: 0.0})
    operators = [
        tabulate("first", [a], lambda w: {"latency_ms": w / 8}),
        tabulate("second", [a, b], lambda i, o: {"latency_ms": i * o / 64}),
    ]
    problem = AllocationProblem(groups=(a, b), terms=tuple(operators))
    # 16, 16 takes 2 + 4; 16, 8 takes 2 + 2; 8, 16 takes 1 + 2; 8, 8 takes 1 + 1.
    found = allocate(problem, {"latency_ms": 5.0})
    assert isinstance(found, Allocation)
    assert (dict(found.widths), found.loss, found.used) == ({"a": 16, "b": 8}, 2.0, {"latency_ms": 4.0})
    assert found.proven_optimal
    following = next_better(problem, found, "latency_ms", {"latency_ms": 5.0})
    assert isinstance(following, Allocation)
    assert (dict(following.widths), following.used) == ({"a": 16, "b": 16}, {"latency_ms": 6.0})
    assert next_better(problem, following, "latency_ms", {}) == Absent(proven=True)
    refused = allocate(problem, {"latency_ms": 1.9})
    assert isinstance(refused, Infeasible)
    assert refused.least["latency_ms"] is not None
    assert refused.least["latency_ms"].used == {"latency_ms": 2.0}


def test_of_a_staircase_only_the_knees_are_chosen() -> None:
    """ONNX Runtime on AVX-512, 3x3: 31 channels take longer than 32."""
    g = group("g", {16: 5.0, 31: 1.1, 32: 1.0, 48: 0.5})
    latency_ms = {16: 0.2, 31: 0.629, 32: 0.359, 48: 0.7}
    problem = AllocationProblem(groups=(g,), terms=(tabulate("conv", [g], lambda w: {"latency_ms": latency_ms[w]}),))
    found = allocate(problem, {"latency_ms": 0.65})
    assert isinstance(found, Allocation)
    assert found.widths == {"g": 32}
    assert [(width.width, width.beaten_by) for width in found.dominated] == [(31, 32)]


def test_of_two_widths_that_are_equal_in_everything_the_wider_stays() -> None:
    g = group("g", {8: 0.0, 16: 0.0})
    problem = AllocationProblem(groups=(g,), terms=(tabulate("conv", [g], lambda w: {"latency_ms": 1.0}),))
    reduced, dropped = drop_dominated(problem, ["latency_ms"])
    assert [choice.width for choice in reduced.groups[0].choices] == [16]
    assert [(width.width, width.beaten_by) for width in dropped] == [(8, 16)]


def test_removing_a_block_takes_its_operators_and_widths_away() -> None:
    outer = group("outer", {8: 4.0, 16: 0.0})
    inner = group("inner", {8: 1.0, 16: 0.0}, "block")
    body = tabulate("body", [outer, inner], lambda i, o: {"latency_ms": i * o / 64}, block="block")
    stem = tabulate("stem", [outer], lambda w: {"latency_ms": w / 8})
    problem = AllocationProblem(groups=(outer, inner), terms=(stem, body), blocks=(Block(name="block", loss=2.5),))
    found = allocate(problem, {"latency_ms": 3.0})
    assert isinstance(found, Allocation)
    assert (found.widths, found.removed_blocks) == ({"outer": 16}, {"block"})
    assert (found.loss, found.used) == (2.5, {"latency_ms": 2.0})
    excluded = allocate(problem, {"latency_ms": 3.0}, excluding=[found.configuration])
    assert isinstance(excluded, Allocation)
    assert (excluded.widths, excluded.loss) == ({"outer": 8, "inner": 16}, 4.0)


def test_memory_is_the_weights_and_the_largest_step() -> None:
    a = group("a", {1: 1.0, 4: 0.0})
    b = group("b", {1: 1.5, 4: 0.0})

    def tensor(g: Group, each: float) -> Term:
        return tabulate(g.name, [g], lambda w: {"memory_bytes": w * each})

    weights = tabulate("weights", [a, b], lambda i, o: {"memory_bytes": float(i * o)})
    steps = (Step(name="early", terms=(tensor(a, 10),)), Step(name="late", terms=(tensor(a, 1), tensor(b, 8))))
    problem = AllocationProblem(groups=(a, b), terms=(weights,), steps=steps)
    everything = Configuration(widths={"a": 4, "b": 4})
    assert problem.used(everything, "memory_bytes") == 16 + max(40, 4 + 32)
    found = allocate(problem, {"memory_bytes": 45.0})
    assert isinstance(found, Allocation)
    # b = 1 leaves 4 + 40, a = 1 leaves 4 + 33.
    assert (found.widths, found.used) == ({"a": 1, "b": 4}, {"memory_bytes": 37.0})
    least = cheapest(problem, "memory_bytes", {})
    assert isinstance(least, Allocation)
    assert least.used == {"memory_bytes": 11.0}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e9])
def test_what_is_over_by_less_than_the_solvers_tolerance_is_not_returned(scale: float) -> None:
    g = group("g", {8: 2.0, 16: 1.0})
    over = float(np.nextafter(scale, np.inf))
    costs = {8: scale / 2, 16: over}
    problem = AllocationProblem(groups=(g,), terms=(tabulate("conv", [g], lambda w: {"latency_ms": costs[w]}),))
    found = allocate(problem, {"latency_ms": scale})
    assert isinstance(found, Allocation)
    assert found.widths == {"g": 8}
    exactly = allocate(problem, {"latency_ms": over})
    assert isinstance(exactly, Allocation)
    assert exactly.widths == {"g": 16}


def test_more_of_those_than_are_cut_out_one_by_one_still_end_with_an_honest_bound() -> None:
    """Any 5 of 10 groups wide are over by one part in 1e12; 252 ways, so the limit is tightened in the end."""
    groups = tuple(group(f"g{i}", {1: 1.0, 2: 0.0}) for i in range(10))
    terms = tuple(tabulate(g.name, [g], lambda w: {"latency_ms": (w - 1) * (0.2 + 1e-12)}) for g in groups)
    problem = AllocationProblem(groups=groups, terms=terms)
    found = allocate(problem, {"latency_ms": 1.0})
    assert isinstance(found, Allocation)
    assert found.loss == 6.0
    assert found.used["latency_ms"] <= 1.0
    assert 5.0 - 1e-6 <= found.bound <= 6.0
    assert found.proven_optimal == (found.gap <= 1e-6)


def test_a_second_part_is_solved_when_the_first_leaves_out_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same optimum from parts of the variables as from all."""
    from edgeprune.planning import allocation_solver

    random = np.random.default_rng(3)
    groups = tuple(group(f"g{i}", {w: float(random.uniform(0, 8 - w)) for w in range(1, 8)}) for i in range(5))
    terms = tuple(
        tabulate(f"{a.name}-{b.name}", [a, b], lambda i, o: {"latency_ms": i * o * float(random.uniform(0.8, 1.2))})
        for a, b in pairwise(groups)
    )
    problem = AllocationProblem(groups=groups, terms=terms)
    whole = [allocate(problem, {"latency_ms": limit}) for limit in (10.0, 30.0, 60.0)]
    monkeypatch.setattr(allocation_solver, "_FIRST_CELLS", 12)
    parts = [allocate(problem, {"latency_ms": limit}) for limit in (10.0, 30.0, 60.0)]
    for one, other in zip(whole, parts, strict=True):
        assert isinstance(one, Allocation)
        assert isinstance(other, Allocation)
        assert isclose(one.loss, other.loss, rel_tol=1e-6)
        assert other.proven_optimal


def test_an_operator_from_a_group_to_itself_is_a_table_over_one_axis() -> None:
    g = group("g", {2: 1.0, 4: 0.0})
    term = tabulate("conv", [g, g], lambda i, o: {"latency_ms": i * o})
    assert term.groups == ("g",)
    assert term.costs["latency_ms"].tolist() == [4, 16]


def test_wrong_problems_are_refused_by_name() -> None:
    g, inside = group("g", {1: 0.0}), group("inside", {1: 0.0}, "b")
    block = Block(name="b", loss=1.0)
    one = np.ones(1)
    wrong = [
        ({"groups": (g, g), "terms": ()}, "groups: g is there twice"),
        ({"groups": (group("e", {}),), "terms": ()}, "group e: no choices"),
        ({"groups": (inside,), "terms": ()}, "group inside: unknown block b"),
        ({"groups": (g,), "terms": (Term(name="t", groups=("x",), costs={}),)}, "term t: unknown group x"),
        (
            {"groups": (g,), "terms": (Term(name="t", groups=("g",), costs={"ms": np.ones(2)}),)},
            r"term t: ms is a table of \(2,\), but the choices are \(1,\)",
        ),
        (
            {"groups": (g,), "terms": (Term(name="t", groups=("g",), costs={"ms": one * np.nan}),)},
            "term t: ms: not all finite",
        ),
        (
            {"groups": (inside,), "terms": (Term(name="t", groups=("inside",), costs={}),), "blocks": (block,)},
            "term t: group inside goes with block b, but the term does not",
        ),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            AllocationProblem(**arguments)
    problem = AllocationProblem(groups=(g,), terms=(Term(name="t", groups=("g",), costs={"ms": one}),))
    with pytest.raises(ValueError, match="resource latency: nothing costs it; known are ms"):
        allocate(problem, {"latency": 1.0})
    with pytest.raises(ValueError, match=r"excluded configuration: groups missing.*: g"):
        allocate(problem, {"ms": 1.0}, excluding=[Configuration(widths={})])


def test_what_is_not_proven_is_told() -> None:
    g = group("g", {8: 1.0, 16: 0.0})
    problem = AllocationProblem(groups=(g,), terms=(tabulate("conv", [g], lambda w: {"latency_ms": w / 8}),))
    found, none = (allocate(problem, {"latency_ms": limit}) for limit in (2.0, 0.5))
    assert isinstance(found, Allocation)
    assert isinstance(none, Infeasible)
    assert (found.doubt, none.doubt, Absent(proven=True).doubt) == ("", "", "")
    assert replace(found, proven_optimal=False, gap=0.0312).doubt.endswith("a gap of 3.12%")
    assert replace(none, proven=False).doubt.startswith("not proven")
