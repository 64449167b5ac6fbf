"""Probing a device for sparse kernels, and what follows for the ladder and for a model's masks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.benchmarking.validity import disturbance
from edgeprune.deployment.inventory import config_folder
from edgeprune.errors import BuildError, MeasurementError
from edgeprune.files import write_atomically
from edgeprune.planning.sparsity import PRUNABLE, MaskChoice, decide_patterns
from edgeprune.profiling.sparsity import (
    PATTERNS,
    ROUNDS,
    MicroKind,
    Variant,
    kind_of,
    micro_model,
    probe_gains,
    variants_of,
)
from edgeprune.pruning.masks import WeightMasks
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.rung import Precision, PruningKind, Rung
from edgeprune.records.sparsity import GainStatus, SparsityProbe
from edgeprune.runtimes import RUNTIMES
from edgeprune.statistics import quantile
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions
from edgeprune.steps.session import DeviceSession
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest
from edgeprune.units import NS_PER_S, ms_from_ns

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

_FIRST_RUNS = 5
_RUNS = (10, 600)
_LOOK_S = 0.3
_ATTEMPTS = 3
_BACK_OFF_S = 0.5


def choose_patterns(bench: Workbench, runtimes: Iterable[str]) -> tuple[MaskChoice, ...]:
    """The patterns of zeros that get rungs; the person is told where the profile and the device disagree.

    A runtime is probed where its profile claims sparse kernels, and where it could have some on this device; a runtime
    without such kernels and without a claim costs no time.

    Raises:
        MeasurementError: the device went away, or stays disturbed.
    """
    choices: list[MaskChoice] = []
    for name in runtimes:
        claims = bench.profile.runtimes[name].sparse_kernels
        why_not = _known_refusals(name, bench)
        if claims or not why_not:
            choices += decide_patterns(name, claims, _probe_for(bench, name, claims), why_not)
    for choice in choices:
        if choice.note:
            bench.note(choice.note, "warning" if choice.contradicted else "info")
    return tuple(choices)


def _known_refusals(runtime: str, bench: Workbench) -> tuple[str, ...]:
    """Why zeros buy no time there by the runtime's own rule; empty where they may."""
    form = RUNTIMES.get(runtime).sparse_form()
    return ("it has no sparse kernels for float weights",) if form is None else form.refusals(bench.device.facts)


def _probe_for(bench: Workbench, runtime: str, claims: Sequence[str]) -> SparsityProbe | None:
    """None where the micro-models cannot be made or run: then the whole model has to show it."""
    kind = kind_of(bench.fresh_model())
    if kind is None:
        return None
    job = ProbeJob(
        session=bench.device,
        rung=Rung(runtime=runtime, precision=Precision.FLOAT32, threads=bench.profile.threads[0]),
        kind=kind,
        patterns=tuple(dict.fromkeys((*PATTERNS, *(c for c in claims if c in PRUNABLE)))),
        tell=bench.note,
    )

    def make(folder: Path) -> SparsityProbe:
        return kept_probe(job, folder)

    try:
        return bench.step("sparsity", job.name, job.key, SparsityProbe, make, summary)
    except (BuildError, MeasurementError) as error:
        if isinstance(error, MeasurementError) and not error.about_artifact:
            raise
        bench.note(f"{runtime}: sparse kernels could not be probed: {error.message}", "warning")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """What one probe needs.

    Attributes:
        rung: runtime, threads and precision, without pruning.
        exhaustive: measure every share, those too that a stronger one rules out.
    """

    session: DeviceSession
    rung: Rung
    kind: MicroKind
    patterns: tuple[str, ...] = PATTERNS
    rounds: int = ROUNDS
    exhaustive: bool = False
    tell: Callable[[str], None]

    @property
    def name(self) -> str:
        """Of the runtime, threads and micro-model."""
        return f"{self.rung.name}-{self.kind.name}"

    @property
    def key(self) -> str:
        """Digest of all that the outcome depends on."""
        facts = self.session.facts
        return digest(facts.fingerprint, self.name, compiler_versions(self.rung), self.patterns, self.exhaustive)


