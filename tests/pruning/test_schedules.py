from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.pruning.schedules import SCHEDULES, cubic_ratios, linear_ratios

Schedule = Callable[[float, int], tuple[float, ...]]
both = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@both
@given(final=st.floats(0, 1), rounds=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_ratios_rise_to_exactly_the_final_one(schedule: Schedule, final: float, rounds: int) -> None:
    ratios = schedule(final, rounds)
    assert len(ratios) == rounds
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


@both
@pytest.mark.parametrize(("final", "rounds"), [(1.5, 2), (-0.1, 2), (0.5, 0)])
def test_out_of_range_is_told(schedule: Schedule, final: float, rounds: int) -> None:
    with pytest.raises(InputError, match="expected"):
        schedule(final, rounds)
