from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.records.staircase import NOISE, Staircase

POINTS = st.lists(
    st.tuples(st.integers(1, 512), st.floats(0.01, 10)), min_size=1, max_size=12, unique_by=lambda p: p[0]
)


def test_a_width_that_a_larger_one_beats_is_not_admissible() -> None:
    staircase = Staircase(operator="conv3x3", points=((24, 0.36), (31, 0.629), (32, 0.359), (63, 1.9), (64, 1.34)))
    assert staircase.admissible == (32, 64)


@given(POINTS)
def test_no_width_is_worse_than_a_larger_admissible_one(points: list[tuple[int, float]]) -> None:
    staircase = Staircase(operator="x", points=tuple(sorted(points)))
    admissible = set(staircase.admissible)
    assert max(width for width, _ in points) in admissible
    for width, latency_ms in staircase.points:
        beaten = any(w > width and w in admissible and ms <= latency_ms * NOISE for w, ms in staircase.points)
        assert (width in admissible) is not beaten
