"""Cutting in float32 is looked at as far as it could pay, and no further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compressors import compressor
from targets_for_tests import until_quiet

from edgeprune.planning.feasibility import ShapeFigures, scaled
from edgeprune.records.rung import Limits, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.steps.finer_places import FinerPlaces
from edgeprune.steps.narrowing import Narrower
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.shapes import ShapeBench

FLOAT = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
INT8 = replace(FLOAT, precision=Precision.INT8)
CUT = replace(FLOAT, pruning=PruningKind.STRUCTURED, pruning_ratio=0.3)
LIMITS = Limits(p50_ms=1.0)


def planned(rung: Rung, cost: float | None, error: float = 0.0) -> PlannedRung:
    return PlannedRung(rung=rung, status=RungStatus.PLANNED, reason="fits", accuracy_cost=cost, cost_error=error)


def figures(p50_ms: float, rung: Rung = FLOAT) -> ShapeFigures:
    return ShapeFigures(rung=rung, p50_ms=p50_ms, p99_ms=2 * p50_ms, artifact_bytes=10, peak_bytes=10)


class _Narrower:
    """What the device and the tables would say, told beforehand; keeps what it was asked."""

    def __init__(self, narrow_ms: float = 0.5, least: float | None = 0.1, likely: float | None = None) -> None:
        self.asked: list[str] = []
        self._narrow_ms, self._least, self._likely = narrow_ms, least, likely

    def likely_loss(self, *_: Any) -> float | None:
        return self._likely

    def fastest_admissible(self, place: Rung) -> ShapeFigures:
        self.asked.append("narrowest")
        return figures(self._narrow_ms, place)

    def least_loss(self, *_: Any) -> float | None:
        self.asked.append("tables")
        return self._least

    def plan(self, *_: Any) -> list[PlannedRung]:
        self.asked.append("search")
        return [planned(CUT, 9.0)]


def decided(narrower: _Narrower, best: PlannedRung) -> PlannedRung:
    prices = {FLOAT: 0.0, CUT: 0.2}
    costs = SimpleNamespace(priced=lambda r: replace(r, accuracy_cost=prices[r.rung]))
    (found,) = FinerPlaces(narrower, costs).plan(figures(2.0), [planned(INT8, 5.0), best], LIMITS)
    return found


@pytest.mark.parametrize(
    ("best", "given", "asked", "said"),
    [
        (planned(INT8, 0.002, 0.003), {}, [], "fits and costs 0.002 ± 0.003: no widths in float32 could cost less"),
        (
            planned(INT8, 0.5, 0.01),
            {"likely": 1.0},
            [],
            "at the prices of the searched place its widths would cost about 1",
        ),
        (
            planned(INT8, 0.5, 0.01),
            {"narrow_ms": 1.2, "likely": 0.9},
            ["narrowest"],
            "even with the narrowest widths: p50 1.20 ms",
        ),
        (planned(INT8, 0.5, 0.01), {"least": 0.6}, ["narrowest", "tables"], "its widths cost at least 0.6"),
        (planned(INT8, 0.5, 0.01), {"least": None}, ["narrowest", "tables"], "no widths fit"),
    ],
    ids=[
        "INT8 costs nothing to be seen",
        "other prices say more",
        "too slow",
        "the tables say more",
        "the tables say no",
    ],
)
def test_the_cheapest_question_that_says_no_is_the_last(
    best: PlannedRung, given: dict[str, Any], asked: list[str], said: str
) -> None:
    narrower = _Narrower(**given)
    found = decided(narrower, best)
    assert narrower.asked == asked
    assert (found.status, found.accuracy_cost) == (RungStatus.REFUSED, None)
    assert found.rung.name == "onnxruntime-float32-t1-structured"
    assert said in found.reason


def test_where_int8_breaks_the_model_float_widths_are_searched_for() -> None:
    narrower = _Narrower()
    found = decided(narrower, planned(INT8, 0.5, 0.01))
    assert narrower.asked == ["narrowest", "tables", "search"]
    assert (found.rung, found.status, found.accuracy_cost) == (CUT, RungStatus.PLANNED, 0.2)


def test_a_pruned_rung_is_enough_where_nothing_can_be_seen_to_cost_less() -> None:
    cut = planned(replace(INT8, pruning=PruningKind.STRUCTURED, pruning_ratio=0.5), 0.15, 0.2)
    narrower = _Narrower(least=0.1)
    assert decided(narrower, cut).status is RungStatus.REFUSED
    assert narrower.asked == []
    assert decided(narrower, replace(cut, cost_error=0.1)).status is RungStatus.PLANNED


def test_the_least_loss_by_the_tables_is_nothing_at_full_widths_and_no_less_for_tighter_limits(tmp_path: Path) -> None:
    target = {"pruning.ratios": [0.25, 0.5]}
    with compressor(tmp_path, target=target) as made:
        narrower = Narrower(ShapeBench(made.bench), GroupLosses(made, may_train=True))
        dense = until_quiet(lambda: narrower.shapes.measure(FLOAT))
        narrow = until_quiet(lambda: narrower.fastest_admissible(FLOAT))
        sizes = narrow.artifact_bytes, dense.artifact_bytes
        limits = [Limits(artifact_bytes=sum(sizes) // 2 if share else sizes[1]) for share in (0, 1)]
        free, cut = (until_quiet(lambda limit=limit: narrower.least_loss(dense, narrow, limit)) for limit in limits)
        assert free == 0.0
        assert cut is not None
        assert cut >= free
        assert narrower.least_loss(dense, narrow, scaled(Limits(p50_ms=1e-9), 1.0)) is None
