"""A judgement as a short table that reads well in a pull request."""

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
    """The verdict, one row a gate, why a gate did not pass, and facts such as the device, folded away.

    Args:
        judgement: what the gates said.
        title: what was judged, such as `door on n100`.
        facts: (name, value) pairs.

    Returns:
        GitHub-flavoured Markdown that ends with a newline. Texts are escaped: they cannot break the table, nor add
        links or HTML.
    """
    lines = [f"### {_MARKS[judgement.verdict]} {judgement.verdict}: {escape(title)}", ""]
    if not judgement.gates:
        lines += ["No limit is set, so no gate had anything to judge."]
    else:
        lines += ["| | gate | measured | decided by | limit |", "|---|---|---:|---:|---:|"]
        lines += [_row(gate) for gate in judgement.gates]
    missed = [gate for gate in judgement.gates if gate.verdict is not Verdict.PASS]
    if missed:
        lines += ["", *(f"- **{escape(g.gate)} {g.verdict}**: {escape(g.reason)}" for g in missed)]
    lines += _details(judgement, facts)
    return "\n".join(lines) + "\n"


def _details(judgement: Judgement, facts: Sequence[tuple[str, str]]) -> list[str]:
    """What few readers need each time: how the passed gates were decided, and what was measured where."""
    passed = [(g.gate, g.reason) for g in judgement.gates if g.verdict is Verdict.PASS]
    shown = [f"- {escape(name)}: {escape(value)}" for name, value in (*facts, *passed)]
    return ["", "<details><summary>How it was measured</summary>", "", *shown, "", "</details>"] if shown else []


def _row(gate: GateResult) -> str:
    cells = (
        f"{_MARKS[gate.verdict]} {gate.verdict}",
        escape(gate.gate),
        _value(gate.measured, gate.unit),
        _value(gate.bound, gate.unit),
        _value(gate.limit, gate.unit),
    )
    return f"| {' | '.join(cells)} |"


def _value(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.4g} {unit}"


def escape(text: str) -> str:
    """A text that cannot break a table, nor add links or HTML."""
    return " ".join(text.translate(_SPECIAL).split())
