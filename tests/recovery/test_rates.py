from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.recovery.rates import RateKind, RateSchedule


@given(total=st.integers(1, 400), kind=st.sampled_from(["cosine", "linear", "constant", "steps"]))
@settings(max_examples=50, deadline=None)
def test_schedule_rises_to_the_peak_and_never_again(total: int, kind: RateKind) -> None:
    schedule = RateSchedule(kind=kind)
    factors = [schedule.factor(step, total) for step in range(total)]
    peak = factors.index(max(factors))
    assert max(factors) == pytest.approx(1.0)
    assert all(0 < f <= 1 for f in factors)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert peak <= total / 20


def test_cosine_and_line_are_half_way_down_in_the_middle() -> None:
    # 20 steps: one of warm-up, then 20 equal parts towards 0.
    assert RateSchedule().factor(10, 20) == pytest.approx(0.5)
    assert RateSchedule(kind="linear").factor(10, 20) == pytest.approx(0.5)
    assert RateSchedule(kind="linear").factor(19, 20) == pytest.approx(0.05)


@given(
    done=st.integers(0, 300), left=st.integers(1, 300), kind=st.sampled_from(["cosine", "linear", "constant", "steps"])
)
@settings(max_examples=100, deadline=None)
def test_schedule_goes_on_from_any_step(done: int, left: int, kind: RateKind) -> None:
    whole, rest = RateSchedule(kind=kind), RateSchedule(kind=kind, start=done / (done + left))
    assert [rest.factor(step, left) for step in range(left)] == [
        whole.factor(step, done + left) for step in range(done, done + left)
    ]


def test_steps_fall_at_their_milestones() -> None:
    schedule = RateSchedule(kind="steps", milestones=(0.5, 0.8), decay=0.1)
    factors = [schedule.factor(step, 20) for step in range(20)]
    assert factors == pytest.approx([1.0] * 10 + [0.1] * 6 + [0.01] * 4)
