from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.planning.allocation import Allocation, Infeasible, allocate
from edgeprune.planning.allocation_problem import AllocationProblem, Block, Choice, Configuration, Group, tabulate
from edgeprune.planning.memory import ACTIVATIONS, MEMORY, MemoryBook, MemoryModel, Observed, least_beyond, moments
from edgeprune.records.memory import MemoryNeeds, OpenSchedule, OpenTensor
from edgeprune.units import format_mb

MB = 1_000_000
FULL = {"a": 32, "b": 64}
ENDS = {"a": 8, "b": 8}
WIDTHS = (8, 16, 32, 64)


def tensor(fixed: float, by_group: Mapping[str, float], first: int, last: int) -> OpenTensor:
    return OpenTensor(name="", fixed=fixed, by_group=tuple(by_group.items()), element_bytes=4, first=first, last=last)


SCHEDULE = OpenSchedule(
    steps=("first", "second", "third"),
    tensors=(
        tensor(50_000, {}, 0, 2),
        tensor(0, {"a": 20_000}, 0, 1),
        tensor(0, {"b": 15_000}, 1, 2),
        tensor(0, {"a": 1000}, 2, 2),
    ),
)


def count(widths: Mapping[str, int]) -> int:
    return 1000 * widths["a"] + 300 * widths["a"] * widths["b"]


def needs(widths: Mapping[str, int], *, noise: float = 0.0) -> MemoryNeeds:
    """A device that packs weights twice, reuses buffers with a loss of 30 %, and pays 9 MB while it loads."""
    weights, activations = 4 * count(widths) + 500, round(SCHEDULE.peak_bytes(widths))
    return MemoryNeeds(
        base_bytes=40 * MB,
        load_bytes=round(9 * MB + 2 * weights),
        run_bytes=round(4 * MB + 2 * weights + 1.3 * activations + noise * MB),
        weight_bytes=weights,
        activation_bytes=activations,
    )


def book(of: Literal["process", "model"] = "process", *, noise: float = 0.0) -> MemoryBook:
    made = MemoryBook(schedule=SCHEDULE, of=of)
    for widths in (FULL, ENDS, {"a": 32, "b": 8}, {"a": 8, "b": 64}):
        made.observe(widths, count(widths), needs(widths, noise=noise))
    return made


def problem(*, block: str | None = None) -> AllocationProblem:
    groups = (
        Group(name="a", choices=tuple(Choice(width=w, loss=32.0 - w) for w in WIDTHS[:3])),
        Group(name="b", choices=tuple(Choice(width=w, loss=2 * (64.0 - w)) for w in WIDTHS), block=block),
    )
    term = tabulate("weights", groups, lambda a, b: {"weights": count({"a": a, "b": b})}, block=block)
    blocks = (Block(name="inside", loss=200.0),) if block else ()
    return AllocationProblem(groups=groups, terms=(term,), blocks=blocks)


def test_the_factors_of_a_device_are_found() -> None:
    model = book().model
    assert model.base_bytes == 40 * MB
    assert model.weight_factor == pytest.approx(2.0, rel=0.02)
    assert model.activation_factor == pytest.approx(1.3, rel=0.02)
    assert model.loading_bytes == pytest.approx(9 * MB, rel=0.02)
    assert model.running_bytes == pytest.approx(4 * MB, rel=0.05)
    assert model.weight_line == (pytest.approx(500, abs=1), pytest.approx(4.0))
    assert model.activation_ratio == pytest.approx(1.0)


def test_a_shape_that_was_not_measured_is_predicted() -> None:
    widths = {"a": 16, "b": 32}
    for of in ("process", "model"):
        forecast = book(of).forecast(widths, count(widths), needs(widths))
        assert abs(forecast.error) < 0.01
        assert forecast.activation_bytes == forecast.measured_activation_bytes
    assert forecast.measured_bytes == needs(widths).model_bytes
    assert forecast.summary.startswith("memory predicted ")


def test_a_single_shape_draws_the_factors_to_what_is_plausible() -> None:
    model = MemoryModel((Observed(weights=0, activation_bytes=0.0, needs=needs(FULL)),))
    assert 0.0 <= model.weight_factor < 4.0
    assert 0.5 < model.activation_factor < 2.5


