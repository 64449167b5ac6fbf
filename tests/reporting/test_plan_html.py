from __future__ import annotations

from dataclasses import replace

from records_for_tests import make_breakdown, make_plan

from edgeprune.records.rung import RungStatus
from edgeprune.reporting.plan_html import render_plan_html


def test_the_best_possible_stands_beside_the_budget_and_every_rung_has_its_reason() -> None:
    plan = make_plan()
    refused = tuple(replace(r, status=RungStatus.REFUSED, reason=f"<no> {r.rung.name}") for r in plan.rungs)
    html = render_plan_html(replace(plan, rungs=refused), "door", "n100", "box-7")
    assert "door: no rung fits the n100 budget on box-7" in html
    assert f"{plan.best.rung.name}, the fastest" in html
    assert "1.40 ms" in html
    assert "\u2264 2.60 ms" in html
    assert all(f"&lt;no&gt; {r.rung.name}" in html for r in refused)
    assert "probed sparse kernels: none" in html
    assert "<no>" not in html


def test_a_plan_that_fits_says_so_and_shows_what_its_widths_rest_on() -> None:
    plan = make_plan()
    html = render_plan_html(plan, "door", "n100", "box-7")
    assert "door: 4 rungs may meet the n100 budget on box-7" in html
    assert "NO PLAN" not in html
    assert f"What {plan.rungs[2].rung.name} rests on" in html
    for title in ("Where the milliseconds go", "Staircases of the groups", "What each group loses"):
        assert title in html
    unmeasured = replace(plan.rungs[2], p50_ms=None)
    assert "~2.05 ms" in render_plan_html(replace(plan, rungs=(unmeasured,)), "door", "n100", "box-7")


def test_a_no_tells_what_limits_the_fastest() -> None:
    plan = make_plan()
    best = replace(plan.best, breakdown=make_breakdown(), status=RungStatus.REFUSED)
    html = render_plan_html(replace(plan, rungs=(best,)), "door", "n100", "box-7")
    assert "Of its latency, most goes to" in html
