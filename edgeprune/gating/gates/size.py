"""Size of the artifact's files, held to `Limits.artifact_bytes`."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult, Verdict
from edgeprune.units import format_mb, mb_from_bytes


class SizeGate:
    """PASS where the artifact's files together are no larger than the limit."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge the sum of the files; None where the budget sets no limit."""
        limit = evidence.limits.artifact_bytes
        if limit is None:
            return None
        size = evidence.artifact_bytes
        return GateResult(
            gate="size",
            verdict=Verdict.PASS if size <= limit else Verdict.FAIL,
            measured=mb_from_bytes(size),
            bound=mb_from_bytes(size),
            limit=mb_from_bytes(limit),
            unit="MB",
            reason=f"the artifact's files are {format_mb(size)}",
        )


GATE: Final[Gate] = SizeGate()