def test_what_a_shape_was_over_its_fit_is_a_margin() -> None:
    made = book()
    assert made.model.margin_bytes < 0.02 * MB
    # One process took 3 MB more than the others' line says.
    made.observe(FULL, count(FULL), needs(FULL, noise=3.0))
    assert made.model.margin_bytes > 0.5 * MB
    limited = made.added_to(problem(), "weights")
    predicted = made.forecast(FULL, count(FULL), needs(FULL)).predicted_bytes
    used = limited.used(Configuration(widths=FULL), MEMORY)
    assert used == pytest.approx(predicted + made.model.margin_bytes, abs=2)


def test_only_steps_that_can_be_the_most_expensive_are_kept() -> None:
    found = moments(SCHEDULE, ("a", "b"))
    # The first step needs nothing that the second does not need as well.
    assert [m.step for m in found] == ["1 second"]
    assert found[0].fixed == 200_000
    assert found[0].by_group == {"a": 80_000, "b": 60_000}
    apart = OpenSchedule(
        steps=("one", "two"), tensors=(tensor(0, {"a": 5}, 0, 0), tensor(1, {"b": 5}, 1, 1), tensor(0, {}, 0, 1))
    )
    assert [m.step for m in moments(apart, ("a", "b"))] == ["0 one", "1 two"]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["process", "model"]), st.floats(0.0, 2.0), st.sampled_from([None, "inside"]))
def test_the_resource_is_the_prediction_at_every_configuration_and_grows_with_every_width(
    of: Literal["process", "model"], noise: float, block: str | None
) -> None:
    made = book(of, noise=noise)
    model = made.model
    limited = made.added_to(problem(block=block), "weights")
    used = {}
    for a, b in product(WIDTHS[:3], WIDTHS):
        widths = {"a": a, "b": b}
        expected = model.model_bytes(count(widths), SCHEDULE.peak_bytes(widths)) + model.margin_bytes
        expected += model.base_bytes if of == "process" else 0.0
        used[a, b] = limited.used(Configuration(widths=widths), MEMORY)
        assert used[a, b] == pytest.approx(expected)
        activations = limited.used(Configuration(widths=widths), ACTIVATIONS)
        assert activations == pytest.approx(SCHEDULE.peak_bytes(widths))
        largest = max(t.elements(widths) * t.element_bytes for t in SCHEDULE.tensors)
        assert used[a, b] >= largest + 4 * count(widths)
    for (a, b), more in product(used, used):
        if a <= more[0] and b <= more[1]:
            assert used[a, b] <= used[more] + 1
    if block:
        without = limited.used(Configuration(widths={"a": 32}, removed_blocks=frozenset({"inside"})), MEMORY)
        assert without <= used[32, 8]


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_the_allocation_within_a_memory_limit_is_the_best_of_all(share: float) -> None:
    limited = book().added_to(problem(), "weights")
    all_of_them = [Configuration(widths={"a": a, "b": b}) for a, b in product(WIDTHS[:3], WIDTHS)]
    peaks = np.array([limited.used(c, MEMORY) for c in all_of_them])
    limit = float(peaks.min() + share * np.ptp(peaks))
    found = allocate(limited, {MEMORY: limit})
    assert isinstance(found, Allocation)
    best = min(limited.loss(c) for c, peak in zip(all_of_them, peaks, strict=True) if peak <= limit)
    assert found.loss == pytest.approx(best)
    assert found.used[MEMORY] <= limit


def test_a_limit_that_nothing_is_within_is_told_with_the_least() -> None:
    limited = book().added_to(problem(), "weights")
    found = allocate(limited, {MEMORY: 45.0 * MB})
    assert isinstance(found, Infeasible)
    assert found.proven
    least = found.least[MEMORY]
    assert least is not None
    assert least.widths == ENDS
    told = least_beyond(found, {MEMORY: 45.0 * MB})
    assert told == f"a peak memory of at least {format_mb(least.used[MEMORY])}, over 45.0 MB"
    assert not least_beyond(found, {MEMORY: 100.0 * MB})
    assert least.used[MEMORY] == pytest.approx(needs(ENDS).base_bytes + needs(ENDS).model_bytes, rel=0.01)
