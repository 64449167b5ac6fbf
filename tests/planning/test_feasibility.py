from __future__ import annotations

from dataclasses import replace

from edgeprune.planning.feasibility import ShapeFigures, decide, no_room, over_budget
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


def test_a_runtime_that_takes_more_than_the_limit_by_itself_has_no_room_for_any_widths() -> None:
    shape = replace(SHAPE, base_bytes=60_000_000, peak_bytes=70_000_000)
    assert no_room(shape, Limits(memory_bytes=50_000_000)) == (
        "the runtime alone takes 60.0 MB before it loads a model, over the memory budget of 50.0 MB"
    )
    assert no_room(shape, Limits(memory_bytes=65_000_000)) is None
    assert no_room(shape, Limits(memory_bytes=5_000_000, memory_of="model")) is None
    assert no_room(shape, Limits()) is None
