"""The report tells which ways to quantize were tried, how each did, and which one was taken."""

from __future__ import annotations

from dataclasses import replace

from records_for_tests import make_build_result

from edgeprune.cli.render.results import build
from edgeprune.records.quantization import DEFAULT_VARIANT, QuantizationVariant, VariantSearch, VariantTrial
from edgeprune.records.result import BuildResult
from edgeprune.reporting.html import render_html
from edgeprune.reporting.quantities import NONE
from edgeprune.reporting.variants import variant_tables

TAKEN = QuantizationVariant(equalized=True, float_layers=("stem <1>",))
SEARCH = VariantSearch(
    trials=(
        VariantTrial(variant=DEFAULT_VARIANT, accuracy=0.5, p50_ms=0.4, artifact_bytes=1_000_000),
        VariantTrial(variant=QuantizationVariant(smoothing=0.5), reason="the model has no layer norm"),
        VariantTrial(variant=TAKEN, accuracy=0.9, meets_floors=True, p50_ms=0.5, artifact_bytes=1_100_000),
        VariantTrial(variant=QuantizationVariant(weight_only_bits=16), accuracy=0.95, meets_floors=True, over="p50"),
    ),
    chosen=TAKEN,
    why="accuracy: 50.00 % is under 85.00 %",
)


def _result() -> BuildResult:
    result = make_build_result()
    assert result.chosen is not None
    chosen = replace(result.chosen, variants=SEARCH)
    return replace(result, chosen=chosen, candidates=(*result.candidates[:-1], chosen))


def test_each_trial_has_a_row_with_what_came_of_it() -> None:
    (table,) = variant_tables(_result())
    assert [(r.name, r.outcome, r.accuracy, r.p50) for r in table.rows] == [
        ("default", "tried", "50.00%", "0.400 ms"),
        ("smooth50", "failed", NONE, NONE),
        (TAKEN.name, "taken", "90.00%", "0.500 ms"),
        ("weights16", "tried", "95.00%", NONE),
    ]
    assert [r.reason for r in table.rows] == [
        "under an accuracy floor", "the model has no layer norm", "in float32: stem <1>", "p50",
    ]  # fmt: skip


def test_what_the_target_fixed_is_told_as_that() -> None:
    fixed = VariantSearch(trials=(), chosen=QuantizationVariant(equalized=True), why="fixed by the target")
    result = make_build_result()
    assert result.chosen is not None
    chosen = replace(result.chosen, variants=fixed)
    result = replace(result, chosen=chosen, candidates=(*result.candidates[:-1], chosen))
    assert "quantized equalized, fixed by the target" in build(result, "text")
    page = render_html(result)
    assert "equalized, fixed by the target." in page
    assert "Tried because" not in page


def test_page_and_terminal_tell_of_it_only_where_there_was_a_search() -> None:
    page = render_html(_result())
    assert "Ways to quantize" in page
    assert "stem &lt;1&gt;" in page
    assert f"quantized {TAKEN.name}, the best of 4 ways" in build(_result(), "text")
    assert "Ways to quantize" not in render_html(make_build_result())
    assert "quantized" not in build(make_build_result(), "text")
