"""Shapes measured on the device before anything is trained: latency does not depend on the values of the weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import MeasurementError
from edgeprune.files import sha256_of
from edgeprune.graph.blocks import remove_blocks
from edgeprune.planning.feasibility import ShapeFigures, needs_closer_look, needs_longer_look
from edgeprune.planning.placement import reachable
from edgeprune.protocols import CompiledFiles
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.surgery import structured_prune
from edgeprune.records.artifact import Artifact
from edgeprune.records.memory import Schedule
from edgeprune.records.rung import GroupWidth, Limits, PruningKind, Rung, kept_widths
from edgeprune.statistics import quantile
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions, sparse_path
from edgeprune.steps.float_files import FloatFiles
from edgeprune.steps.fresh_weights import draw_norms_
from edgeprune.steps.looks import ROUNDS, Looked, closer_look, p50_ms, quick_look
from edgeprune.steps.masking import MaskMaker
from edgeprune.steps.memory import compiled_schedule
from edgeprune.steps.variant_kinds import shape_variant
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest, step_name
from edgeprune.units import format_ms, ms_from_ns

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ShapeBench:
    """Compiles and times untrained shapes, each once a device, runtime version and placement."""

    bench: Workbench
    _made: dict[str, tuple[str, Artifact]] = field(default_factory=dict, init=False, repr=False)
    """The step and the files of a shape that was compiled here, by what it is wherever it runs."""
    _floats: FloatFiles = field(default_factory=FloatFiles, init=False, repr=False)

    def measure(
        self, rung: Rung, widths: tuple[GroupWidth, ...] = (), removed_blocks: tuple[str, ...] = ()
    ) -> ShapeFigures:
        """Latency, size and memory of a rung's shape: one answer a session.

        Args:
            rung: its ratio only names it where it is structured; `widths` say what is cut.
            widths: of all groups, for a structured rung.
            removed_blocks: for a structured rung.

        Raises:
            BuildError: it cannot be compiled.
            MeasurementError: it cannot be run there.
        """
        key = self._key(rung, widths, removed_blocks)
        figures = self.bench.seen.figures
        if key not in figures:

            def make(folder: Path) -> ShapeFigures:
                return self._figures(rung, widths, removed_blocks, folder)

            subject = _subject(rung, widths, removed_blocks)
            figures[key] = self._step(subject, digest(key, self.shows_tail(rung)), make)
        return figures[key]

    def refer_to(self, baseline: ShapeFigures) -> None:
        """Tell what a p50 speedup is of: closer looks are taken beside it from now on."""
        self.bench.seen.baseline = baseline

    def latest(self, figures: ShapeFigures) -> ShapeFigures:
        """What was measured of the shape since, if anything."""
        key = self._key(figures.rung, figures.widths, figures.removed_blocks)
        return self.bench.seen.figures.get(key, figures)

    def look_closer(self, figures: ShapeFigures) -> ShapeFigures:
        """Looks by several processes, beside the baseline where there is one: their p50 is the answer from now on.

        Beside a baseline p50 is what it would have been when that was measured: limits are shares of what it took then,
        and where p99's is one too, p99 is as much longer than p50 as it was. The baseline itself takes what it took.
        Where one of the processes dies, the first look counts, which is told.

        Errors are those of `measure`.
        """
        rung, widths, blocks = figures.rung, figures.widths, figures.removed_blocks
        key, beside, known = self._key(rung, widths, blocks), self.bench.seen.baseline, self.latest(figures)
        if not known.closer:
            if beside is not None and beside.rung == rung:
                known = replace(known, closer=True)
            else:
                known = self._looked_closer(known, key, beside)
            self.bench.seen.figures[key] = known
        return known

    def _looked_closer(self, figures: ShapeFigures, key: str, beside: ShapeFigures | None) -> ShapeFigures:
        rung, widths, blocks = figures.rung, figures.widths, figures.removed_blocks

        def make(folder: Path) -> ShapeFigures:
            own = Looked(rung, folder, self._compiled(rung, widths, blocks, folder))
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                other = self._baseline(beside, Path(scratch)) if beside else None
                taken = closer_look(self.bench, own, other)
            scaled_ms = beside.p50_ms * taken.ratio if beside and taken.ratio else taken.p50_ms
            p99_ms = max(scaled_ms, figures.p99_ms * (scaled_ms / figures.p50_ms if self._compares_tails else 1.0))
            disturbed = taken.disturbed or (figures.disturbed if self._limits_tail else "")
            return replace(figures, p50_ms=scaled_ms, p99_ms=p99_ms, processes=ROUNDS, closer=True, disturbed=disturbed)

        # What it is held to may have been measured anew since.
        of = digest(key, figures.long_looks, figures.p99_ms, beside and (beside.rung.name, beside.p50_ms))
        try:
            return self._step(f"{_subject(rung, widths, blocks)}-closer", of, make)
        except MeasurementError as error:
            if not error.about_artifact:
                raise
            self.bench.note(f"{rung.name}: one process counts, for others died: {error.message}", "warning")
            return replace(figures, closer=True)

    def _baseline(self, baseline: ShapeFigures, folder: Path) -> Looked:
        return Looked(baseline.rung, folder, self._compiled(baseline.rung, (), (), folder))

    def look_longer(self, figures: ShapeFigures) -> ShapeFigures:
        """Another look at a shape, long enough for its p99; the lower figures count, and are the answer from now on.

        A neighbour makes runs slower and never faster. Errors are those of `measure`.
        """
        rung, widths, blocks = figures.rung, figures.widths, figures.removed_blocks
        key, look = self._key(rung, widths, blocks), figures.long_looks + 1
        subject = _subject(rung, widths, blocks)

        def make(folder: Path) -> ShapeFigures:
            there = self.bench.device.place(folder, self._compiled(rung, widths, blocks, folder))
            taken = quick_look(self.bench, rung, there, self.bench.samples_path, tail=True)
            found, p99 = p50_ms(taken.block), ms_from_ns(quantile(taken.block.samples_ns, 0.99))
            if figures.processes > 1:
                # p50 is known better, and of another pace perhaps, which counts where tails are compared.
                found, p99 = figures.p50_ms, p99 * (figures.p50_ms / found if self._compares_tails else 1.0)
            return replace(
                figures,
                p50_ms=min(figures.p50_ms, found),
                p99_ms=p99 if look == 1 else min(figures.p99_ms, p99),
                disturbed=taken.disturbed if look == 1 else figures.disturbed and taken.disturbed,
                long_looks=look,
            )

        of = digest(key, look, figures.p50_ms if figures.processes > 1 else None)
        self.bench.seen.figures[key] = self._step(f"{subject}-look{look}", of, make)
        return self.bench.seen.figures[key]

    def _step(self, subject: str, key: str, make: Callable[[Path], ShapeFigures]) -> ShapeFigures:
        figures = self.bench.step("shape", subject, key, ShapeFigures, make, _summary)
        if figures.disturbed:
            self.bench.note(
                f"{figures.rung.name}: the device was disturbed, its latency may be too high: {figures.disturbed}",
                "warning",
            )
            # Good enough to go on with, not to keep.
            self.bench.run.forget(step_name("shape", subject))
        return figures

    def _key(self, rung: Rung, widths: tuple[GroupWidth, ...], removed_blocks: tuple[str, ...]) -> str:
        return digest(
            self.bench.model_key,
            self._place_key(rung),
            rung.name,
            [*((w.group, w.after) for w in widths), *removed_blocks],
            self.bench.input_shape,
            shape_variant(self.bench.target.spec.quantization).name,
            self._masker.key,
            self._limits_memory,
        )

    def shows_tail(self, rung: Rung) -> bool:
        """Whether it is looked at long enough to compare p99: where that is limited and placements are to be chosen.

        They are chosen at full widths, before any are cut. Elsewhere `settled` says what is looked at longer.
        """
        several = len(reachable(self.bench.profile, self.bench.device.facts)) > 1
        return self._limits_tail and several and rung.pruning is not PruningKind.STRUCTURED

    def _figures(
        self, rung: Rung, widths: tuple[GroupWidth, ...], removed_blocks: tuple[str, ...], folder: Path
    ) -> ShapeFigures:
        artifact = self._compiled(rung, widths, removed_blocks, folder)
        path = sparse_path(artifact, folder, rung, self.bench.device.facts)
        there = self.bench.device.place(folder, artifact)
        tail = self.shows_tail(rung)
        look = quick_look(self.bench, rung, there, self.bench.samples_path, tail=tail)
        block = look.block
        return ShapeFigures(
            rung=rung,
            p50_ms=p50_ms(block),
            p99_ms=ms_from_ns(quantile(block.samples_ns, 0.99)),
            artifact_bytes=artifact.size_bytes,
            peak_bytes=block.peak_bytes,
            base_bytes=block.base_bytes,
            widths=widths,
            removed_blocks=removed_blocks,
            load_bytes=block.peak_load_bytes,
            run_bytes=block.peak_run_bytes,
            schedule=self._schedule(folder / artifact.files[0].name, rung),
            disturbed=look.disturbed,
            long_looks=int(tail),
            not_sparse="; ".join(self._masker.reasons(self.bench.fresh_model(), rung, path)) if path else "",
        )

    def _compiled(
        self, rung: Rung, widths: tuple[GroupWidth, ...], removed_blocks: tuple[str, ...], folder: Path
    ) -> Artifact:
        key = _cut(widths, removed_blocks)
        anywhere = f"{key} {rung.unplaced.name}"
        artifact = self._made_before(anywhere, folder) or self._compiled_now(rung, widths, removed_blocks, folder)
        self._made[anywhere] = _subject(rung, widths, removed_blocks), artifact
        return artifact

    def _made_before(self, key: str, folder: Path) -> Artifact | None:
        """A copy of the files of a look before, or for other threads or cores, if their step was kept."""
        if key not in self._made:
            return None
        subject, artifact = self._made[key]
        kept = self.bench.run.path(step_name("shape", subject))
        if any(not (kept / f.name).is_file() or sha256_of(kept / f.name) != f.sha256 for f in artifact.files):
            # Of an earlier build; that of this one failed after it was compiled.
            return None
        for file in artifact.files:
            shutil.copy2(kept / file.name, folder / file.name)
        return artifact

    def _compiled_now(
        self, rung: Rung, widths: tuple[GroupWidth, ...], removed_blocks: tuple[str, ...], folder: Path
    ) -> Artifact:
        shape = self._shape(rung, widths, removed_blocks)
        key = _cut(widths, removed_blocks)

        def keep(form: str, make: Callable[[Path], CompiledFiles]) -> CompiledFiles:
            return self._floats.of(f"{key} {form}", make)

        # Zeros are asked for in one precision only.
        keeps = None if rung.masked else keep
        samples, spec = self.bench.frozen_samples, self.bench.target.spec.quantization
        job = CompileJob(shape, self.bench.input_shape, samples, shape_variant(spec), keep=keeps)
        return compile_artifact(job, rung, folder)

    @property
    def _limits_tail(self) -> bool:
        budget = self.bench.profile.budget
        return budget.p99_ms is not None or budget.p99_speedup is not None

    @property
    def _compares_tails(self) -> bool:
        return self.bench.profile.budget.p99_speedup is not None

    @property
    def _limits_memory(self) -> bool:
        return self.bench.profile.budget.memory_mb is not None

    @property
    def _masker(self) -> MaskMaker:
        return MaskMaker(self.bench.example, self.bench.target.spec.pruning)

    def _schedule(self, path: Path, rung: Rung) -> Schedule | None:
        """Of a compiled file, where memory is limited: it takes up to half a second."""
        return compiled_schedule(path, rung, self.bench.note) if self._limits_memory else None

    def _shape(self, rung: Rung, widths: tuple[GroupWidth, ...], removed_blocks: tuple[str, ...]) -> nn.Module:
        """The model in a rung's shape. Which channels go does not matter here, how many does."""
        model = self.bench.fresh_model()
        draw_norms_(model)
        match rung.pruning:
            case PruningKind.NONE:
                return model
            case PruningKind.STRUCTURED:
                after = kept_widths(widths)
                rest = remove_blocks(model, removed_blocks)
                return structured_prune(rest, self.bench.example, after, CRITERIA.get("l1"), seed=0)[0]
            case PruningKind.UNSTRUCTURED | PruningKind.N_M | PruningKind.BLOCK:
                self._masker.masks(model, rung, rung.pruning_ratio).make_permanent()
                return model

    def _place_key(self, rung: Rung) -> str:
        return digest(self.bench.device.facts.fingerprint, rung.name, compiler_versions(rung))


