from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from records_for_tests import PRUNED, WIDTHS, make_breakdown, make_build_result, make_plan

from edgeprune.records.breakdown import Breakdown, OperatorCost
from edgeprune.records.result import BuildResult
from edgeprune.records.rung import GroupWidth
from edgeprune.records.sensitivity import CurvePoint, GroupCurve, ZeroSpread
from edgeprune.reporting.html import render_html
from edgeprune.reporting.plan_drawings import plan_drawings, planned_as, rung_to_draw
from edgeprune.reporting.plan_plots import Column, plot_waterfall, waterfall_rows


def texts(svg: str) -> list[str]:
    parsed = ET.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))  # noqa: S314
    return ["".join(e.itertext()) for e in parsed.iter("text")]


def breakdown(rest_ms: float, *operators: tuple[str, str, float]) -> Breakdown:
    found = tuple(OperatorCost(layer=layer, kind=kind, latency_ms=ms) for layer, kind, ms in operators)
    return Breakdown(operators=found, rest_ms=rest_ms, observations=2)


def test_small_operators_share_a_row_and_no_millisecond_is_lost() -> None:
    before = breakdown(0.5, ("a", "conv1x1", 4.0), ("b", "linear", 1.0), ("b", "add", 3.0), ("c", "linear", 2.0))
    # One is gone altogether, as with its block.
    after = breakdown(0.25, ("a", "conv1x1", 1.0), ("b", "linear", 0.5), ("b", "add", 0.5))
    rows = waterfall_rows([before, after], most=2)
    assert rows == [
        ("a", (4.0, 1.0)),
        ("add to b", (3.0, 0.5)),
        ("2 smaller ones", (3.0, 0.5)),
        ("the rest", (0.5, 0.25)),
    ]
    for position, whole in enumerate((before, after)):
        assert sum(ms[position] for _, ms in rows) == pytest.approx(whole.predicted_ms)


def test_a_layer_that_runs_twice_has_two_rows() -> None:
    rows = waterfall_rows([breakdown(0.0, ("a", "linear", 1.0), ("a", "linear", 2.0))])
    assert rows == [("a", (1.0,)), ("a", (2.0,)), ("the rest", (0.0,))]


def test_the_waterfall_tells_what_was_predicted_and_measured() -> None:
    columns = [
        Column(title="full widths", role="dense", breakdown=make_breakdown(2.0, measured_ms=3.1)),
        Column(title="chosen", role="subject", breakdown=make_breakdown()),
    ]
    found = " ".join(texts(plot_waterfall(columns, 2.6)))
    assert "predicted 3.60 ms, measured 3.10 ms" in found
    assert "predicted 2.05 ms, not measured" in found
    assert all(name in found for name in ("stem", WIDTHS[0].group, "the rest", "together"))
    assert "predicted 0 ms, not measured" in texts(
        plot_waterfall([Column(title="empty", role="dense", breakdown=breakdown(0.0))], None)
    )


def test_a_searched_rung_has_all_three_drawings() -> None:
    plan = make_plan()
    drawn = rung_to_draw(plan)
    assert drawn is not None
    assert drawn.rung == PRUNED
    waterfall, stairs, curves = plan_drawings(plan, drawn)
    assert "3 whole shape(s)" in waterfall.caption
    assert "layer2.1.conv1 64 to 48" in stairs.svg
    assert {w.group for w in WIDTHS} <= set(texts(stairs.svg)) & set(texts(curves.svg))


def test_before_any_training_there_are_no_curves_and_without_tables_nothing() -> None:
    plan = replace(make_plan(), sensitivity=None)
    assert [d.title for d in plan_drawings(plan, rung_to_draw(plan))] == [
        "Where the milliseconds go",
        "Staircases of the groups",
    ]
    bare = replace(plan, surveys=())
    (waterfall,) = plan_drawings(bare, rung_to_draw(bare))
    assert "full widths" not in texts(waterfall.svg)
    assert plan_drawings(plan, plan.rungs[0]) == ()
    assert plan_drawings(plan, planned_as(plan, replace(PRUNED, threads=7))) == ()
    assert rung_to_draw(replace(plan, rungs=plan.rungs[:2])) is None


def test_of_many_groups_those_are_drawn_that_are_cut_most() -> None:
    plan = make_plan()
    drawn = rung_to_draw(plan)
    assert drawn is not None
    survey = plan.surveys[0]
    groups = tuple(replace(survey.groups[k % 6], group=f"g{k}") for k in range(30))
    widths = tuple(GroupWidth(group=f"g{k}", before=64, after=64 if k < 6 else 8) for k in range(30))
    many = replace(plan, surveys=(replace(survey, groups=groups),), sensitivity=None)
    _, stairs = plan_drawings(many, replace(drawn, widths=widths))
    assert [t for t in texts(stairs.svg) if t.startswith("g")] == [f"g{k}" for k in range(6, 30)]
    assert "6 groups that are cut less, or as little, are left out" in stairs.caption


def test_curves_that_were_taken_are_drawn_whatever_rung_it_came_to() -> None:
    """A rule of the literature, zeros or INT8 alone may be what was chosen: no operator was priced for it."""
    plan = make_plan()
    drawn = rung_to_draw(plan)
    assert drawn is not None
    (curves,) = plan_drawings(plan, replace(drawn, breakdown=None))
    assert "Ringed" in curves.caption
    for planned in (None, plan.rungs[0]):
        (curves,) = plan_drawings(plan, planned)
        assert {w.group for w in WIDTHS} <= set(texts(curves.svg))
        assert "Ringed" not in curves.caption


def test_zeros_are_drawn_by_layer_with_what_the_rung_leaves() -> None:
    plan = make_plan()
    curves = tuple(
        GroupCurve(
            group=layer,
            width=1000,
            points=tuple(CurvePoint(width=w, loss_increase=1 - w / 1000, accuracy=0.5) for w in (20, 500)),
        )
        for layer in ("conv1", "conv2")
    )
    masked = replace(plan.rungs[4], zeros=ZeroSpread(curves=curves, shares=(0.98, 0.625)))
    _, zeros = plan_drawings(plan, masked)
    assert zeros.title == "What each layer loses by zeros"
    assert "of 2 layers: conv1 1000 to 20, conv2 1000 to 375" in zeros.svg
    assert {"conv1", "conv2"} <= set(texts(zeros.svg))
    # Where no operator was priced either, they are what there is to draw.
    unpriced = replace(plan, rungs=(*plan.rungs[:2], masked))
    assert rung_to_draw(unpriced) == masked
    page = render_html(replace(make_build_result(), plan=replace(plan, rungs=(replace(masked, rung=PRUNED),))))
    assert "Why these zeros" in page


def test_a_build_report_shows_them_for_the_model_that_was_chosen() -> None:
    result: BuildResult = make_build_result()
    page = render_html(result)
    assert "Why these widths" in page
    assert "Staircases of the groups" in page
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    unpruned = replace(result, chosen=result.candidates[1])
    assert "Why these widths" not in render_html(unpruned)
    assert "What cuts would have cost" in render_html(unpruned)
