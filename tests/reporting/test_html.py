# ruff: noqa: RUF001  the report has real multiplication and minus signs
from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from records_for_tests import make_build_result, make_failed_result

from edgeprune.records.model_card import Reading
from edgeprune.records.result import BuildResult
from edgeprune.records.rung import Limits, RungStatus
from edgeprune.records.verdict import Verdict
from edgeprune.reporting.html import render_html
from edgeprune.reporting.tables import rungs

VOID = {"meta", "br", "hr", "img", "input", "link", "path", "use"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what a test asks about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.ids += [values["id"]] if values.get("id") else []
        self.labels += [values["aria-label"] or ""] if tag == "svg" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def html() -> str:
    return render_html(make_build_result())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_says_first_whether_it_passed_how_much_was_won_and_lost(page: Page) -> None:
    first = page.text[: page.text.index("Gates")]
    assert "PASS" in first
    assert "openvino-int8-t1-structured37.5 meets the n100 budget on box-7" in first
    assert re.search(r"2\.\d\d× faster at p99", first)
    assert "−0.40 points of accuracy" in first
    assert "3.84× smaller" in first


def test_has_every_part(page: Page) -> None:
    for part in (
        "worst_class",
        "multiply-accumulates",
        "1.56× fewer",
        "zeros buy no time here",
        "not tried",
        "involuntary context switches",
        "189 involuntary context switches in 1.85 s (limit 42)",
        "Intel(R) N100",
        "torch 2.8.0",
        "compress 3 min 00 s",
        "probed sparse kernels: none",
        "the test data was read once",
    ):
        assert part in page.text


def test_needs_no_network(html: str, page: Page) -> None:
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    # The one link is to a file beside it, and works without a network.
    assert re.findall(r'(?:src|href)="(?!#)([^"]*)', html) == ["artifact/MODEL_CARD.md"]
    assert not re.search(r"@import|url\((?!#)", html)


def test_drawings_are_labelled_and_ids_are_unique(page: Page) -> None:
    assert len(page.labels) == 7
    assert all(page.labels)
    assert len(set(page.ids)) == len(page.ids)


def test_drawings_follow_the_colours_of_the_page(html: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert re.findall(r"#[0-9a-f]{6}", drawings) == []
    assert "var(--subject)" in drawings
    assert "prefers-color-scheme: dark" in html


def test_is_the_same_each_time(html: str) -> None:
    assert render_html(make_build_result()) == html


def test_stays_small(html: str) -> None:
    assert len(html) < 300_000


def test_texts_are_escaped_everywhere() -> None:
    bad = "<script>alert(1)</script>"
    result = make_build_result(bad)
    group = replace(result.candidates[-1].widths[0], group=bad)
    chosen = replace(result.candidates[-1], reason=bad, widths=(group, *result.candidates[-1].widths[1:]))
    plan = replace(result.plan, notes=(bad,))
    hostile = replace(
        result,
        device=bad,
        profile=bad,
        folder=bad,
        plan=plan,
        chosen=chosen,
        candidates=(*result.candidates[:-1], chosen),
    )
    html = render_html(hostile)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert bad in Page(html).text


def test_a_failed_build_shows_its_nearest_miss() -> None:
    page = Page(render_html(make_failed_result()))
    assert page.text.startswith("FAIL: door on n100")
    assert "No candidate was shown to meet the n100 budget" in page.text
    assert "nearest miss" in page.text
    assert "the compiler ran out of memory" in page.text


def bare(result: BuildResult) -> BuildResult:
    """Nothing was measured: not even the dense model."""
    dense = replace(result.dense, measurement=None, percentiles=(), validation=None, test=None, artifact=None)
    plan = replace(result.plan, limits=Limits(p50_ms=1.0))
    return replace(
        result, verdict=Verdict.INCONCLUSIVE, dense=dense, chosen=None, candidates=(), plan=plan, timeline=()
    )


def test_a_build_that_measured_nothing_still_has_a_report() -> None:
    page = Page(render_html(bare(make_build_result())))
    assert "No candidate could be measured" in page.text
    assert [label for label in page.labels if not label.startswith("Loss against width")] == []


def test_a_candidate_that_the_plan_did_not_foresee_is_listed() -> None:
    result = make_build_result()
    page = Page(render_html(replace(result, plan=replace(result.plan, rungs=()))))
    assert "every gate passed" in page.text


def test_a_budget_of_the_median_alone_is_drawn_against_the_median() -> None:
    result = make_build_result()
    plan = replace(result.plan, limits=Limits(p50_ms=2.6))
    page = Page(render_html(replace(result, plan=plan)))
    assert "faster at p50" in page.text
    assert any(label.startswith("Accuracy against p50") for label in page.labels)


def test_the_baseline_is_told_as_such_and_not_as_refused() -> None:
    result = make_build_result()
    over = replace(result.plan.dense, status=RungStatus.REFUSED, reason="over the budget")
    plan = replace(result.plan, rungs=(*result.plan.rungs, over))
    rows = {row.name: row for row in rungs(replace(result, plan=plan))}
    dense = rows[result.dense.rung.name]
    assert dense.outcome == "dense (baseline)"
    assert dense.p50.startswith("6.")
    assert dense.size == "1.23 MB"


@pytest.mark.parametrize(("readings", "said"), [(1, "was read once, at the end"), (3, "at the end, for the 3. time")])
def test_says_how_often_the_test_data_was_read(readings: int, said: str) -> None:
    found = tuple(Reading(number=k + 1, data="d", models=()) for k in range(readings))
    assert said in render_html(replace(make_build_result(), test_readings=found))
    assert "the test data was not read" in render_html(replace(make_failed_result(), test_readings=found))
