from __future__ import annotations

from itertools import product
from math import isclose

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.planning.allocation import GAIN, Allocation, Infeasible, allocate, cheapest, next_better
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
    """Whole multiples: ties, and sums that meet limits exactly; or anything at all, as a measurement is."""
    count = int(np.prod(shape))
    whole = st.integers(0, 6).map(float)
    value = draw(st.sampled_from([whole, st.floats(0, 6)]))
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


@settings(max_examples=150, deadline=None)
@given(limited())
def test_no_configuration_within_the_limits_loses_less(case: tuple[AllocationProblem, dict[str, float]]) -> None:
    problem, limits = case
    fitting = [c for c in every_configuration(problem) if within(problem, c, limits)]
    found = allocate(problem, limits)
    if not fitting:
        assert isinstance(found, Infeasible)
        assert found.proven
        return
    assert isinstance(found, Allocation)
    best = min(problem.loss(c) for c in fitting)
    assert within(problem, found.configuration, limits)
    assert isclose(found.loss, best, rel_tol=1e-6, abs_tol=1e-8)
    assert found.bound <= best * (1 + 1e-8) + 1e-8
    assert found.loss == problem.loss(found.configuration)
    assert found.used == {resource: problem.used(found.configuration, resource) for resource in problem.resources}


@settings(max_examples=60, deadline=None)
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
        at_least = found.least_within_others[resource]
        if at_least is None:
            assert not fitting
        else:
            assert isclose(at_least.used[resource], min(fitting), rel_tol=1e-6)
            assert min(fitting) > limits[resource]


@settings(max_examples=60, deadline=None)
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
    target = found.loss - GAIN * abs(found.loss)
    better = [
        problem.used(c, resource)
        for c in every_configuration(problem)
        if within(problem, c, others) and problem.loss(c) <= target and c != found.configuration
    ]
    following = next_better(problem, found, resource, limits)
    if following is None:
        assert not better
        return
    assert following.loss <= target
    assert within(problem, following.configuration, others)
    assert isclose(following.used[resource], min(better), rel_tol=1e-6, abs_tol=1e-12)
    assert following.used[resource] > limits[resource]


@settings(max_examples=60, deadline=None)
@given(limited())
def test_dominated_widths_are_never_chosen_and_never_needed(
    case: tuple[AllocationProblem, dict[str, float]],
) -> None:
    problem, limits = case
    reduced, dropped = drop_dominated(problem, limits)
    gone = {(width.group, width.width) for width in dropped}
    assert all((width.group, width.beaten_by) not in {(w.group, w.width) for w in dropped} or True for width in dropped)
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
