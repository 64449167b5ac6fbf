"""Two artifacts measured in turn on one device: `edgeprune bench A --compare B`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeprune.benchmarking.sampling import (
    Look,
    MeasureBlock,
    Patience,
    Sampled,
    Schedule,
    plan_schedule,
    sample_until_certain,
)
from edgeprune.benchmarking.validity import Watch
from edgeprune.comparison import LEAST_ROUNDS, percentile_ratios
from edgeprune.errors import InputError, MeasurementError
from edgeprune.events import Reporter
from edgeprune.records.comparison import CompareResult, Ratio
from edgeprune.records.measurement import Block, Measurement
from edgeprune.records.verdict import Verdict
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.statistics import quantile
from edgeprune.steps.benching import ESTIMATE_RUNS, noise_inputs
from edgeprune.steps.calibrations import smallest_resolvable
from edgeprune.steps.health import ready_session
from edgeprune.steps.measuring import Subject, Told
from edgeprune.steps.session import DeviceSession

PERCENTS = (50.0, 99.0)
ROUNDS = 10
"""Fresh processes of each artifact: the bootstrap draws rounds, and fewer tell little about how processes differ."""
_FIRST, _SECOND = "first", "second"
_RETRIES_PER_ROUND = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An artifact on the device."""

    subject: Subject
    path: str
    samples_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """How two artifacts are measured against one another.

    Attributes:
        rounds: a fresh process of each, in alternating order: AB, BA, AB, ...
        runs: timed runs a process.
        watch: judges the blocks of all fights, so that a slow core shows beside the earlier ones.
    """

    session: DeviceSession
    policy: MeasurementPolicy
    rounds: int
    runs: int
    told: Told
    watch: Watch = field(default_factory=Watch)

    def fight(self, first: Placed, second: Placed) -> tuple[Measurement, Measurement]:
        """Measure all rounds; a disturbed round is measured again. Holds the lease meanwhile.

        Raises:
            MeasurementError: the device stays disturbed, others hold it, or the time allowed is over.
        """
        look = Look(processes_total=self.rounds, runs_per_process=self.runs)
        schedule = Schedule(looks=(look,), confidence_per_look=self.policy.confidence)
        patience = Patience(time_limit_s=self.policy.time_limit_s, max_retries=_RETRIES_PER_ROUND * self.rounds)
        series = {_FIRST: self._series(first), _SECOND: self._series(second)}
        # One look after a number of rounds that was fixed before: nothing is decided on the way.
        with self.session.leased(self.told.note):
            sampled = sample_until_certain(schedule, series, _undecided, self.watch.disturbance, patience)
        self._require_all(sampled)
        return self._record(sampled, _FIRST, first), self._record(sampled, _SECOND, second)

    def _series(self, placed: Placed) -> MeasureBlock:
        def measure_block(_attempt: int) -> Block:
            block = self.session.block(placed.subject.rung, placed.path, placed.samples_path, self.runs)
            self.told.one_more(self.watch.disturbance(block))
            return block

        return measure_block

    def _require_all(self, sampled: Sampled) -> None:
        series = sampled.of(_FIRST)
        if len(series.blocks) < self.rounds:
            why = f": {series.disturbed[-1].reason}" if series.disturbed else ""
            raise MeasurementError(
                f"device {self.session.spec.name}: {len(series.blocks)} of {self.rounds} rounds were measured "
                f"undisturbed within {self.policy.time_limit_s:g} s{why}",
                kind="disturbed",
            )

    def _record(self, sampled: Sampled, name: str, placed: Placed) -> Measurement:
        series, rung = sampled.of(name), placed.subject.rung
        return Measurement(
            artifact_digest=placed.subject.artifact.digest,
            runtime=rung.runtime,
            precision=rung.precision,
            threads=rung.threads,
            cpus=rung.cpus,
            device=self.session.facts,
            blocks=series.blocks,
            disturbed=series.disturbed,
            confidence=self.policy.confidence,
        )


def compare_artifacts(
    subjects: tuple[Subject, Subject],
    device: DeviceSpec,
    policy: MeasurementPolicy,
    reporter: Reporter,
    *,
    rounds: int = ROUNDS,
) -> CompareResult:
    """Measure two artifacts in turn within one session; the ratios are first over second.

    Raises:
        InputError: fewer than five rounds.
        DeployError: the device could not be reached or could not take the files.
        MeasurementError: one does not run there, or the device stays disturbed.
    """
    require_rounds(rounds)
    first, second = subjects
    with ready_session(device) as session:
        placed = (place(session, first), place(session, second))
        shown = f"{first.artifact.files[0].name} / {second.artifact.files[0].name}"
        told = Told(reporter, shown, 2 * rounds)
        with session.leased(told.note), told:
            runs = runs_per_process(session, placed, policy)
            measured = Duel(session=session, policy=policy, rounds=rounds, runs=runs, told=told).fight(*placed)
    fingerprint = session.facts.fingerprint
    places = {first.rung.runtime, second.rung.runtime}, {first.rung.cpus, second.rung.cpus}
    return CompareResult(
        device=device.name,
        first_artifact=first.artifact,
        second_artifact=second.artifact,
        first=measured[0],
        second=measured[1],
        ratios=ratios(*measured),
        smallest=tuple((p, smallest_resolvable(device.name, fingerprint, p, *places)) for p in PERCENTS),
    )


def require_rounds(rounds: int) -> None:
    """Refuse too few.

    Raises:
        InputError: fewer than five.
    """
    if rounds < LEAST_ROUNDS:
        raise InputError(f"rounds: expected at least {LEAST_ROUNDS}, got {rounds}")


def place(session: DeviceSession, subject: Subject) -> Placed:
    """Send an artifact and noise for its input."""
    session.require(subject.rung.runtime)
    return Placed(
        subject=subject,
        path=session.place(subject.folder, subject.artifact),
        samples_path=session.place_samples(noise_inputs(subject)),
    )


def runs_per_process(session: DeviceSession, placed: tuple[Placed, ...], policy: MeasurementPolicy) -> int:
    """The same number for all, long enough for the fastest; known before the first counted sample."""
    estimates = [
        quantile(session.block(p.subject.rung, p.path, p.samples_path, ESTIMATE_RUNS).samples_ns, 0.5) for p in placed
    ]
    return plan_schedule(policy, min(estimates)).looks[0].runs_per_process


def ratios(first: Measurement, second: Measurement) -> tuple[Ratio, ...]:
    """Of p50 and p99, first over second, from the raw samples alone."""
    ours, theirs = ([b.samples_ns for b in m.blocks] for m in (first, second))
    return percentile_ratios(ours, theirs, PERCENTS, first.confidence)


def _undecided(_blocks: Mapping[str, tuple[Block, ...]], _confidence: float) -> Verdict:
    return Verdict.INCONCLUSIVE
