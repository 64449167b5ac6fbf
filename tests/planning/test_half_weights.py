from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.half_weights import exchange, left_out, why_not, with_half_weights
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


ANY = Limits(artifact_bytes=15)


def test_it_stands_for_float32_in_the_search_for_widths() -> None:
    known = {EXACT: seen(EXACT, 20), HALF: seen(HALF, 10, 1.1)}
    found, stands_for = with_half_weights(ladder(EXACT), known, ANY)
    assert (found.places, found.finer_places, stands_for) == ((HALF,), (), {HALF: EXACT})
    finer, _ = with_half_weights(ladder(INT8, finer=(EXACT,)), known, ANY)
    assert (finer.places, finer.finer_places) == ((INT8,), (HALF,))
    assert exchange(finer, stands_for) == ladder(INT8, finer=(EXACT,))


def test_float32_is_told_to_be_left_out_with_what_both_take() -> None:
    told = left_out(seen(EXACT, 20), seen(HALF, 10, 1.9))
    assert (told.rung.name, told.status) == ("tflite-float32-t1-structured", RungStatus.REFUSED)
    assert told.reason == (
        "tflite-float32w16-t1 takes 1.90 ms with half the bytes, float32 1.00 ms: of the size it can keep more"
    )


def test_where_it_was_not_measured_the_ladder_is_as_it_was() -> None:
    given = ladder(INT8, finer=(EXACT,))
    assert with_half_weights(given, {EXACT: seen(EXACT, 20), INT8: seen(INT8, 5)}, ANY) == (given, {})


@pytest.mark.parametrize(
    ("p50_ms", "limits", "both"),
    [
        (1.9, ANY, False),
        (2.5, ANY, True),
        (1.05, Limits(artifact_bytes=15, p50_ms=1.0), False),
        (1.9, Limits(artifact_bytes=15, p50_ms=1.0), True),
        (1.9, Limits(artifact_bytes=15, p50_ms=2.5), False),
    ],
)
def test_a_runtime_that_is_slowed_by_it_is_asked_for_both(p50_ms: float, limits: Limits, both: bool) -> None:  # noqa: FBT001
    known = {EXACT: seen(EXACT, 20), HALF: seen(HALF, 10, p50_ms)}
    found, stands_for = with_half_weights(ladder(EXACT), known, limits)
    assert (found.places, found.finer_places) == (((EXACT,), (HALF,)) if both else ((HALF,), ()))
    assert bool(stands_for) is not both
