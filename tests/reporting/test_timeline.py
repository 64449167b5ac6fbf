"""Where the time went, by kind of work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_for_tests import make_build_result

from edgeprune.records.result import BuildResult, TimelineEntry
from edgeprune.reporting.html import render_html
from edgeprune.reporting.timeline import REST, time_line, time_shares


def built(*timeline: tuple[str, float, bool], seconds: float) -> BuildResult:
    entries = tuple(TimelineEntry(step=s, seconds=t, cached=c) for s, t, c in timeline)
    return replace(make_build_result(), timeline=entries, seconds=seconds)


RESULT = built(
    ("plan", 10.0, False),
    ("shapes/tflite-int8-t1/shape", 5.0, False),
    ("shapes/tflite-float32-t1/shape", 7.0, True),
    ("candidates/conv1/sensitivity", 5.0, False),
    ("compressed/dense/compress", 600.0, True),
    ("compressed/structured50-3f2a91c4/compress", 60.0, False),
    ("candidates/a/race", 1.0, False),
    ("candidates/a/measure", 15.0, False),
    ("candidates/a/memory", 2.0, False),
    seconds=100.0,
)


def test_steps_are_grouped_and_the_rest_is_told() -> None:
    found = [(s.kind, s.seconds, s.kept_seconds, s.steps) for s in time_shares(RESULT)]
    assert found == [
        ("training", 61.0, 600.0, 3),
        ("measuring", 17.0, 0.0, 2),
        ("planning on the device", 15.0, 7.0, 3),
        ("sensitivity", 5.0, 0.0, 1),
        (REST, pytest.approx(2.0), 0.0, 0),
    ]
    assert time_line(RESULT) == (
        "where the time went: training 61% (1 min 01 s), measuring 17% (17.0 s), planning on the device 15% (15.0 s), "
        "sensitivity 5% (5.0 s), judging and all else 2% (2.0 s); 10 min 07 s of work was kept from before"
    )


def test_the_report_says_it() -> None:
    page = render_html(RESULT)
    for text in ("planning on the device", "61%", "and 10 min 00 s before", "judging and all else"):
        assert text in page


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a/shape", "b/measure", "c/odd"]), st.floats(0, 1e4), st.booleans()), max_size=5
    ),
    st.floats(0, 1e5),
)
def test_shares_add_up_to_the_build(timeline: list[tuple[str, float, bool]], seconds: float) -> None:
    found = time_shares(built(*timeline, seconds=seconds))
    assert all(s.seconds >= 0.0 and 0.0 <= s.share <= 1.0 for s in found)
    total = sum(s.seconds for s in found)
    assert total == pytest.approx(max(seconds, sum(t for _, t, cached in timeline if not cached)))
    assert sum(s.share for s in found) == pytest.approx(1.0 if total else 0.0)
