"""What the search for widths leaves in the plan, with a device that takes as long as a formula says."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import torch
from torch import nn

from edgeprune.graph.groups import find_groups
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.records.breakdown import Breakdown
from edgeprune.records.operators import OperatorShape
from edgeprune.records.rung import GroupWidth, Limits, Precision, Rung, RungStatus, kept_widths
from edgeprune.steps.narrowing import Narrower, _takes_too_much
from edgeprune.units import format_ms

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
        target=SimpleNamespace(
            spec=SimpleNamespace(pruning=SimpleNamespace(ratios=(0.25, 0.5, 0.75), selection="planner"))
        ),
        profile=SimpleNamespace(budget=SimpleNamespace(memory_of="process")),
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
            p99_ms=1.5 * p50_ms,
            artifact_bytes=1000 + 9 * (16 * first + first * second),
            peak_bytes=10**7,
            widths=widths,
            removed_blocks=removed_blocks,
        )

    @staticmethod
    def latest(figures: ShapeFigures) -> ShapeFigures:
        return figures

    def look_closer(self, figures: ShapeFigures) -> ShapeFigures:
        return replace(figures, processes=5, closer=True)


class OnlyRatio:
    """An eighth is left of 32 channels: no multiple of what vector kernels work on."""

    ratios = (0.875,)


@pytest.fixture
def narrower() -> Narrower:
    made = Narrower(cast("ShapeBench", FormulaShapes()), cast("GroupLosses", lambda _, width: 1.0 - width / 32))
    made.__dict__["_tables"] = FormulaTables()
    return made


def parts(where: Breakdown) -> list[str]:
    return [o.title for o in where.operators]


def test_every_rung_of_a_search_says_where_its_milliseconds_go(narrower: Narrower) -> None:
    dense, narrow = FormulaShapes().measure(PLACE), narrower.fastest_admissible(PLACE)
    head, *fallbacks = narrower.plan(dense, narrow, Limits(p50_ms=0.6 * dense.p50_ms))
    assert head.status is RungStatus.PLANNED
    assert fallbacks
    for rung in (head, *fallbacks):
        where = rung.breakdown
        assert where is not None
        assert parts(where) == ["stem", "first", "second", "average of second", "head"]
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


def test_widths_that_save_no_time_are_choices_where_something_else_must_be_saved(narrower: Narrower) -> None:
    class Coarse(FormulaTables):
        """24 channels take as long as 32."""

        def latency_ms(self, shape: OperatorShape, place: Rung) -> float:
            return 0.001 * -(-shape.in_channels // 16) * -(-shape.out_channels // 16) * place.threads

    narrower.__dict__["_tables"] = Coarse()
    dense = narrower.shapes.measure(PLACE)
    narrow = narrower.fastest_admissible(PLACE)
    knees, every = (narrower.problem(PLACE, narrow, every_width=wanted).choices for wanted in (False, True))
    for group in ("first", "second"):
        widths, all_widths = ({c.width for c in choices[group]} for choices in (knees, every))
        assert (widths, all_widths) == ({16, 32}, {8, 16, 24, 32})
    roomy = Limits(p50_ms=dense.p50_ms, artifact_bytes=dense.artifact_bytes, memory_bytes=dense.peak_bytes)
    assert not _takes_too_much(dense, roomy)
    assert _takes_too_much(dense, replace(roomy, artifact_bytes=dense.artifact_bytes - 1))
    assert _takes_too_much(dense, replace(roomy, memory_bytes=dense.peak_bytes - 1))


def test_where_no_widths_fit_the_narrowest_are_taken_apart(narrower: Narrower) -> None:
    dense, narrow = FormulaShapes().measure(PLACE), narrower.fastest_admissible(PLACE)
    (refused,) = narrower.plan(dense, narrow, Limits(p50_ms=narrow.p50_ms / 1.05))
    assert refused.status is RungStatus.REFUSED
    assert refused.breakdown is not None
    assert refused.breakdown.predicted_ms == pytest.approx(narrow.p50_ms, rel=0.03)
    assert len(narrower.surveys) == 1


def test_a_near_miss_is_a_no_before_any_loss_is_asked_for_where_nothing_else_is_faster() -> None:
    def asked(*_: object) -> float:
        raise AssertionError("a training may stand behind it")

    made = Narrower(cast("ShapeBench", FormulaShapes()), cast("GroupLosses", asked))
    made.__dict__["_tables"] = FormulaTables()
    dense, narrow = FormulaShapes().measure(PLACE), made.fastest_admissible(PLACE)
    (refused,) = made.plan(dense, narrow, Limits(p50_ms=narrow.p50_ms / 1.08))
    assert refused.status is RungStatus.REFUSED
    assert refused.reason.endswith("; no other widths are predicted to fit")
    assert refused.trips == ()
    assert refused.breakdown is not None
    assert len(made.surveys) == 1
    # Where others may be faster it is worth to ask.
    with pytest.raises(AssertionError, match="a training"):
        made.plan(dense, narrow, Limits(p50_ms=narrow.p50_ms / 1.045))


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


class TailShapes(FormulaShapes):
    """A device with a tail, that is looked at again when it is asked to; each look is told beforehand.

    Args:
        ratios: p99 over p50 by look; the last one holds from then on.
        disturbed: what every look finds.
        slower: factor on p50 of each further measurement of a shape.
    """

    def __init__(self, *ratios: float, disturbed: str = "", slower: float = 1.0) -> None:
        self.ratios, self.disturbed, self.slower = ratios or (1.0,), disturbed, slower
        self.asked: list[str] = []

    def measure(
        self, rung: Rung, widths: tuple[GroupWidth, ...] = (), removed_blocks: tuple[str, ...] = ()
    ) -> ShapeFigures:
        found = super().measure(rung, widths, removed_blocks)
        p50_ms = found.p50_ms * (self.slower if rung.name in self.asked else 1.0)
        self.asked.append(rung.name)
        p99_ms = self.ratios[0] * p50_ms
        return replace(found, p50_ms=p50_ms, p99_ms=p99_ms, long_looks=1, disturbed=self.disturbed)

    @staticmethod
    def latest(figures: ShapeFigures) -> ShapeFigures:
        return figures

    def look_closer(self, figures: ShapeFigures) -> ShapeFigures:
        self.asked.append(f"{figures.rung.name} closer")
        return super().look_closer(figures)

    def look_longer(self, figures: ShapeFigures) -> ShapeFigures:
        look = figures.long_looks
        self.asked.append(f"{figures.rung.name} again")
        p99_ms = min(figures.p99_ms, self.ratios[min(look, len(self.ratios) - 1)] * figures.p50_ms)
        return replace(figures, p99_ms=p99_ms, long_looks=look + 1)


def narrower_on(shapes: FormulaShapes) -> Narrower:
    made = Narrower(cast("ShapeBench", shapes), cast("GroupLosses", lambda _, width: 1.0 - width / 32))
    made.__dict__["_tables"] = FormulaTables()
    return made


def test_a_p99_alone_is_met_by_widths_and_their_fallbacks_that_are_as_much_faster() -> None:
    shapes = TailShapes(1.6)
    dense, searched = shapes.measure(PLACE), narrower_on(shapes)
    limits = Limits(p99_ms=1.6 * 0.6 * dense.p50_ms)
    assert limits.p99_ms is not None
    head, *fallbacks = searched.plan(dense, searched.fastest_admissible(PLACE), limits)
    assert head.status is RungStatus.PLANNED
    assert head.p99_ms == pytest.approx(1.6 * (head.p50_ms or 0.0))
    # Of all widths whose p99 keeps to the limit, with headroom, these lose the least.
    every = [tuple(GroupWidth(group=g, before=32, after=w) for g, w in zip(("first", "second"), ws, strict=True))
             for ws in product((8, 16, 24, 32), repeat=2)]  # fmt: skip
    kept = [sum(w.after for w in ws) for ws in every if shapes.measure(PLACE, ws).p99_ms <= 0.98 * limits.p99_ms]
    assert sum(w.after for w in head.widths) == max(kept) < 64
    assert head.reason.endswith(f"p99 {format_ms(head.p99_ms or 0.0)} in a long look, limit {format_ms(limits.p99_ms)}")
    assert all(t.predicted_p99_ms == pytest.approx(1.6 * t.predicted_ms) for t in head.trips)
    assert all(t.measured_p99_ms == pytest.approx(1.6 * t.measured_ms) for t in head.trips)
    assert fallbacks
    assert all("p99 about" in r.reason for r in fallbacks)
    told = [shapes.measure(PLACE, r.widths).p99_ms for r in fallbacks]
    assert all(p99_ms < 0.93 * limits.p99_ms for p99_ms in told)


def test_a_neighbour_during_the_first_looks_costs_no_width() -> None:
    """Every shape is first seen with a tail of four times its median, and without it when it is looked at again."""
    dense = FormulaShapes().measure(PLACE)
    limits = Limits(p50_ms=0.7 * dense.p50_ms, p99_ms=1.5 * 0.7 * dense.p50_ms)
    found = []
    for shapes in (TailShapes(1.1), TailShapes(4.0, 1.1)):
        searched = narrower_on(shapes)
        first_seen = shapes.measure(PLACE)
        found.append(searched.plan(first_seen, searched.fastest_admissible(PLACE), limits)[0])
    quiet, noisy = found
    assert noisy.status is RungStatus.PLANNED
    assert noisy.widths == quiet.widths


def test_a_tail_that_was_disturbed_on_every_trip_leaves_the_aim_where_it_was() -> None:
    """Seen on a machine of two cores with seven neighbours: full widths at 1.3 times their p50, every trip at 120."""

    class Neighbours(TailShapes):
        def measure(
            self, rung: Rung, widths: tuple[GroupWidth, ...] = (), removed_blocks: tuple[str, ...] = ()
        ) -> ShapeFigures:
            found = super().measure(rung, widths, removed_blocks)
            return found if widths else replace(found, p99_ms=1.3 * found.p50_ms, disturbed="")

    quiet, noisy = TailShapes(1.3), Neighbours(120.0, disturbed="neighbours")
    limits = Limits(p99_ms=1.3 * 0.6 * quiet.measure(PLACE).p50_ms)
    heads = []
    for shapes in (quiet, noisy):
        searched = narrower_on(shapes)
        heads.append(searched.plan(shapes.measure(PLACE), searched.fastest_admissible(PLACE), limits)[0])
    assert [h.status for h in heads] == [RungStatus.PLANNED] * 2
    assert heads[0].widths == heads[1].widths
    assert "on a disturbed device is over its limit" in heads[1].reason


def test_a_tail_that_no_widths_shorten_is_refused_after_two_long_looks_and_not_on_a_disturbed_device() -> None:
    dense = FormulaShapes().measure(PLACE)
    for disturbed, status in (("", RungStatus.REFUSED), ("a neighbour", RungStatus.PLANNED)):
        shapes = TailShapes(9.0, disturbed=disturbed)
        searched = narrower_on(shapes)
        narrow = searched.fastest_admissible(PLACE)
        (rung,) = searched.plan(shapes.measure(PLACE), narrow, Limits(p99_ms=1.2 * dense.p50_ms))
        assert rung.status is status
        assert f"{narrow.rung.name} again" in shapes.asked
        assert ("in the best of 2 long looks, over the budget" in rung.reason) == (not disturbed)
        assert ("on a disturbed device is over its limit" in rung.reason) == bool(disturbed)


def test_what_was_measured_on_the_trip_is_what_is_planned() -> None:
    """The device is disturbed, and whatever is measured again is a fifth slower than its trip said."""
    shapes = TailShapes(disturbed="a neighbour", slower=1.2)
    dense, searched = shapes.measure(PLACE), narrower_on(shapes)
    narrow = searched.fastest_admissible(PLACE)
    head, *_ = searched.plan(dense, narrow, Limits(p50_ms=0.6 * dense.p50_ms))
    assert head.status is RungStatus.PLANNED
    assert head.p50_ms in {t.measured_ms for t in head.trips if t.fits}
    assert shapes.asked.count(head.rung.name) == 1


def test_of_what_is_only_just_within_the_budget_knees_come_before_the_narrowest(narrower: Narrower) -> None:
    dense, narrow = FormulaShapes().measure(PLACE), narrower.fastest_admissible(PLACE)
    limits = Limits(p50_ms=1.005 * narrow.p50_ms)
    head = narrower.plan(dense, narrow, limits)[0]
    assert (head.status, head.reason.endswith(", within the budget")) == (RungStatus.PLANNED, True)
    assert head.ended == "even the fastest were measured to be over 98% of the budget"
    chosen = tuple(sorted(kept_widths(head.widths).items()))
    assert chosen in {t.widths for t in head.trips}
    assert all(t.over == "over 98% of the budget" and t.summary.endswith(t.over) for t in head.trips)


@pytest.mark.parametrize("disturbed", ["", "a neighbour"])
def test_the_narrowest_are_looked_at_closer_and_decided_without_slack(disturbed: str) -> None:
    class Quick(TailShapes):
        def measure(
            self, rung: Rung, widths: tuple[GroupWidth, ...] = (), removed_blocks: tuple[str, ...] = ()
        ) -> ShapeFigures:
            return replace(super().measure(rung, widths, removed_blocks), long_looks=0)

    shapes = Quick(disturbed=disturbed)
    dense, searched = shapes.measure(PLACE), narrower_on(shapes)
    narrow = searched.fastest_admissible(PLACE)
    (rung,) = searched.plan(dense, narrow, Limits(p50_ms=narrow.p50_ms / 1.02))
    assert shapes.asked.count(f"{narrow.rung.name} closer") == 1
    if disturbed:
        assert rung.status is RungStatus.PLANNED
        assert "2.0 % over the budget" in rung.reason
        assert rung.reason.endswith("within the slack of a look")
    else:
        assert rung.status is RungStatus.REFUSED
        assert rung.reason.startswith("no widths fit: even the fastest were measured to be over the budget; ")
        assert "; the fastest of all: p50 " in rung.reason


def test_a_fallback_says_what_is_expected_of_it(narrower: Narrower) -> None:
    dense, narrow = FormulaShapes().measure(PLACE), narrower.fastest_admissible(PLACE)
    head, *fallbacks = narrower.plan(dense, narrow, Limits(p50_ms=0.6 * dense.p50_ms))
    assert head.predicted is None
    assert fallbacks
    for rung in fallbacks:
        expected, shown = rung.predicted, FormulaShapes().measure(PLACE, rung.widths)
        assert expected is not None
        assert rung.breakdown is not None
        assert expected.p50_ms == pytest.approx(rung.breakdown.predicted_ms)
        assert expected.p99_ms == pytest.approx(1.5 * expected.p50_ms)
        assert expected.artifact_bytes == pytest.approx(shown.artifact_bytes, rel=0.05)
        assert expected.memory_bytes == shown.peak_bytes


@pytest.mark.parametrize(("share", "measured"), [(1.9, [4, 8]), (2.1, [4])])
def test_what_is_far_over_the_budget_is_not_measured_in_two_roundings(share: float, measured: list[int]) -> None:
    asked: list[int] = []

    class Shapes(FormulaShapes):
        bench = SimpleNamespace(
            **{**vars(FormulaShapes.bench), "target": SimpleNamespace(spec=SimpleNamespace(pruning=OnlyRatio))}
        )

        def measure(
            self, rung: Rung, widths: tuple[GroupWidth, ...] = (), removed_blocks: tuple[str, ...] = ()
        ) -> ShapeFigures:
            asked.append(widths[0].after)
            return replace(super().measure(rung, widths, removed_blocks), p50_ms=1.0)

    narrower = Narrower(cast("ShapeBench", Shapes()), cast("GroupLosses", lambda *_: 0.0))
    narrower.fastest_admissible(PLACE, Limits(p50_ms=1.0 / share))
    assert asked == measured
    asked.clear()
    narrower.fastest_admissible(PLACE)
    assert asked == [4, 8]
