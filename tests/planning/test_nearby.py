"""What is expected of a fallback, worked by hand from two shapes that were measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.memory import MEMORY
from edgeprune.planning.nearby import predict_near
from edgeprune.planning.shape_problem import LATENCY, WEIGHTS
from edgeprune.records.rung import PlannedRung, Precision, PruningKind, Rung, RungStatus

PLACE = Rung(runtime="tflite", precision=Precision.INT8)
DENSE = ShapeFigures(rung=PLACE, p50_ms=4.0, p99_ms=8.0, artifact_bytes=1000, peak_bytes=50_000, base_bytes=40_000)
HEAD = PlannedRung(
    rung=replace(PLACE, pruning=PruningKind.STRUCTURED, pruning_ratio=0.5), status=RungStatus.PLANNED, reason="fits",
    accuracy_cost=3.0, p50_ms=2.0, p99_ms=3.0, artifact_bytes=600, peak_bytes=46_000, base_bytes=40_000,
)  # fmt: skip


def test_size_and_memory_are_on_the_line_and_the_shorter_tail_counts() -> None:
    """From 900 weights to 500, and 400 are asked for: a quarter further on than the head."""
    expected = predict_near({LATENCY: 1.8, WEIGHTS: 400}, (DENSE, HEAD), (900, 500), "process")
    assert expected.p50_ms == 1.8
    assert expected.p99_ms == pytest.approx(1.5 * 1.8)
    assert expected.artifact_bytes == 500
    assert expected.memory_bytes == 45_000
    of_model = predict_near({LATENCY: 1.8, WEIGHTS: 400}, (DENSE, HEAD), (900, 500), "model")
    assert of_model.memory_bytes == 5_000


def test_where_memory_is_limited_its_own_model_says() -> None:
    expected = predict_near({LATENCY: 1.8, WEIGHTS: 400, MEMORY: 44_321.4}, (DENSE, HEAD), (900, 500), "process")
    assert expected.memory_bytes == 44_321


def test_a_head_of_full_weight_is_taken_as_it_is() -> None:
    """Only a layer without weights of its own was cut; and a tail is never shorter than the median."""
    short = replace(HEAD, p99_ms=1.0)
    expected = predict_near({LATENCY: 1.8, WEIGHTS: 900}, (DENSE, short), (900, 900), "process")
    assert (expected.artifact_bytes, expected.memory_bytes, expected.p99_ms) == (600, 46_000, 1.8)
