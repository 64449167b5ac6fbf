"""A judgement as JUnit XML: the one format that every CI system shows."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET  # only written here, never parsed

from edgeprune.records.verdict import GateResult, Judgement, Verdict

# What XML 1.0 cannot hold, not even as a reference.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(judgement: Judgement, suite: str) -> str:
    """One test case a gate.

    PASS is a passed test and FAIL a failure. INCONCLUSIVE and INVALID are errors, as nothing is known of the model:
    a CI system must not show them as passed, nor as a model that is too slow.

    Args:
        judgement: what the gates said.
        suite: name of the suite, such as `door.n100`.

    Returns:
        An XML document with a declaration.
    """
    counts = {
        "tests": str(len(judgement.gates)),
        "failures": str(sum(g.verdict is Verdict.FAIL for g in judgement.gates)),
        "errors": str(sum(_is_error(g) for g in judgement.gates)),
        "time": "0",
    }
    name = _clean(suite)
    root = ET.Element("testsuites", {"name": name, **counts})
    # The schema of Jenkins' xUnit plugin knows `skipped` on a suite alone.
    element = ET.SubElement(root, "testsuite", {"name": name, **counts, "skipped": "0"})
    properties = ET.SubElement(element, "properties")
    _property(properties, "verdict", judgement.verdict)
    for gate in judgement.gates:
        for key, value in (("measured", gate.measured), ("bound", gate.bound), ("limit", gate.limit)):
            if value is not None:
                _property(properties, f"{gate.gate}.{key}", f"{value!r} {gate.unit}")
    for gate in judgement.gates:
        _case(element, gate, name)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(suite: ET.Element, gate: GateResult, suite_name: str) -> None:
    case = ET.SubElement(
        suite, "testcase", {"classname": f"edgeprune.{suite_name}", "name": _clean(gate.gate), "time": "0"}
    )
    reason = _clean(gate.reason)
    if gate.verdict is not Verdict.PASS:
        tag = "error" if _is_error(gate) else "failure"
        found = ET.SubElement(case, tag, {"type": gate.verdict.value, "message": reason})
        found.text = f"{gate.verdict}: {reason} (limit {gate.limit:.4g} {_clean(gate.unit)})"
    else:
        ET.SubElement(case, "system-out").text = reason


def _is_error(gate: GateResult) -> bool:
    return gate.verdict in {Verdict.INCONCLUSIVE, Verdict.INVALID}


def _property(properties: ET.Element, name: str, value: str) -> None:
    ET.SubElement(properties, "property", {"name": _clean(name), "value": _clean(value)})


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
