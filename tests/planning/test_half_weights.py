from __future__ import annotations

from dataclasses import replace

from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.half_weights import why_not, with_half_weights
from edgeprune.planning.ladder import Ladder
from edgeprune.records.rung import Limits, Precision, Rung, RungStatus

EXACT = Rung(runtime="tflite", precision=Precision.FLOAT32)
HALF = replace(EXACT, precision=Precision.FLOAT32_W16)
INT8 = replace(EXACT, precision=Precision.INT8)


def seen(rung: Rung, size_bytes: int, p50_ms: float = 1.0) -> ShapeFigures:
    return ShapeFigures(rung=rung, p50_ms=p50_ms, p99_ms=p50_ms, artifact_bytes=size_bytes, peak_bytes=1)


def ladder(*places: Rung, finer: tuple[Rung, ...] = ()) -> Ladder:
    return Ladder(rungs=(), places=places, refused=(), finer_places=finer)


def test_a_half_is_worth_a_look_only_where_the_whole_is_too_large() -> None:
    known = {EXACT: seen(EXACT, 2_000_000)}
    assert why_not(HALF, known, Limits(artifact_bytes=1_999_999)) is None
    told = "weights of 16 bits save size alone, and tflite-float32-t1 has 2.00 MB"
    assert why_not(HALF, known, Limits(artifact_bytes=2_000_000)) == told
    assert why_not(HALF, known, Limits(p50_ms=0.1)) == told
    # Other precisions are faster too, and what is not known of float32 speaks against nothing.
    assert why_not(INT8, known, Limits(p50_ms=0.1)) is None
    assert why_not(replace(HALF, threads=2), known, Limits(artifact_bytes=2_000_000)) is None


def test_it_stands_for_float32_in_the_search_for_widths() -> None:
    known = {EXACT: seen(EXACT, 20), HALF: seen(HALF, 10, 1.1)}
    found, (left_out,) = with_half_weights(ladder(EXACT), known)
    assert (found.places, found.finer_places) == ((HALF,), ())
    assert (left_out.rung.name, left_out.status) == ("tflite-float32-t1-structured", RungStatus.REFUSED)
    assert left_out.reason == "tflite-float32w16-t1 is as fast with half the bytes, so it can keep more"
    finer, _ = with_half_weights(ladder(INT8, finer=(EXACT,)), known)
    assert (finer.places, finer.finer_places) == ((INT8,), (HALF,))


def test_where_it_was_not_measured_the_ladder_is_as_it_was() -> None:
    given = ladder(INT8, finer=(EXACT,))
    assert with_half_weights(given, {EXACT: seen(EXACT, 20), INT8: seen(INT8, 5)}) == (given, ())


def test_a_runtime_that_is_slowed_by_it_is_asked_for_both() -> None:
    known = {EXACT: seen(EXACT, 20), HALF: seen(HALF, 10, 2.5)}
    found, left_out = with_half_weights(ladder(EXACT), known)
    assert (found.places, found.finer_places, left_out) == ((EXACT,), (HALF,), ())
