from __future__ import annotations

from dataclasses import replace

import pytest
from records_for_tests import make_block, make_evidence, make_measurement

from edgeprune.gating.judge import judge
from edgeprune.records.measurement import MemoryProof
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import GateResult, Verdict

LIMIT = 110_000_000


def _judged(limits: Limits, proof: MemoryProof | None = None) -> GateResult:
    (found,) = (g for g in judge(replace(make_evidence(limits), memory_proof=proof)).gates if g.gate == "memory")
    return found


def _proof(how: str, *, survived: bool, reason: str = "") -> MemoryProof:
    return MemoryProof(limit_bytes=LIMIT, of="process", how=how, survived=survived, reason=reason)


def test_of_the_model_leaves_out_what_the_runtime_takes() -> None:
    # Blocks of 104.5 to 105.4 MB, 88 MB of them before loading.
    found = _judged(Limits(memory_bytes=18_000_000, memory_of="model"))
    assert found.verdict is Verdict.PASS
    assert found.measured == pytest.approx(17.4)
    assert "the model takes 17.4 MB at most" in found.reason
    assert _judged(Limits(memory_bytes=17_000_000, memory_of="model")).verdict is Verdict.FAIL
    assert _judged(Limits(memory_bytes=17_000_000)).verdict is Verdict.FAIL


def test_the_reason_says_whether_it_was_proved() -> None:
    limits = Limits(memory_bytes=LIMIT)
    assert "proved" not in _judged(limits).reason
    proved = _judged(limits, _proof("RLIMIT_DATA", survived=True))
    assert proved.reason.endswith("; proved under 110 MB (RLIMIT_DATA)")
    nothing = _judged(limits, _proof("", survived=False, reason="an old kernel"))
    assert (nothing.verdict, nothing.reason.split("; ")[1]) == (Verdict.PASS, "no way to limit here: an old kernel")


def test_dying_in_a_cgroup_fails_and_dying_by_what_is_only_reserved_does_not() -> None:
    limits = Limits(memory_bytes=LIMIT)
    killed = _judged(limits, _proof("cgroup v2", survived=False, reason="ended by SIGKILL"))
    assert (killed.verdict, "not proved under 110 MB (cgroup v2): ended by" in killed.reason) == (Verdict.FAIL, True)
    reserved = _judged(limits, _proof("RLIMIT_DATA", survived=False, reason="bad_alloc"))
    assert reserved.verdict is Verdict.PASS
    assert "it counts what is reserved, not what is touched: bad_alloc" in reserved.reason


def test_a_proof_of_another_limit_says_nothing() -> None:
    other = replace(_proof("RLIMIT_DATA", survived=True), limit_bytes=1)
    assert "proved" not in _judged(Limits(memory_bytes=LIMIT), other).reason


def test_an_artifact_that_was_not_measured_is_inconclusive() -> None:
    evidence = replace(make_evidence(Limits(memory_bytes=LIMIT)), measurement=None)
    assert judge(evidence).verdict is Verdict.INCONCLUSIVE


def test_the_models_own_share_is_never_negative() -> None:
    assert make_block(base_bytes=200_000_000).model_bytes == 0
    assert len(make_measurement().all_blocks) == 10
