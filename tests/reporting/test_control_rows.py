"""Controls stand beside the result: on the page, in the terminal, each figure in its place."""

from __future__ import annotations

from dataclasses import replace

from records_for_tests import make_accuracy, make_build_result, make_failed_result

from edgeprune.cli.render.results import build
from edgeprune.records.control import Control
from edgeprune.records.result import BuildResult
from edgeprune.reporting.control_rows import control_rows
from edgeprune.reporting.html import render_html
from edgeprune.reporting.quantities import NONE

BY_LOT = Control(
    name="random",
    how="by lot <seed 7>",
    parameters=150_000,
    macs=22_000_000,
    epochs=6,
    validation=make_accuracy(450),
    test=make_accuracy(440, split="test"),
)
FRESH = replace(BY_LOT, name="scratch", how="fresh weights", epochs=15, qat_epochs=2, validation=make_accuracy(400))
REFUSED = Control(name="another", how="", reason="no recipe")
NOT_MADE = Control(name="random", how="", reason="no candidate passed")


def _with(result: BuildResult, *controls: Control) -> BuildResult:
    return replace(result, controls=controls)


def test_each_control_has_a_row_after_the_dense_model_and_the_result() -> None:
    rows = control_rows(_with(make_build_result(), BY_LOT, FRESH, REFUSED))
    assert [(r.name, r.validation, r.test, r.parameters, r.epochs, r.how) for r in rows[2:]] == [
        ("pruned by lot", "90.00 %", "88.00 %", "150,000", "6", "by lot <seed 7>"),
        ("trained from scratch", "80.00 %", "88.00 %", "150,000", "15 + 2 with rounding", "fresh weights"),
        ("another", NONE, NONE, NONE, NONE, "none: no recipe"),
    ]
    assert [(r.name, r.validation, r.macs) for r in rows[:2]] == [
        ("dense", "96.40 %", "41,000,000"),
        ("the result", "96.00 %", f"{make_build_result().candidates[-1].macs:,}"),
    ]
    assert control_rows(make_build_result()) == ()


def test_page_and_terminal_show_them_only_where_they_were_asked_for() -> None:
    result = _with(make_build_result(), BY_LOT, FRESH, REFUSED)
    page, text = render_html(result), " ".join(build(result, "text").split())
    assert "Beside controls of the same size" in page
    cells = "".join(f'<td class="number">{cell}</td>' for cell in ("90.00 %", "88.00 %", "150,000", "22,000,000", "6"))
    assert f'<th scope="row">pruned by lot</th>{cells}<td class="why">by lot &lt;seed 7&gt;</td>' in page
    assert "none: no recipe" in page
    assert "control random: 90.00 % on validation data, 88.00 % on test data (by lot <seed 7>)" in text
    assert "control another: none: no recipe" in text
    assert "Beside controls" not in render_html(make_build_result())
    assert "control " not in build(make_build_result(), "text")


def test_a_build_that_nothing_passed_says_why_there_are_none() -> None:
    result = _with(make_failed_result(), NOT_MADE)
    assert [r.name for r in control_rows(result)] == ["dense", "pruned by lot"]
    assert "none: no candidate passed" in render_html(result)
    assert "random: none: no candidate passed" in build(result, "text")
