"""Peak resident memory on the device, held to `Limits.memory_bytes`."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Gate
from edgeprune.records.measurement import MemoryProof
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import Evidence, GateResult, Verdict
from edgeprune.units import format_mb, mb_from_bytes

_RESERVED = "RLIMIT_DATA"
"""It counts memory that is reserved and never touched as well: dying under it does not prove too high a peak."""


class MemoryGate:
    """PASS where no process that was measured ever held more than the limit, and none died under it.

    `Limits.memory_of` says whose memory: of the process (VmHWM, the runtime included), or of the model (less the
    runtime's peak without a model).
    """

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge the largest process; None where the budget sets no limit."""
        limits = evidence.limits
        if limits.memory_bytes is None:
            return None
        blocks = evidence.measurement.all_blocks if evidence.measurement else ()
        if not blocks:
            return _result(Verdict.INCONCLUSIVE, None, limits.memory_bytes, "not measured")
        peak = max(b.peak_bytes if limits.memory_of == "process" else b.model_bytes for b in blocks)
        over = peak > limits.memory_bytes or _too_much(evidence.memory_proof)
        reason = (
            f"the {limits.memory_of} takes {format_mb(peak)} at most in {len(blocks)} processes"
            f"{_proof_text(evidence.memory_proof, limits)}"
        )
        return _result(Verdict.FAIL if over else Verdict.PASS, peak, limits.memory_bytes, reason)


def _too_much(proof: MemoryProof | None) -> bool:
    return proof is not None and proof.how not in {"", _RESERVED} and not proof.survived


def _proof_text(proof: MemoryProof | None, limits: Limits) -> str:
    if proof is None or (proof.limit_bytes, proof.of) != (limits.memory_bytes, limits.memory_of):
        return ""
    if not proof.how:
        return f"; no way to limit here: {proof.reason}"
    under = f"under {format_mb(proof.limit_bytes)} ({proof.how})"
    if proof.survived:
        return f"; proved {under}"
    hint = ": it counts what is reserved, not what is touched" if proof.how == _RESERVED else ""
    return f"; not proved {under}{hint}: {proof.reason}"


def _result(verdict: Verdict, peak_bytes: int | None, limit_bytes: int, reason: str) -> GateResult:
    measured = None if peak_bytes is None else mb_from_bytes(peak_bytes)
    return GateResult(
        gate="memory",
        verdict=verdict,
        measured=measured,
        bound=measured,
        limit=mb_from_bytes(limit_bytes),
        unit="MB",
        reason=reason,
    )


GATE: Final[Gate] = MemoryGate()
