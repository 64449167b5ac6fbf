"""The sparsity probe on a device: micro-models compiled once, sent in one file, and timed in turn by one process.

One process, because starting Python and a runtime takes longer than timing a micro-model, and tenfold so on a slow
device; in turn, so that what slows the device slows the dense files and those with zeros alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.benchmarking.validity import disturbance
from edgeprune.deployment.inventory import config_folder
from edgeprune.errors import BuildError, MeasurementError
from edgeprune.files import write_atomically
from edgeprune.profiling.sparsity import (
    PATTERNS,
    ROUNDS,
    MicroKind,
    Variant,
    micro_model,
    probe_gains,
    variants_of,
)
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.measurement import Block
from edgeprune.records.profiled import ProfileRequest
from edgeprune.records.rung import PruningKind, Rung
from edgeprune.records.sparsity import GainStatus, SparsityProbe
from edgeprune.statistics import quantile
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions
from edgeprune.steps.session import DeviceSession
from edgeprune.store.run_folder import digest
from edgeprune.units import NS_PER_S, format_seconds, ms_from_ns
from edgeprune.zero_patterns import UNSTRUCTURED

if TYPE_CHECKING:
    import numpy as np

METHOD = 2
"""To be raised when micro-models or the way to time them change: what was measured before is not comparable."""

_ROUND_S = 0.1
_LEAST_ROUNDS = 3
# Where it is quick, a disturbed trip is taken again once.
_QUICK_NS = 30 * NS_PER_S
# Of files on one trip: a runtime holds about twice as much, and small devices have 512 MB.
_TRIP_BYTES = 64_000_000
_TELL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """What one probe needs.

    Attributes:
        rung: runtime, threads and precision, without pruning.
        rounds: of every file, on each trip.
        claims: patterns that are said to gain, which are measured at every share, as unstructured zeros are; of the
            others the strongest is enough.
        exhaustive: measure every share, those too that a stronger one rules out.
        tell: hears how far it is.
    """

    session: DeviceSession
    rung: Rung
    kind: MicroKind
    patterns: tuple[str, ...] = PATTERNS
    claims: tuple[str, ...] = ()
    rounds: int = ROUNDS
    exhaustive: bool = False
    tell: Callable[[str], None]

    @property
    def name(self) -> str:
        """Of the runtime, threads and micro-model."""
        return f"{self.rung.name}-{self.kind.name}"

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What may be measured."""
        found, asked = variants_of(self.patterns), (UNSTRUCTURED, *self.claims)
        strongest = {v.pattern: v.share for v in sorted(found, key=lambda v: v.share)}
        return tuple(v for v in found if self.exhaustive or v.pattern in asked or v.share == strongest[v.pattern])

    @property
    def key(self) -> str:
        """Digest of all that the outcome depends on."""
        facts = self.session.facts
        versions = compiler_versions(self.rung)
        variants = sorted(v.name for v in self.variants)
        return digest(METHOD, facts.fingerprint, self.name, versions, variants, self.exhaustive)


def kept_probe(job: ProbeJob, folder: Path) -> SparsityProbe:
    """The probe kept beside the inventory for this device, runtime and micro-model; else a new one, which is kept.

    A disturbed one is not kept.

    Args:
        job: what to measure.
        folder: for the compiled files.
    """
    path = config_folder() / "sparsity" / job.session.spec.name / f"{job.name}-{job.key[:16]}.json"
    if path.exists():
        try:
            return from_json(SparsityProbe, path.read_bytes())
        except BuildError as error:
            job.tell(f"{path} is damaged and is measured anew: {error.message}")
    probe = run_probe(job, folder)
    if not probe.disturbed:
        write_atomically(path, to_json(probe, indent=1))
    return probe


def run_probe(job: ProbeJob, folder: Path) -> SparsityProbe:
    """Measure; nothing is read or kept.

    Raises:
        BuildError: a micro-model cannot be compiled.
        MeasurementError: it cannot be run there, or the device is busy or went away.
    """
    looker = _Looker(job, folder)
    gains = probe_gains(job.variants, looker.rounds_ms, together=looker.together, exhaustive=job.exhaustive)
    facts = job.session.facts
    return SparsityProbe(
        device=job.session.spec.name,
        fingerprint=facts.fingerprint,
        runtime=job.rung.runtime,
        runtime_version=facts.runtime_version(job.rung.runtime) or "",
        threads=job.rung.threads,
        cpus=job.rung.cpus,
        kind=job.kind.name,
        compilers=compiler_versions(job.rung),
        dense_p50_ms=gains.dense_p50_ms,
        noise=gains.noise,
        rounds=job.rounds,
        gains=gains.gains,
        taken_unix_s=time.time(),
        disturbed=looker.disturbed,
    )


