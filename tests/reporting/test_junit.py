from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from records_for_tests import make_accuracy, make_judgement

from edgeprune.records.verdict import Judgement, Verdict
from edgeprune.reporting.junit import render_junit


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314


def test_a_pass_has_neither_failures_nor_errors() -> None:
    root = parsed(render_junit(make_judgement(), "door.n100"))
    assert root.tag == "testsuites"
    suite = root.find("testsuite")
    assert suite is not None
    assert {k: suite.attrib[k] for k in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "door.n100", "tests": "6", "failures": "0", "errors": "0", "skipped": "0",
    }  # fmt: skip
    assert [c.attrib["name"] for c in suite.iter("testcase")] == [g.gate for g in make_judgement().gates]
    assert {c.attrib["classname"] for c in suite.iter("testcase")} == {"edgeprune.door.n100"}


def test_fail_is_a_failure_and_inconclusive_an_error() -> None:
    root = parsed(render_junit(make_judgement(accuracy=make_accuracy(300), measurement=None), "x"))
    assert {f.attrib["type"] for f in root.iter("failure")} == {"FAIL"}
    assert [e.attrib for e in root.iter("error")] == [{"type": "INCONCLUSIVE", "message": "not measured"}] * 3
    assert (root.attrib["failures"], root.attrib["errors"]) == ("2", "3")


def test_invalid_is_an_error() -> None:
    gate = replace(make_judgement().gates[0], verdict=Verdict.INVALID)
    root = parsed(render_junit(Judgement(verdict=Verdict.INVALID, gates=(gate,)), "x"))
    assert [e.attrib["type"] for e in root.iter("error")] == ["INVALID"]


def test_properties_keep_the_numbers() -> None:
    judgement = make_judgement()
    properties = {p.attrib["name"]: p.attrib["value"] for p in parsed(render_junit(judgement, "x")).iter("property")}
    p99 = next(g for g in judgement.gates if g.gate == "p99")
    assert properties["verdict"] == "PASS"
    assert properties["p99.limit"] == "3.4 ms"
    assert float(properties["p99.bound"].split()[0]) == p99.bound


@pytest.mark.parametrize("reason", ["a < b & \"c\" ]]> 'd'", "bell \x07 and \x00", "\ud800", "é 漢 😀"])
def test_any_text_gives_valid_xml(reason: str) -> None:
    gate = replace(make_judgement().gates[0], verdict=Verdict.FAIL, reason=reason)
    text = render_junit(Judgement(verdict=Verdict.FAIL, gates=(gate,)), "x")
    failure = next(parsed(text.encode()).iter("failure"))
    kept = "".join(c if c.isprintable() else "\ufffd" for c in reason)
    assert failure.attrib["message"] == kept
