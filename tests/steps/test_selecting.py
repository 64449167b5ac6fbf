"""Widths by another rule than the planner's: at the least share that fits, measured as whole shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from compressors import compressor

from edgeprune.errors import InputError
from edgeprune.planning.allocation_problem import Configuration
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.records.rung import GroupWidth, Limits, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.narrowing import Narrower
from edgeprune.steps.open_model import OpenModel
from edgeprune.steps.selecting import SelectedWidths
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.workbench import Workbench


@dataclass
class Scales:
    """A device on which every channel takes a tenth of a millisecond; keeps what it was asked."""

    bench: Workbench
    asked: list[Mapping[str, int]] = field(default_factory=list)

    def measure(
        self, rung: Rung, widths: tuple[GroupWidth, ...] = (), removed_blocks: tuple[str, ...] = ()
    ) -> ShapeFigures:
        assert not removed_blocks or len(self.asked) == 0
        self.asked.append({w.group: w.after for w in widths})
        p50_ms = 0.1 * sum(self.asked[-1].values())
        return ShapeFigures(rung=rung, p50_ms=p50_ms, p99_ms=p50_ms, artifact_bytes=10, peak_bytes=10, widths=widths)

    @staticmethod
    def latest(figures: ShapeFigures) -> ShapeFigures:
        return figures

    def look_closer(self, figures: ShapeFigures) -> ShapeFigures:
        return replace(figures, processes=5, closer=True)


def made_with(made: Compressor, selection: str) -> Workbench:
    spec = made.bench.target.spec
    return made.bench.with_spec(
        spec.model_copy(update={"pruning": spec.pruning.model_copy(update={"selection": selection})})
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compressor]:
    with compressor(tmp_path_factory.mktemp("selecting")) as found:
        yield found


FLOAT = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
DENSE = ShapeFigures(rung=FLOAT, p50_ms=100.0, p99_ms=100.0, artifact_bytes=10, peak_bytes=10)


@pytest.mark.parametrize("selection", ["uniform", "global", "sensitivity"])
def test_a_rule_takes_the_planners_place(made: Compressor, selection: str) -> None:
    bench = made_with(made, selection)
    shapes, losses = Scales(bench), GroupLosses(made, may_train=True)
    narrower = Narrower(shapes, losses)  # type: ignore[arg-type]
    full = OpenModel(bench).full
    limits = Limits(p50_ms=0.1 * 0.7 * sum(full.values()))
    (rung,) = narrower.plan(DENSE, narrower.fastest_admissible(FLOAT), limits)
    assert (rung.status, rung.rung.pruning) == (RungStatus.PLANNED, PruningKind.STRUCTURED)
    after = {w.group: w.after for w in rung.widths}
    share = 1 - sum(after.values()) / sum(full.values())
    # The limit less the headroom is met with 31.4 % out, and the next share that was tried is over it.
    assert 0.314 <= share < 0.314 + 0.06
    assert f"{selection} widths fit with" in rung.ended
    if selection == "uniform":
        assert all(abs(1 - after[g] / full[g] - share) < 0.08 for g in full)


def test_rules_choose_differently_and_by_the_groups_units(made: Compressor) -> None:
    def widths(selection: str) -> tuple[tuple[int, ...], ...]:
        model = OpenModel(made_with(made, selection))
        rule = SelectedWidths(model, GroupLosses(made, may_train=True), lambda _: DENSE)
        found = [rule.at(share).widths for share in (0.2, 0.3, 0.4, 0.5)]
        assert all(w % model.groups[g].unit == 0 and w >= model.minimum(g) for x in found for g, w in x.items())
        assert rule.at(0.0).widths == model.full
        return tuple(tuple(x.values()) for x in found)

    assert len({widths(s) for s in ("uniform", "global", "sensitivity")}) == 3


def test_limits_that_no_share_meets_refuse_the_place(made: Compressor) -> None:
    bench = made_with(made, "uniform")
    model = OpenModel(bench)
    rule = SelectedWidths(model, GroupLosses(made, may_train=True), lambda _: DENSE)
    found = rule.search(Limits(p50_ms=1.0))
    assert found.figures is None
    assert "uniform widths do not fit with" in found.ended
    narrow = Scales(bench).measure(FLOAT, tuple(GroupWidth(group=g, before=w, after=1) for g, w in model.full.items()))
    shapes = Scales(bench)
    (rung,) = Narrower(shapes, GroupLosses(made, may_train=True)).plan(  # type: ignore[arg-type]
        DENSE, narrow, Limits(p50_ms=0.1 * (sum(model.minimum(g) for g in model.full) - 1) / 1.0)
    )
    assert rung.status is RungStatus.REFUSED
    assert "the most" in rung.reason


def test_told_shares_are_one_shape_that_fits_or_does_not(made: Compressor) -> None:
    spec = made.bench.target.spec

    def planned(p50_ms: float, ratios: Mapping[str, float]) -> tuple[PlannedRung, Scales]:
        told = {"selection": "told", "group_ratios": ratios}
        bench = made.bench.with_spec(spec.model_copy(update={"pruning": spec.pruning.model_copy(update=told)}))
        shapes = Scales(bench)
        narrower = Narrower(shapes, GroupLosses(made, may_train=False))  # type: ignore[arg-type]
        narrow = narrower.fastest_admissible(FLOAT)
        (rung,) = narrower.plan(DENSE, narrow, Limits(p50_ms=p50_ms))
        return rung, shapes

    halves = {"conv2": 0.5, "*": 0.25}
    rung, shapes = planned(2.8, halves)
    assert {w.group: w.after for w in rung.widths} == {"conv1": 12, "conv2": 16}
    assert (rung.status, rung.p50_ms, len(shapes.asked)) == (RungStatus.PLANNED, pytest.approx(2.8), 2)
    rung, _ = planned(2.6, halves)
    # What was measured of it is told with the refusal.
    assert (rung.status, rung.p50_ms) == (RungStatus.REFUSED, pytest.approx(2.8))
    assert rung.reason.endswith("widths of pruning.group_ratios")
    rung, shapes = planned(2.8, {"conv1": 0.02})
    assert (rung.status, len(shapes.asked)) == (RungStatus.REFUSED, 1)
    assert "too small to take a whole channel out" in rung.reason
    with pytest.raises(InputError, match="no group is named 'conv9'"):
        planned(2.8, {"conv9": 0.5})


def test_an_untrained_model_has_no_ranks_yet(made: Compressor, tmp_path: Path) -> None:
    with compressor(tmp_path) as fresh:
        bench = made_with(fresh, "global")
        losses = GroupLosses(fresh, may_train=False)
        rule = SelectedWidths(OpenModel(bench), losses, lambda _: DENSE)
        same = SelectedWidths(OpenModel(made_with(fresh, "uniform")), losses, lambda _: DENSE)
        assert rule.at(0.3) == same.at(0.3)
        assert isinstance(rule.at(0.3), Configuration)
    assert not (tmp_path / "runs" / "tiny-bench-box-local" / "compressed").exists()