def summary(probe: SparsityProbe) -> str:
    """The best gain in a few words."""
    gained = [g for g in probe.gains if g.status is GainStatus.GAIN]
    if not gained:
        return "zeros buy no time"
    best = max(gained, key=lambda g: g.ratio or 0.0)
    return f"{best.share:.0%} {best.pattern} zeros: {best.ratio:.2f}x"


@dataclass(frozen=True, slots=True)
class _Round:
    """The files of a trip, each timed once.

    Attributes:
        disturbed: by what; empty where nothing did.
        p50s_ms: of each file, in the trip's order.
        wall_ns: the timed part of it.
    """

    disturbed: str
    p50s_ms: list[float]
    wall_ns: int

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Self:
        """From a block of each file."""
        reasons = (reason for block in blocks if (reason := disturbance(block)))
        p50s_ms = [ms_from_ns(quantile(block.samples_ns, 0.5)) for block in blocks]
        return cls(next(reasons, ""), p50s_ms, sum(block.wall_ns for block in blocks))


@dataclass(slots=True)
class _Looker:
    """Compiles each micro-model once, when it is first looked at, and times many on one trip.

    Attributes:
        disturbed: why fewer rounds than needed were quiet on some trip; empty where enough were.
    """

    job: ProbeJob
    folder: Path
    disturbed: str = ""
    _compiled: dict[str, ProfileJob] = field(default_factory=dict)

    @property
    def together(self) -> int:
        """Variants that go on one trip with the two dense files."""
        return max(1, _TRIP_BYTES // self._job(None).artifact.size_bytes - 2)

    def rounds_ms(self, variants: Sequence[Variant | None]) -> list[list[float]]:
        """The p50s of these files, round by round. Undisturbed rounds, if the device lets us have three; else all."""
        jobs = [self._job(variant) for variant in variants]
        rounds = self._trip(jobs)
        if self._too_few(rounds) and sum(r.wall_ns for r in rounds) < _QUICK_NS:
            rounds += self._trip(jobs)
        if self._too_few(rounds):
            self.disturbed = self.disturbed or next(r.disturbed for r in rounds if r.disturbed)
            return [r.p50s_ms for r in rounds]
        return [r.p50s_ms for r in rounds if not r.disturbed]

    def _too_few(self, rounds: Sequence[_Round]) -> bool:
        return sum(not r.disturbed for r in rounds) < min(_LEAST_ROUNDS, self.job.rounds)

    def _trip(self, jobs: Sequence[ProfileJob]) -> list[_Round]:
        job = self.job
        request = ProfileRequest(
            runtime=job.rung.runtime,
            threads=job.rung.threads,
            cpus=job.rung.cpus,
            rounds=job.rounds,
            round_s=_ROUND_S,
            hold_bytes=2 * _TRIP_BYTES,
        )
        job.tell(f"{job.name}: timing {len(jobs)} files on {job.session.spec.name}")
        found = job.session.profile(request, jobs, _Progress(job, len(jobs)), job.tell)
        refused = next((f.refused for f in found if f.refused), "")
        if refused:
            raise MeasurementError(f"device {job.session.spec.name}: {refused}", kind="bad_artifact")
        return [_Round.of([profiled.blocks[number] for profiled in found]) for number in range(job.rounds)]

    def _job(self, variant: Variant | None) -> ProfileJob:
        name = variant.name if variant else "dense"
        if name not in self._compiled:
            if len(self._compiled) == 1:
                self.job.tell(f"{self.job.name}: compiling micro-models with zeros")
            shape = self.job.kind.input_shape
            into = self.folder / name
            into.mkdir()
            compiling = CompileJob(micro_model(self.job.kind, variant), shape, _random(shape))
            artifact = compile_artifact(compiling, _rung_of(self.job.rung, variant), into)
            self._compiled[name] = ProfileJob(folder=into, artifact=artifact, input_shape=shape)
        return self._compiled[name]


class _Progress:
    """Tells how many rounds are done, not oftener than every five seconds."""

    def __init__(self, job: ProbeJob, files: int) -> None:
        self._job = job
        self._files = files
        self._started_s = self._told_s = time.monotonic()

    def __call__(self, blocks: int) -> None:
        now_s = time.monotonic()
        if blocks % self._files or now_s - self._told_s < _TELL_S:
            return
        self._told_s = now_s
        done, took = blocks // self._files, format_seconds(now_s - self._started_s)
        self._job.tell(f"{self._job.name}: {done} of {self._job.rounds} rounds in {took}")


def _random(shape: tuple[int, ...]) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(0).standard_normal((4, *shape[1:]), dtype=np.float32)


def _rung_of(rung: Rung, variant: Variant | None) -> Rung:
    """A mask rung, so that the file gets the storage that sparse kernels need."""
    if variant is None:
        return rung
    return replace(rung, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=variant.share)
