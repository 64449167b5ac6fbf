"""A judgement as a table that reads well in a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.records.verdict import GateResult, Judgement, Verdict

_MARKS = {
    Verdict.PASS: "✅",
    Verdict.FAIL: "❌",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.INVALID: "⚠️",
}
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_[]|<>#~"})


def render_markdown(judgement: Judgement, title: str, facts: Sequence[tuple[str, str]] = ()) -> str:
    """The verdict, one row a gate, and facts such as the artifact's digest below.

    Args:
        judgement: what the gates said.
        title: what was judged, such as `door on n100`.
        facts: (name, value) pairs, each a line of a list.

    Returns:
        GitHub-flavoured Markdown that ends with a newline. Texts are escaped: they cannot break the table, nor add
        links or HTML.
    """
    lines = [
        f"### {_MARKS[judgement.verdict]} {judgement.verdict}: {_escape(title)}",
        "",
        "| | gate | measured | decided by | limit | why |",
        "|---|---|---:|---:|---:|---|",
        *(_row(gate) for gate in judgement.gates),
    ]
    if not judgement.gates:
        lines[2:] = ["No limit is set, so no gate had anything to judge."]
    if facts:
        lines += ["", *(f"- {_escape(name)}: {_escape(value)}" for name, value in facts)]
    return "\n".join(lines) + "\n"


def _row(gate: GateResult) -> str:
    cells = (
        f"{_MARKS[gate.verdict]} {gate.verdict}",
        _escape(gate.gate),
        _value(gate.measured, gate.unit),
        _value(gate.bound, gate.unit),
        _value(gate.limit, gate.unit),
        _escape(gate.reason),
    )
    return f"| {' | '.join(cells)} |"


def _value(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.4g} {unit}"


def _escape(text: str) -> str:
    return " ".join(text.translate(_SPECIAL).split())