def kept_probe(job: ProbeJob, folder: Path) -> SparsityProbe:
    """The probe kept beside the inventory for this device, runtime and micro-model; else a new one, which is kept.

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
    write_atomically(path, to_json(probe, indent=1))
    return probe


def run_probe(job: ProbeJob, folder: Path) -> SparsityProbe:
    """Measure; nothing is read or kept.

    Raises:
        BuildError: a micro-model cannot be compiled.
        MeasurementError: it cannot be run there.
    """
    looker = _Looker(job, folder)
    gains = probe_gains(variants_of(job.patterns), looker.p50s_ms, rounds=job.rounds, exhaustive=job.exhaustive)
    facts = job.session.facts
    return SparsityProbe(
        device=job.session.spec.name,
        fingerprint=facts.fingerprint,
        runtime=job.rung.runtime,
        runtime_version=facts.runtime_version(job.rung.runtime) or "",
        threads=job.rung.threads,
        kind=job.kind.name,
        compilers=compiler_versions(job.rung),
        dense_p50_ms=gains.dense_p50_ms,
        noise=gains.noise,
        rounds=job.rounds,
        gains=gains.gains,
        taken_unix_s=time.time(),
    )


def summary(probe: SparsityProbe) -> str:
    """The best gain in a few words."""
    gained = [g for g in probe.gains if g.status is GainStatus.GAIN]
    if not gained:
        return "zeros buy no time"
    best = max(gained, key=lambda g: g.ratio or 0.0)
    return f"{best.share:.0%} {best.pattern} zeros: {best.ratio:.2f}x"


@dataclass(slots=True)
class _Looker:
    """Compiles each micro-model once, when it is first looked at, and times it in fresh processes."""

    job: ProbeJob
    folder: Path
    _placed: dict[str, str] = field(default_factory=dict)
    _runs: int = 0

    def p50s_ms(self, variants: Sequence[Variant | None]) -> list[float]:
        """One look at each, in one turn at the device."""
        there = [self._place(variant) for variant in variants]
        self._samples()
        with self.job.session.leased(self.job.tell):
            return [self._p50_ms(path) for path in there]

    def _p50_ms(self, there: str) -> float:
        """A short look, undisturbed if the device lets us have one; else the fastest of several."""
        session, rung = self.job.session, self.job.rung
        if not self._runs:
            first = session.block(rung, there, self._samples(), _FIRST_RUNS)
            fits = math.ceil(_LOOK_S * NS_PER_S / quantile(first.samples_ns, 0.5))
            self._runs = min(max(fits, _RUNS[0]), _RUNS[1])
        found = []
        for attempt in range(_ATTEMPTS):
            time.sleep(_BACK_OFF_S * attempt)
            block = session.block(rung, there, self._samples(), self._runs)
            found.append(ms_from_ns(quantile(block.samples_ns, 0.5)))
            if not disturbance(block):
                break
        else:
            return min(found)
        return found[-1]

    def _place(self, variant: Variant | None) -> str:
        name = variant.name if variant else "dense"
        if name not in self._placed:
            shape = self.job.kind.input_shape
            into = self.folder / name
            into.mkdir()
            job = CompileJob(micro_model(self.job.kind, variant), shape, _random(shape))
            artifact = compile_artifact(job, _rung_of(self.job.rung, variant), into)
            self._placed[name] = self.job.session.place(into, artifact)
        return self._placed[name]

    def _samples(self) -> str:
        if "samples" not in self._placed:
            self._placed["samples"] = self.job.session.place_samples(_random(self.job.kind.input_shape))
        return self._placed["samples"]


def _random(shape: tuple[int, ...]) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(0).standard_normal((4, *shape[1:]), dtype=np.float32)


def _rung_of(rung: Rung, variant: Variant | None) -> Rung:
    """A mask rung, so that the file gets the storage that sparse kernels need."""
    if variant is None:
        return rung
    return Rung(
        runtime=rung.runtime,
        precision=rung.precision,
        threads=rung.threads,
        pruning=PruningKind.UNSTRUCTURED,
        pruning_ratio=variant.share,
    )


def make_masks(model: nn.Module, rung: Rung, sparsity: float, ignored: Sequence[str]) -> WeightMasks:
    """The masks of a mask rung: over the layers whose zeros its runtime's kernels skip.

    Where the runtime has sparse kernels, zeros elsewhere would cost accuracy and buy nothing, and those of the last
    layer count in XNNPACK's two thirds; so layers are chosen by what the kernels skip, the last among them. Without
    sparse kernels, it is every layer but the last.

    Args:
        model: looked at, and held by the masks.
        rung: its runtime and pattern.
        sparsity: share of those weights; N:M has its own.
        ignored: by the target.
    """
    form = RUNTIMES.get(rung.runtime).sparse_form()
    kept = list(ignored)
    if form is not None:
        named = [(n, m) for n, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))]
        kept += [n for n, m in named if not form.skips(m)]
    if rung.n_m is not None:
        return WeightMasks.n_m(model, *rung.n_m, ignored=kept, with_last=form is not None)
    return WeightMasks.unstructured(model, sparsity, ignored=kept, with_last=form is not None)
