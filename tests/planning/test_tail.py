"""A p99 limit as one on p50, by the tails that were seen."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.planning.feasibility import HEADROOM, ShapeFigures
from edgeprune.planning.tail import TailLimit, held_p50_ms, tail_limit
from edgeprune.records.rung import Limits, Precision, Rung


def shape(p50_ms: float, p99_ms: float) -> ShapeFigures:
    rung = Rung(runtime="tflite", precision=Precision.INT8)
    return ShapeFigures(rung=rung, p50_ms=p50_ms, p99_ms=p99_ms, artifact_bytes=1, peak_bytes=1)


def test_a_camera_with_a_p99_alone_is_held_to_a_lower_p50() -> None:
    """The README's own profile: p99 at most 50 ms. Full widths take 80 and 120 ms, the narrowest 10 and 16."""
    known = shape(80.0, 120.0), shape(10.0, 16.0)
    limit = tail_limit(Limits(p99_ms=50.0), *known)
    assert limit is not None
    assert (limit.ratio, limit.p50_ms) == (1.5, pytest.approx(HEADROOM * 50 / 1.5))
    assert limit.p99_ms(limit.p50_ms) == pytest.approx(HEADROOM * 50)
    assert held_p50_ms(Limits(p99_ms=50.0), *known) == limit.p50_ms
    assert held_p50_ms(Limits(p50_ms=20.0, p99_ms=50.0), *known) == 20.0
    assert held_p50_ms(Limits(), *known) == math.inf
    assert tail_limit(Limits(p50_ms=20.0), *known) is None


def test_what_a_search_saw_counts_more_than_what_was_known_before() -> None:
    limit = TailLimit(limit_ms=60.0, first=1.2)
    assert limit.p50_ms == pytest.approx(50.0)
    assert limit.updated(20.0, 30.0).p50_ms == pytest.approx(40.0)
    # One disturbed look among three moves nothing.
    assert limit.updated(20.0, 30.0).updated(20.0, 200.0).updated(20.0, 31.0).ratio == pytest.approx(1.55)
    assert TailLimit(limit_ms=60.0, first=0.9).ratio == 1.0


tails = st.lists(st.floats(1.0, 20.0), min_size=1, max_size=5)


@given(tails, st.floats(1.0, 20.0))
def test_p50_is_never_held_above_p99s_limit_and_the_ratio_is_one_that_was_seen(seen: list[float], first: float) -> None:
    limit = TailLimit(limit_ms=10.0, first=first)
    for ratio in seen:
        limit = limit.updated(1.0, ratio)
    assert limit.p50_ms <= limit.limit_ms
    assert limit.ratio in seen
    assert sum(r <= limit.ratio for r in seen) >= len(seen) / 2
    assert sum(r >= limit.ratio for r in seen) >= len(seen) / 2
