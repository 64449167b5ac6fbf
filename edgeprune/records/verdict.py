"""What a gate says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from edgeprune.records.accuracy import Accuracy, ScoreFloor
from edgeprune.records.measurement import Measurement, MemoryProof
from edgeprune.records.rung import Limits
from edgeprune.records.shares import ShareFloor


class Verdict(StrEnum):
    """PASS, FAIL, INCONCLUSIVE (too few samples to say), INVALID (the device was disturbed)."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"

    @property
    def exit_code(self) -> int:
        """0, 7, 8 or 9."""
        return _EXIT_CODES[self]


_EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 7, Verdict.INCONCLUSIVE: 8, Verdict.INVALID: 9}
_GRAVITY = (Verdict.FAIL, Verdict.INVALID, Verdict.INCONCLUSIVE, Verdict.PASS)


def worst_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """FAIL before INVALID before INCONCLUSIVE before PASS; PASS for none at all."""
    found = set(verdicts)
    return next((v for v in _GRAVITY if v in found), Verdict.PASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """The accuracy that must be kept, in absolute terms, in [0, 1]; None where the target sets none.

    Attributes:
        metric: of the target's own metric in place of accuracy, in its own unit: the least value, or the most where
            lower is better.
        worst_class_recall: of every class.
        classes: of each class's recall by itself, from the dense model's recall of that class.
        slices: of accuracy on named parts of the data.
        robustness: of accuracy under each corruption.
        slice_scores, robustness_scores: of the target's own metric there, where an example has not one class.
    """

    accuracy: float | None = None
    worst_class_recall: float | None = None
    metric: float | None = None
    classes: tuple[ShareFloor, ...] = ()
    slices: tuple[ShareFloor, ...] = ()
    robustness: tuple[ShareFloor, ...] = ()
    slice_scores: tuple[ScoreFloor, ...] = ()
    robustness_scores: tuple[ScoreFloor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedups:
    """Limits relative to the baseline's latency; None where the profile sets none."""

    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release that was measured before, on the same device, and what may be lost against it.

    Attributes:
        measurement: of the release's artifact.
        baseline: the dense model, measured in turn with it.
        max_regression: how much slower is allowed, as a share: 0.05 is five percent.
        remark: what the gate's reason says besides, such as that nobody knows what the device resolves.
    """

    name: str
    measurement: Measurement
    baseline: Measurement
    max_regression: float
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a judgement rests on. Nothing else is read by a gate.

    Attributes:
        limits: absolute ones. Where `speedups` sets a limit, the judge computes it from the baseline's raw samples.
        baseline: the dense float32 model, measured in the same campaign, block by block in turn with the candidate.
        measurement: of the artifact that is judged; None before it was measured.
        accuracy: of the compiled artifact on the validation split.
        artifact_bytes: sum of the artifact's files.
        memory_proof: whether it ran under the memory limit; None where nobody tried.
        release: to compare with; None where none is asked for.
    """

    limits: Limits
    floors: Floors
    artifact_bytes: int
    measurement: Measurement | None = None
    accuracy: Accuracy | None = None
    speedups: Speedups = Speedups()
    baseline: Measurement | None = None
    memory_proof: MemoryProof | None = None
    release: Release | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate says, with the numbers it says it from.

    Attributes:
        measured: the point value, in `unit`.
        bound: the value that decided: a confidence bound where there is one, else the point value.
        limit: what the gate holds it to.
    """

    gate: str
    verdict: Verdict
    measured: float | None
    bound: float | None
    limit: float
    unit: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict over all gates."""

    verdict: Verdict
    gates: tuple[GateResult, ...]
