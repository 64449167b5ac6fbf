from __future__ import annotations

from dataclasses import replace

from records_for_tests import make_plan

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
