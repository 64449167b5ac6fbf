from __future__ import annotations

from dataclasses import replace

from edgeprune.planning.feasibility import ShapeFigures, decide, over_budget
from edgeprune.records.rung import Limits, Precision, Rung, RungStatus

SHAPE = ShapeFigures(
    rung=Rung(runtime="tflite", precision=Precision.INT8), p50_ms=2.0, p99_ms=3.0, artifact_bytes=10, peak_bytes=100
)


def test_a_shape_within_every_limit_is_planned() -> None:
    limits = Limits(p50_ms=2.0, p99_ms=2.5, memory_bytes=100, artifact_bytes=10)
    assert over_budget(SHAPE, limits) is None
    assert decide(SHAPE, limits, 1.0).status is RungStatus.PLANNED


def test_each_limit_refuses_with_its_numbers() -> None:
    cases = {
        "p50 2.00 ms on the device, over the budget of 1.50 ms": Limits(p50_ms=1.5),
        "over the p99 budget of 1.90 ms": Limits(p99_ms=1.9),
        "size": Limits(artifact_bytes=9),
        "peak memory": Limits(memory_bytes=99),
    }
    for expected, limits in cases.items():
        assert expected in decide(SHAPE, limits, 1.0).reason


def test_a_quick_look_over_by_less_than_its_noise_is_still_tried() -> None:
    assert over_budget(SHAPE, Limits(p50_ms=2.0 / 1.02)) is None


def test_a_wild_p99_of_a_short_look_refuses_nothing() -> None:
    assert over_budget(replace(SHAPE, p99_ms=50.0), Limits(p99_ms=2.5)) is None
