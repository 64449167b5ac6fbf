"""Peak resident memory on the device, held to `Limits.memory_bytes`."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult, Verdict
from edgeprune.units import format_mb, mb_from_bytes


class MemoryGate:
    """PASS where no process that was measured ever held more than the limit (VmHWM, the runtime included)."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge the largest process; None where the budget sets no limit."""
        limit = evidence.limits.memory_bytes
        if limit is None:
            return None
        measurement = evidence.measurement
        # A busy neighbour does not change a process's own memory, so disturbed blocks count here.
        blocks = (*measurement.blocks, *(d.block for d in measurement.disturbed)) if measurement else ()
        peak = max((b.peak_bytes for b in blocks), default=None)
        if peak is None:
            return _result(Verdict.INCONCLUSIVE, None, limit, "not measured")
        verdict = Verdict.PASS if peak <= limit else Verdict.FAIL
        return _result(verdict, peak, limit, f"{format_mb(peak)} at most in {len(blocks)} processes")


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