def settled(shapes: ShapeBench, figures: ShapeFigures, limits: Limits, *, near: float = 1.0) -> ShapeFigures:
    """The figures, looked at again where one short look says neither yes nor no.

    By more processes where p50 is near its limit; longer where p99 alone is in their way.

    Args:
        shapes: measures them.
        figures: of any look; what was measured of the shape since counts in its place.
        limits: to come in under.
        near: a first long look is taken from this share of the limit on p99 on.

    Errors are those of `ShapeBench.measure`.
    """
    figures = shapes.latest(figures)
    if needs_closer_look(figures, limits):
        figures = shapes.look_closer(figures)
    while needs_longer_look(figures, limits, near):
        figures = shapes.look_longer(figures)
    return figures


def _subject(rung: Rung, widths: tuple[GroupWidth, ...], removed_blocks: tuple[str, ...]) -> str:
    # Two shapes may have the same share out, and each is kept.
    return f"{rung.name}-{_cut(widths, removed_blocks)[:8]}" if widths or removed_blocks else rung.name


def _cut(widths: tuple[GroupWidth, ...], removed_blocks: tuple[str, ...]) -> str:
    return digest([*((w.group, w.after) for w in widths), *removed_blocks])


def _summary(figures: ShapeFigures) -> str:
    p99 = f", p99 {format_ms(figures.p99_ms)}" if figures.long_looks else ""
    return f"p50 {format_ms(figures.p50_ms)}{p99}"
