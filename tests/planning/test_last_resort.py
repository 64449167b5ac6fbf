"""Which place is asked next for its narrowest widths, by what the others showed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.last_resort import most_asked, most_promising
from edgeprune.records.rung import Precision, Rung


def shape(runtime: str, precision: Precision, p50_ms: float) -> ShapeFigures:
    rung = Rung(runtime=runtime, precision=precision)
    return ShapeFigures(rung=rung, p50_ms=p50_ms, p99_ms=p50_ms, artifact_bytes=1, peak_bytes=1)


FLOAT, BF16, INT8 = Precision.FLOAT32, Precision.BF16, Precision.INT8


def test_a_runtime_that_was_not_asked_comes_first() -> None:
    known = [(shape("openvino", INT8, 4.0), shape("openvino", INT8, 1.0))]
    left = [shape("openvino", BF16, 5.0), shape("tflite", FLOAT, 12.0), shape("tflite", INT8, 9.0)]
    assert most_promising(left, known).rung.name == "tflite-int8-t1"


def test_then_the_lowest_latency_by_the_runtimes_own_shrinkage() -> None:
    """README's digits: TFLite falls to a tenth and OpenVINO to a third, so 0.265 promises more than 0.131."""
    known = [
        (shape("openvino", INT8, 0.0866), shape("openvino", INT8, 0.0286)),
        (shape("tflite", INT8, 0.0741), shape("tflite", INT8, 0.00759)),
    ]
    left = [shape("openvino", BF16, 0.131), shape("tflite", FLOAT, 0.265)]
    assert most_promising(left, known).rung.name == "tflite-float32-t1"
    # The better of two places of a runtime counts.
    known.append((shape("openvino", FLOAT, 0.22), shape("openvino", FLOAT, 0.022)))
    assert most_promising(left, known).rung.name == "openvino-bf16-t1"


def test_what_takes_longer_at_the_narrowest_shrinks_nothing() -> None:
    known = [(shape("tflite", INT8, 1.0), shape("tflite", INT8, 9.0))]
    left = [shape("tflite", BF16, 2.0), shape("tflite", FLOAT, 1.5)]
    assert most_promising(left, known).p50_ms == 1.5


@pytest.mark.parametrize(("full_widths", "most"), [(1, 4), (7, 4), (8, 4), (14, 7), (21, 10)])
def test_a_no_asks_half_as_many_again(full_widths: int, most: int) -> None:
    assert most_asked(full_widths) == most


@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_the_places_does_not_matter(latencies: list[float], random: Random) -> None:
    places = [shape(f"runtime{n}", INT8, ms) for n, ms in enumerate(latencies)]
    mixed = list(places)
    random.shuffle(mixed)
    assert most_promising(mixed, []) == most_promising(places, [])
