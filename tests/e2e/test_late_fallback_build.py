"""A build whose full widths fit with room to spare, and whose tail is too long on the device all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from targets_for_tests import make_target, until_quiet

import edgeprune
from edgeprune.gating.judge import judge
from edgeprune.records.rung import PruningKind
from edgeprune.records.verdict import Evidence, Judgement, Verdict
from edgeprune.steps import candidates


def with_a_long_tail(evidence: Evidence) -> Judgement:
    """What the judge says, with a p99 that is a hair over its limit."""
    found = judge(evidence)
    gates = tuple(
        replace(g, verdict=Verdict.FAIL, measured=1.0001 * g.limit) if g.gate == "p99" else g for g in found.gates
    )
    return Judgement(verdict=Verdict.FAIL, gates=gates)


def test_narrower_widths_are_searched_for_when_the_full_ones_failed_by_their_latency(tmp_path: Path) -> None:
    made = make_target(tmp_path, target={"pruning.ignored": None})
    with pytest.MonkeyPatch.context() as patch:
        # Which tail a device has nobody can order.
        patch.setattr(candidates, "judge", with_a_long_tail)
        result = until_quiet(lambda: edgeprune.build(made.folder, output=made.runs))
    assert result.verdict is Verdict.FAIL
    full, *late = result.plan.rungs
    assert full.rung.pruning is PruningKind.NONE
    narrowed = [r for r in late if r.rung.pruning is PruningKind.STRUCTURED]
    assert narrowed
    assert all(r.reason.endswith(f"searched for after {full.rung.name} failed p99") for r in narrowed)
    assert any("failed p99; narrower widths were searched for then" in note for note in result.plan.notes)
    tried = [c.rung for c in result.candidates]
    assert [r for r in tried if r.pruning is PruningKind.STRUCTURED] == [
        r.rung for r in narrowed if r.status == "planned"
    ]
