"""What the search for widths leaves in the plan, with a device that takes as long as a formula says."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import torch
from torch import nn

from edgeprune.graph.groups import find_groups
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.records.breakdown import Breakdown
from edgeprune.records.operators import OperatorShape
from edgeprune.records.rung import GroupWidth, Limits, Precision, Rung, RungStatus
from edgeprune.steps.narrowing import Narrower

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeprune.steps.sensitivity import GroupLosses
    from edgeprune.steps.shapes import ShapeBench

PLACE = Rung(runtime="onnxruntime", precision=Precision.INT8)
CONSTANT_MS = 0.01


class Net(nn.Module):
    """Two groups to cut, and a stem that nothing narrows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Conv2d(16, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(torch.relu(self.stem(x))))))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


EXAMPLE = torch.zeros(1, 3, 8, 8)
GROUPS = find_groups(Net(), EXAMPLE, ("stem",))


def entry_ms(shape: OperatorShape) -> float:
    """Steps of 8 channels on both sides."""
    return 0.001 * -(-shape.in_channels // 8) * -(-shape.out_channels // 8)


class FormulaTables:
    """Stands for `OperatorTables`: nothing is measured."""

    def ensure(self, shapes: Iterable[OperatorShape], place: Rung) -> int:
        return 0 * len(list(shapes)) * place.threads

    def latency_ms(self, shape: OperatorShape, place: Rung) -> float:
        return entry_ms(shape) * place.threads

    def least_ms(self, place: Rung) -> float:
        return 0.002 * place.threads


class FormulaShapes:
    """Stands for `ShapeBench`: a whole model takes a constant and a tenth more than its operators."""

    bench = SimpleNamespace(
        groups=GROUPS,
        blocks=SimpleNamespace(removable=()),
        example=EXAMPLE,
        fresh_model=Net,
        note=lambda *_: None,
        target=SimpleNamespace(spec=SimpleNamespace(pruning=SimpleNamespace(ratios=(0.25, 0.5, 0.75)))),
    )

    def measure(
        self, rung: Rung, widths: tuple[GroupWidth, ...] = (), removed_blocks: tuple[str, ...] = ()
    ) -> ShapeFigures:
        after = {w.group: w.after for w in widths}
        first, second = after.get("first", 32), after.get("second", 32)
        pairs = ((3, 16), (16, first), (first, second), (second, 4))
        tables_ms = sum(0.001 * -(-i // 8) * -(-o // 8) for i, o in pairs)
        p50_ms = CONSTANT_MS + 1.1 * tables_ms
        return ShapeFigures(
            rung=rung,
            p50_ms=p50_ms,
            p99_ms=p50_ms,
            artifact_bytes=1000,
            peak_bytes=10**7,
            widths=widths,
            removed_blocks=removed_blocks,
        )


@pytest.fixture
def narrower() -> Narrower:
    made = Narrower(cast("ShapeBench", FormulaShapes()), cast("GroupLosses", lambda _, width: 1.0 - width / 32))
    made.__dict__["_tables"] = FormulaTables()
    return made


def parts(where: Breakdown) -> list[str]:
    return [o.layer for o in where.operators]


def test_every_rung_of_a_search_says_where_its_milliseconds_go(narrower: Narrower) -> None:
    dense, narrow = FormulaShapes().measure(PLACE), narrower.fastest_admissible(PLACE)
    head, *fallbacks = narrower.plan(dense, narrow, Limits(p50_ms=0.6 * dense.p50_ms))
    assert head.status is RungStatus.PLANNED
    assert fallbacks
    for rung in (head, *fallbacks):
        where = rung.breakdown
        assert where is not None
        assert parts(where) == ["stem", "first", "second", "head"]
        assert [o.layer for o in where.operators if o.fixed] == ["stem"]
        assert where.observations == 2 + len(head.trips)
        assert where.runtime_ms == 0.002
        # The device keeps to a law that the cost model can say.
        assert where.predicted_ms == pytest.approx(FormulaShapes().measure(PLACE, rung.widths).p50_ms, rel=0.03)
        assert where.measured_ms == rung.p50_ms
    (survey,) = narrower.surveys
    assert (survey.place, survey.full.measured_ms) == (PLACE.place, dense.p50_ms)
    assert survey.full.predicted_ms == pytest.approx(dense.p50_ms, rel=0.03)
    assert {name: s.admissible for name, s in survey.staircases.items()} == dict.fromkeys(
        ("first", "second"), (8, 16, 24, 32)
    )
    chosen = {w.group: w.after for w in head.widths}
    assert all(chosen[g] in s.admissible for g, s in survey.staircases.items())


def test_all_that_a_search_prices_by_is_measured_in_one_trip(narrower: Narrower) -> None:
    ensured: list[set[OperatorShape]] = []
    asked: set[OperatorShape] = set()

    class Watched(FormulaTables):
        def ensure(self, shapes: Iterable[OperatorShape], place: Rung) -> int:
            ensured.append(set(shapes))
            return 0 * place.threads

        def latency_ms(self, shape: OperatorShape, place: Rung) -> float:
            asked.add(shape)
            return super().latency_ms(shape, place)

    narrower.__dict__["_tables"] = Watched()
    dense, narrow = FormulaShapes().measure(PLACE), narrower.fastest_admissible(PLACE)
    narrower.plan(dense, narrow, Limits(p50_ms=0.6 * dense.p50_ms))
    assert len(ensured) == 1
    assert asked <= ensured[0]


def test_where_no_widths_fit_the_narrowest_are_taken_apart(narrower: Narrower) -> None:
    dense, narrow = FormulaShapes().measure(PLACE), narrower.fastest_admissible(PLACE)
    (refused,) = narrower.plan(dense, narrow, Limits(p50_ms=narrow.p50_ms / 1.05))
    assert refused.status is RungStatus.REFUSED
    assert refused.breakdown is not None
    assert refused.breakdown.predicted_ms == pytest.approx(narrow.p50_ms, rel=0.03)
    assert len(narrower.surveys) == 1


def test_a_hopeless_place_is_not_surveyed(narrower: Narrower) -> None:
    dense, narrow = FormulaShapes().measure(PLACE), narrower.fastest_admissible(PLACE)
    (refused,) = narrower.plan(dense, narrow, Limits(p50_ms=narrow.p50_ms / 2))
    assert refused.breakdown is None
    assert narrower.surveys == []


def test_another_places_losses_are_told_by_the_prices_of_the_one_that_was_searched(narrower: Narrower) -> None:
    dense, narrow = FormulaShapes().measure(PLACE), narrower.fastest_admissible(PLACE)
    limits = Limits(p50_ms=0.6 * dense.p50_ms)
    assert narrower.likely_loss(dense, limits) is None
    head = narrower.plan(dense, narrow, limits)[0]
    lost = sum(1.0 - w.after / w.before for w in head.widths)
    assert narrower.likely_loss(dense, limits) == pytest.approx(lost, abs=0.26)
    slower = [replace(dense, p50_ms=factor * dense.p50_ms) for factor in (1.3, 1.6, 9.0)]
    losses = [narrower.likely_loss(there, limits) or 0.0 for there in (dense, *slower)]
    assert losses == sorted(losses)
    assert losses[-1] == math.inf
