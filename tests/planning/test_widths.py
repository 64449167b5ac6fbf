from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.planning.widths import candidate_widths, keep_share_widths
from edgeprune.records.staircase import NOISE, Staircase

WIDTHS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 512), min_size=1)
RATIOS = st.floats(0, 0.99)


def test_widths_are_rounded_up_to_the_next_admissible_one() -> None:
    result = keep_share_widths({"stem": 64, "head": 20}, 0.5, {"stem": (16, 48, 64)})
    assert [(w.group, w.before, w.after) for w in result] == [("stem", 64, 48), ("head", 20, 10)]


def test_a_group_keeps_its_width_where_nothing_wider_is_admissible() -> None:
    assert keep_share_widths({"a": 64}, 0.25, {"a": (8, 16)})[0].after == 64


@given(WIDTHS, RATIOS)
def test_no_group_grows_or_vanishes(widths: dict[str, int], ratio: float) -> None:
    for width in keep_share_widths(widths, ratio, {}):
        assert 1 <= width.after <= width.before


@given(WIDTHS, RATIOS, RATIOS)
def test_a_higher_ratio_never_keeps_more(widths: dict[str, int], one: float, other: float) -> None:
    low, high = sorted((one, other))
    admissible = {"a": (8, 16, 32, 64, 128, 256, 512)}
    weaker, stronger = (keep_share_widths(widths, r, admissible) for r in (low, high))
    assert all(s.after <= w.after for w, s in zip(weaker, stronger, strict=True))


@given(st.lists(st.integers(1, 256), min_size=1, max_size=5), st.lists(RATIOS, min_size=1, max_size=4))
def test_the_candidates_cover_what_the_ratios_ask_for(widths: list[int], ratios: list[float]) -> None:
    candidates = candidate_widths(widths, ratios)
    assert set(widths) <= set(candidates)
    for width in widths:
        for ratio in ratios:
            assert any(width * (1 - ratio) - 1e-6 <= c <= width for c in candidates)


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
