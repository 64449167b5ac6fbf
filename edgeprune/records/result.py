"""What a build ends with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Artifact, Parity
from edgeprune.records.changes import AnswerChanges, ScoreChanges
from edgeprune.records.control import Control
from edgeprune.records.measurement import LatencySummary, Measurement, Percentile
from edgeprune.records.model_card import Making, Reading, SplitIdentity
from edgeprune.records.quantization import VariantSearch
from edgeprune.records.rung import GroupWidth, Plan, Rung
from edgeprune.records.verdict import Judgement, Verdict


class CandidateStatus(StrEnum):
    """How far a candidate came."""

    DENSE = "dense"
    """The baseline; it is measured, not judged."""
    CHOSEN = "chosen"
    REJECTED = "rejected"
    """Measured and judged, and a gate did not say PASS."""
    FAILED = "failed"
    """It could not be made or measured; `reason` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A compressed model on its way. A failed one is a value with its reason, not an exception.

    Attributes:
        folder: of its steps, relative to the run folder: artifact, manifest, measurement, accuracy.
        validation: accuracy of the compiled artifact on the validation split.
        train: accuracy of the compiled artifact on training examples, as many as the validation split has.
        test: accuracy of the compiled artifact on the test split; this and `train` only for the dense and the chosen
            model.
        percentiles: p50, p90, p99 of its measurement.
        load_ms: median over the processes.
        seconds: wall-clock time that this build spent on it.
        making: how it was pruned and recovered.
        variants: the quantization variants that were tried on it; None where the default was good enough.
    """

    rung: Rung
    status: CandidateStatus
    reason: str
    folder: str
    artifact: Artifact | None = None
    parity: Parity | None = None
    measurement: Measurement | None = None
    percentiles: tuple[Percentile, ...] = ()
    validation: Accuracy | None = None
    train: Accuracy | None = None
    test: Accuracy | None = None
    judgement: Judgement | None = None
    widths: tuple[GroupWidth, ...] = ()
    parameters: int | None = None
    macs: int | None = None
    load_ms: float | None = None
    seconds: float = 0.0
    making: Making | None = None
    variants: VariantSearch | None = None

    def percentile_ms(self, percent: float) -> float | None:
        """The point value of a percentile, where measured."""
        return next((p.value_ms for p in self.percentiles if p.percent == percent), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """What `edgeprune.bench` returns.

    Attributes:
        percentiles: of the pooled raw samples, each with a two-sided bound; none where every block was disturbed.
        load_ms: median over the processes; None where every block was disturbed.
        judgement: over the limits that were given; PASS without any gate when there were none, INVALID where the
            device stayed disturbed.
        summary: of the same samples; None where every block was disturbed.
    """

    artifact: Artifact
    device: str
    measurement: Measurement
    percentiles: tuple[Percentile, ...]
    load_ms: float | None
    judgement: Judgement
    summary: LatencySummary | None = None
    schema: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """How long one step took, for the report; `cached` where an earlier build took it."""

    step: str
    seconds: float
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """The record that `edgeprune.build` returns, `summary.json` holds and the command prints.

    Attributes:
        dense: the fastest dense float32 model on this device: the baseline of every ratio.
        chosen: the candidate that passed; None when none did.
        candidates: all that were tried, in order, the chosen one included.
        folder: the run folder, absolute.
        verdict: of the chosen candidate; else of the nearest miss.
        parameters, macs: of the dense model.
        data: which data it was built from.
        test_readings: how often the test split was read in this run folder, this build included.
        controls: that were asked for, beside the chosen model; where there is none, why they were not made.
        changes: answers of the chosen model, or the nearest miss, that are not the dense model's.
    """

    target: str
    profile: str
    device: str
    verdict: Verdict
    dense: Candidate
    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    plan: Plan
    folder: str
    seconds: float
    timeline: tuple[TimelineEntry, ...]
    seed: int
    versions: tuple[tuple[str, str], ...]
    data: tuple[SplitIdentity, ...] = ()
    test_readings: tuple[Reading, ...] = ()
    controls: tuple[Control, ...] = ()
    changes: AnswerChanges | ScoreChanges | None = None
    schema: int = 1

    @property
    def exit_code(self) -> int:
        """0 when a candidate passed; 8 or 9 when the nearest miss was undecided or disturbed; else 3, no plan fits."""
        return 3 if self.verdict is Verdict.FAIL else self.verdict.exit_code
