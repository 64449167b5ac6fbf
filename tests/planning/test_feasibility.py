from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.planning.feasibility import (
    ShapeFigures,
    decide,
    is_late,
    needs_longer_look,
    no_room,
    over_budget,
    what_is_over,
)
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


def test_a_quick_look_over_by_less_than_its_noise_is_still_tried_and_not_said_to_be_within_the_budget() -> None:
    limits = Limits(p50_ms=2.0 / 1.029)
    assert over_budget(SHAPE, limits) is None
    assert over_budget(SHAPE, limits, slack=1.0) is not None
    reason = decide(SHAPE, limits, 1.0).reason
    assert reason == "p50 2.00 ms on the device, 2.9 % over the budget of 1.94 ms, within the slack of a look"
    assert "0.5 % over the budget of 1.99 ms" in decide(SHAPE, Limits(p50_ms=3.0, p99_ms=1.99), 1.0).reason


def test_a_wild_p99_of_a_short_look_refuses_nothing_but_is_told() -> None:
    wild, limits = replace(SHAPE, p50_ms=49.0, p99_ms=500.0), Limits(p99_ms=50.0)
    assert over_budget(wild, limits) is None
    assert needs_longer_look(wild, limits)
    planned = decide(wild, limits, 1.0)
    assert (planned.status, planned.p99_ms) == (RungStatus.PLANNED, 500.0)
    told = "p50 49.0 ms on the device, within the budget; p99 500 ms in a quick look is over its limit of 50.0 ms"
    assert planned.reason.startswith(told)
    fine = decide(replace(wild, p99_ms=49.9), limits, 1.0).reason
    assert fine == "p50 49.0 ms on the device, within the budget; p99 49.9 ms in a quick look, limit 50.0 ms"


def test_a_p99_that_is_over_in_the_best_of_two_long_looks_refuses() -> None:
    limits = Limits(p50_ms=40.0, p99_ms=50.0)
    once = replace(SHAPE, p50_ms=30.0, p99_ms=60.0, long_looks=1)
    twice = replace(once, long_looks=2)
    assert decide(once, limits, 1.0).status is RungStatus.PLANNED
    assert needs_longer_look(once, limits)
    assert not needs_longer_look(twice, limits)
    refused = decide(twice, limits, 1.0)
    assert (refused.status, refused.long_looks) == (RungStatus.REFUSED, 2)
    assert refused.reason == "p99 60.0 ms on the device in the best of 2 long looks, over the budget of 50.0 ms"
    # Disturbed looks are no evidence, and a little over is within the noise of a tail, however strictly p50 is taken.
    assert over_budget(replace(twice, disturbed="a neighbour"), limits) is None
    assert over_budget(replace(twice, p99_ms=51.0), limits, slack=1.0) is None


@pytest.mark.parametrize(
    ("limits", "over", "late"),
    [
        (Limits(p50_ms=1.9), "over the budget", True),
        (Limits(p50_ms=2.02), "over 98% of the budget", True),
        (Limits(p50_ms=2.5, p99_ms=2.9), "over the p99 budget", True),
        (Limits(p50_ms=2.5, p99_ms=3.02), "over 98% of the p99 budget", True),
        (Limits(p50_ms=2.5, artifact_bytes=9), "over the size budget", False),
        (Limits(p50_ms=2.5, memory_bytes=99), "over the memory budget", False),
        (Limits(p50_ms=1.9, memory_bytes=99), "over the budget", True),
        (Limits(p50_ms=2.5, p99_ms=3.5, artifact_bytes=10, memory_bytes=100), "", False),
        (Limits(), "", False),
    ],
)
def test_what_a_trip_is_over_is_told_as_it_is(limits: Limits, over: str, *, late: bool) -> None:
    assert what_is_over(SHAPE, limits) == over
    assert is_late(SHAPE, limits) == late


def test_a_runtime_that_takes_more_than_the_limit_by_itself_has_no_room_for_any_widths() -> None:
    shape = replace(SHAPE, base_bytes=60_000_000, peak_bytes=70_000_000)
    assert no_room(shape, Limits(memory_bytes=50_000_000)) == (
        "the runtime alone takes 60.0 MB before it loads a model, over the memory budget of 50.0 MB"
    )
    assert no_room(shape, Limits(memory_bytes=65_000_000)) is None
    assert no_room(shape, Limits(memory_bytes=5_000_000, memory_of="model")) is None
    assert no_room(shape, Limits()) is None
