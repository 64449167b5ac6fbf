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


# What the schema of Jenkins' xUnit plugin allows: attributes (required ones with *) and children, by element. The
# schema that GitLab, CircleCI and Azure take is no stricter where ours is concerned.
SCHEMA = {
    "testsuites": ("name time tests failures disabled errors", "testsuite"),
    "testsuite": (
        "name* tests* failures errors time disabled skipped timestamp hostname id package",
        "properties testcase system-out system-err",
    ),
    "properties": ("", "property"),
    "property": ("name* value", ""),
    "testcase": ("name* assertions time classname* status", "skipped error failure system-out system-err"),
    "failure": ("type message", ""),
    "error": ("type message", ""),
    "system-out": ("", ""),
}


def violations(element: ET.Element) -> list[str]:
    if element.tag not in SCHEMA:
        return [f"no element {element.tag}"]
    attributes, children = (text.split() for text in SCHEMA[element.tag])
    required = {a[:-1] for a in attributes if a.endswith("*")}
    known = {a.rstrip("*") for a in attributes}
    found = [f"{element.tag}: no attribute {a}" for a in element.attrib if a not in known]
    found += [f"{element.tag}: needs {a}" for a in required - element.attrib.keys()]
    found += [f"{element.tag}: no child {c.tag}" for c in element if c.tag not in children]
    # The older schemas have sequences: properties first, then the cases.
    order = [children.index(c.tag) for c in element if c.tag in children]
    found += [f"{element.tag}: children out of order"] if order != sorted(order) else []
    for name in ("tests", "failures", "errors", "skipped", "time"):
        if not element.attrib.get(name, "0").isdigit():
            found.append(f"{element.tag}: {name} is no number")
    return found + [v for child in element for v in violations(child)]


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_file_has_the_shape_that_jenkins_checks(verdict: Verdict) -> None:
    gates = tuple(replace(g, verdict=verdict) for g in make_judgement().gates)
    for judgement in (Judgement(verdict=verdict, gates=gates), Judgement(verdict=verdict, gates=())):
        root = parsed(render_junit(judgement, "door"))
        assert violations(root) == []
        suite = root.find("testsuite")
        assert suite is not None
        for name in ("tests", "failures", "errors"):
            assert root.attrib[name] == suite.attrib[name]
        assert int(root.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(root.attrib["failures"]) == len(list(root.iter("failure")))
        assert int(root.attrib["errors"]) == len(list(root.iter("error")))


def test_the_schema_check_finds_what_is_wrong() -> None:
    suite = '<testsuite name="x" tests="a"><testcase name="y"/><properties/></testsuite>'
    text = f'<testsuites skipped="0">{suite}</testsuites>'
    assert violations(parsed(text)) == [
        "testsuites: no attribute skipped",
        "testsuite: children out of order",
        "testsuite: tests is no number",
        "testcase: needs classname",
    ]
