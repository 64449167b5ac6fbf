"""Two threads can halve p50 and multiply p99 by ten: which counts is what the budget says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.rung_order import tightness
from edgeprune.planning.threads import choose_threads
from edgeprune.records.rung import Limits, Precision, Rung


def shape(threads: int, p50_ms: float, p99_ms: float, runtime: str = "tflite") -> ShapeFigures:
    rung = Rung(runtime=runtime, precision=Precision.INT8, threads=threads)
    return ShapeFigures(rung=rung, p50_ms=p50_ms, p99_ms=p99_ms, artifact_bytes=1, peak_bytes=1)


ONE, TWO = shape(1, 0.8, 1.0), shape(2, 0.4, 9.0)


def test_a_limit_of_p99_takes_the_thread_count_with_the_shorter_tail() -> None:
    found = choose_threads([ONE, TWO, shape(2, 3.0, 3.0, "openvino")], Limits(p50_ms=1.0, p99_ms=2.0))
    assert [f.rung.name for f in found.kept] == ["tflite-int8-t1", "openvino-int8-t2"]
    ((left, reason),) = found.left_out
    assert (left, reason) == (TWO.rung, "p99 9.00 ms, and 1.00 ms with 1 thread(s)")


def test_a_limit_of_p50_alone_takes_the_faster() -> None:
    for limits in (Limits(p50_ms=1.0), Limits(artifact_bytes=5)):
        found = choose_threads([ONE, TWO], limits)
        assert found.kept == (TWO,)
        assert found.left_out == ((ONE.rung, "p50 0.800 ms, and 0.400 ms with 2 thread(s)"),)


def test_where_p50_is_the_nearer_limit_it_decides() -> None:
    found = choose_threads([ONE, TWO], Limits(p50_ms=0.5, p99_ms=100.0))
    assert found.kept == (TWO,)
    assert found.left_out[0][1].startswith("p50")


milliseconds = st.floats(0.1, 10.0)


@given(st.lists(st.tuples(milliseconds, milliseconds), min_size=1, max_size=4), milliseconds, milliseconds)
def test_no_other_count_is_further_from_the_limits(figures: list[tuple[float, float]], p50: float, p99: float) -> None:
    limits = Limits(p50_ms=p50, p99_ms=p99)
    shapes = [shape(number, *ms) for number, ms in enumerate(figures, 1)]
    (kept,) = choose_threads(shapes, limits).kept
    assert tightness(kept, limits) == min(tightness(s, limits) for s in shapes)
    assert len(choose_threads(shapes, limits).left_out) == len(shapes) - 1
