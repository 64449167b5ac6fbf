from __future__ import annotations

from dataclasses import replace

from records_for_tests import make_judgement

from edgeprune.records.verdict import Judgement, Verdict
from edgeprune.reporting.markdown import render_markdown


def test_one_row_a_gate_below_the_verdict() -> None:
    lines = render_markdown(make_judgement(), "door on n100", [("artifact", "sha256 12ab")]).splitlines()
    assert lines[0] == "### ✅ PASS: door on n100"
    rows = [line for line in lines if line.startswith("| ✅ PASS")]
    assert len(rows) == 6
    assert {line.count("|") for line in lines if line.startswith("|")} == {6}
    assert "- artifact: sha256 12ab" in lines


def test_a_reader_of_a_pull_request_sees_a_short_table_and_why_a_gate_did_not_pass() -> None:
    gates = make_judgement().gates
    failed = replace(gates[2], verdict=Verdict.FAIL, reason="p50 is at least 9 ms")
    text = render_markdown(Judgement(verdict=Verdict.FAIL, gates=(*gates[:2], failed, *gates[3:])), "x")
    shown, folded = text.split("<details>")
    assert "- **p50 FAIL**: p50 is at least 9 ms" in shown
    assert len(shown.splitlines()) < 16
    assert max(len(line) for line in shown.splitlines()) < 80
    assert "p50" not in folded
    assert all(f"- {g.gate.replace('_', chr(92) + '_')}: " in folded for g in gates if g.gate != "p50")
    # GitHub reads Markdown inside of HTML only behind an empty line.
    assert folded.splitlines()[1] == ""


def test_values_have_units_and_missing_ones_are_empty() -> None:
    text = render_markdown(make_judgement(measurement=None), "x")
    assert "| ❔ INCONCLUSIVE | p99 |  |  | 3.4 ms |" in text
    assert "- **p99 INCONCLUSIVE**: not measured" in text
    assert "| ✅ PASS | size | 0.32 MB | 0.32 MB | 0.4 MB |" in text


def test_texts_cannot_break_the_table_or_add_html() -> None:
    gate = replace(make_judgement().gates[0], reason="a | b\n<img src=x> [x](http://y) `z`")
    text = render_markdown(Judgement(verdict=Verdict.PASS, gates=(gate,)), "<b>\n# x")
    assert r"a \| b \<img src=x\> \[x\](http://y) \`z\`" in text
    assert text.splitlines()[0] == r"### ✅ PASS: \<b\> \# x"


def test_without_gates_it_says_so() -> None:
    text = render_markdown(Judgement(verdict=Verdict.PASS, gates=()), "x")
    assert "No limit is set" in text
    assert "|" not in text
