from __future__ import annotations

from dataclasses import replace

import pytest
from records_for_tests import make_accuracy, make_evidence, make_measurement

from edgeprune.gating.judge import judge
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import Floors, Verdict


def test_all_gates_pass() -> None:
    judgement = judge(make_evidence())
    assert judgement.verdict is Verdict.PASS
    assert [g.gate for g in judgement.gates] == ["accuracy", "memory", "p50", "p99", "size", "worst_class"]


def test_only_gates_with_a_limit_speak() -> None:
    judgement = judge(make_evidence(Limits(p99_ms=9.0), Floors()))
    assert [g.gate for g in judgement.gates] == ["p99"]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"accuracy": make_accuracy(300)}, Verdict.FAIL),
        ({"accuracy": None}, Verdict.INCONCLUSIVE),
        ({"measurement": None}, Verdict.INCONCLUSIVE),
        ({"measurement": None, "accuracy": make_accuracy(300)}, Verdict.FAIL),
        ({"measurement": make_measurement(p50_ms=5.0)}, Verdict.FAIL),
    ],
)
def test_the_worst_gate_decides(changes: dict[str, object], verdict: Verdict) -> None:
    assert judge(replace(make_evidence(), **changes)).verdict is verdict  # type: ignore[arg-type]
