"""Shapes measured on the device before anything is trained: latency does not depend on the values of the weights."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.benchmarking.validity import disturbance
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.surgery import structured_prune
from edgeprune.records.measurement import Block
from edgeprune.records.rung import GroupWidth, PruningKind, Rung
from edgeprune.statistics import quantile
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions, sparse_path
from edgeprune.steps.sparsity import make_masks
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest, step_name
from edgeprune.units import NS_PER_S, format_ms, ms_from_ns

if TYPE_CHECKING:
    from torch import nn

_FIRST_RUNS = 20
_RUNS = (60, 1000)
_BLOCK_S = 0.3
# The first runs that take this long are a look already, and more of them would not show more.
_LONG_S = 1.0
_ATTEMPTS = 5
_BACK_OFF_S = 0.5


@dataclass(frozen=True)
class ShapeBench:
    """Compiles and times untrained shapes, each once a device, runtime version and thread count."""

    bench: Workbench

    def measure(self, rung: Rung, widths: tuple[GroupWidth, ...] = ()) -> ShapeFigures:
        """Latency, size and memory of a rung's shape.

        Args:
            rung: its ratio only names it where it is structured; `widths` say what is cut.
            widths: of all groups, for a structured rung.

        Raises:
            BuildError: it cannot be compiled.
            MeasurementError: it cannot be run there.
        """
        after = [(w.group, w.after) for w in widths]
        # Two shapes may have the same share out, and each is kept.
        subject = f"{rung.name}-{digest(after)[:8]}" if widths else rung.name
        key = digest(
            self.bench.model_key,
            self._place_key(rung),
            rung.name,
            after,
            self.bench.input_shape,
            self.bench.target.spec.pruning.ignored,
        )

        def make(folder: Path) -> ShapeFigures:
            job = CompileJob(self._shape(rung, widths), self.bench.input_shape, self.bench.frozen_samples)
            return self._figures(job, rung, folder, widths)

        figures = self.bench.step("shape", subject, key, ShapeFigures, make, lambda f: f"p50 {format_ms(f.p50_ms)}")
        if figures.disturbed:
            self.bench.note(
                f"{rung.name}: the device was disturbed, p50 may be too high: {figures.disturbed}", "warning"
            )
            # Good enough to go on with, not to keep.
            self.bench.run.forget(step_name("shape", subject))
        return figures

    def _figures(self, job: CompileJob, rung: Rung, folder: Path, widths: tuple[GroupWidth, ...]) -> ShapeFigures:
        artifact = compile_artifact(job, rung, folder)
        path = sparse_path(artifact, folder, rung, self.bench.device.facts)
        there = self.bench.device.place(folder, artifact)
        look = quick_look(self.bench, rung, there, self.bench.samples_path)
        block = look.block
        return ShapeFigures(
            rung=rung,
            p50_ms=p50_ms(block),
            p99_ms=ms_from_ns(quantile(block.samples_ns, 0.99)),
            artifact_bytes=artifact.size_bytes,
            peak_bytes=block.peak_bytes,
            base_bytes=block.base_bytes,
            widths=widths,
            disturbed=look.disturbed,
            not_sparse="; ".join(path.reasons) if path else "",
        )

    def _shape(self, rung: Rung, widths: tuple[GroupWidth, ...]) -> nn.Module:
        """The model in a rung's shape. Which channels go does not matter here, how many does."""
        model = self.bench.fresh_model()
        draw_norms_(model)
        ignored = self.bench.target.spec.pruning.ignored
        match rung.pruning:
            case PruningKind.NONE:
                return model
            case PruningKind.STRUCTURED:
                after = {w.group: w.after for w in widths}
                return structured_prune(model, self.bench.example, after, CRITERIA.get("l1"), seed=0)[0]
            case PruningKind.UNSTRUCTURED | PruningKind.N_M:
                make_masks(model, rung, rung.pruning_ratio, ignored).make_permanent()
                return model

    def _place_key(self, rung: Rung) -> str:
        return digest(self.bench.device.facts.fingerprint, rung.name, compiler_versions(rung))


def draw_norms_(model: nn.Module) -> None:
    """Give norms values as training would: converters drop the identity of a fresh one, and the shape with it."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    generator = torch.Generator().manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats):
        for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            if values is not None:
                values.data.uniform_(0.5, 1.5, generator=generator)


@dataclass(frozen=True, slots=True)
class Look:
    """A short block, and what disturbed it; empty when nothing did."""

    block: Block
    disturbed: str = ""


def quick_look(bench: Workbench, rung: Rung, artifact_path: str, samples_path: str) -> Look:
    """A look at an untrained shape, not a proof: one short block, undisturbed if the device lets us have one.

    Otherwise the fastest of several disturbed ones, because a neighbour makes runs slower and never faster, and leaves
    p50 nearly where it is (docs/architecture.md, fact 5). Only p50 is decided by.
    """
    with bench.device.leased(bench.note):
        return _look(bench, rung, artifact_path, samples_path)


def _look(bench: Workbench, rung: Rung, artifact_path: str, samples_path: str) -> Look:
    first = bench.device.block(rung, artifact_path, samples_path, _FIRST_RUNS)
    median_ns = quantile(first.samples_ns, 0.5)
    is_long = median_ns * _FIRST_RUNS >= _LONG_S * NS_PER_S
    least = _FIRST_RUNS if is_long else _RUNS[0]
    runs = min(max(math.ceil(_BLOCK_S * NS_PER_S / median_ns), least), _RUNS[1])
    looks = [Look(first, disturbance(first) or "")] if is_long else []
    while len(looks) < _ATTEMPTS and (not looks or looks[-1].disturbed):
        if looks:
            time.sleep(_BACK_OFF_S * len(looks))
        block = bench.device.block(rung, artifact_path, samples_path, runs, median_ns)
        looks.append(Look(block, disturbance(block) or ""))
    return min(looks, key=lambda look: (bool(look.disturbed), p50_ms(look.block)))


def p50_ms(block: Block) -> float:
    """Median latency of a block, nearest rank."""
    return ms_from_ns(quantile(block.samples_ns, 0.5))
