from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.pruning.schedules import (
    SCHEDULES,
    cubic_ratios,
    geometric_ratios,
    linear_ratios,
    one_shot_ratios,
    stepped_ratios,
)

Schedule = Callable[[float, int], tuple[float, ...]]
every = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@every
@given(final=st.floats(0, 1), rounds=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_ratios_rise_to_exactly_the_final_one(schedule: Schedule, final: float, rounds: int) -> None:
    ratios = schedule(final, rounds)
    assert len(ratios) == (1 if schedule is one_shot_ratios else rounds)
    assert ratios[-1] == final
    assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(ratios))
    assert all(0 <= r <= 1 for r in ratios)


@given(final=st.floats(0.01, 1), rounds=st.integers(2, 20))
@settings(max_examples=40, deadline=None)
def test_cubic_is_ahead_of_linear_until_the_end(final: float, rounds: int) -> None:
    pairs = list(zip(cubic_ratios(final, rounds), linear_ratios(final, rounds), strict=True))
    assert all(cubic > linear for cubic, linear in pairs[:-1])


def test_by_hand() -> None:
    assert linear_ratios(0.75, 3) == (0.25, 0.5, 0.75)
    assert cubic_ratios(0.8, 2) == pytest.approx((0.8 * 0.875, 0.8))
    # A fifth of what remains, three times.
    assert geometric_ratios(1 - 0.8**3, 3) == pytest.approx((0.2, 1 - 0.64, 1 - 0.512))
    assert one_shot_ratios(0.8, 5) == (0.8,)


def test_explicit_steps_are_rounds_with_their_epochs() -> None:
    assert stepped_ratios(0.8, ((0, 0.5), (2, 1.0)), 6) == ((0.4, 2), (0.8, 4))
    # What comes before the first step is training without a cut.
    assert stepped_ratios(0.5, ((3, 1.0),), 4) == ((0.0, 3), (0.5, 1))


@pytest.mark.parametrize(
    "steps", [((0, 0.5),), ((2, 0.5), (1, 1.0)), ((0, 0.5), (1, 0.4), (2, 1.0)), ((7, 1.0),), ((0, 0.0), (1, 1.0)), ()]
)
def test_impossible_steps_are_told(steps: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(InputError, match="expected"):
        stepped_ratios(0.8, steps, 6)


@every
@pytest.mark.parametrize(("final", "rounds"), [(1.5, 2), (-0.1, 2), (0.5, 0)])
def test_out_of_range_is_told(schedule: Schedule, final: float, rounds: int) -> None:
    with pytest.raises(InputError, match="expected"):
        schedule(final, rounds)
