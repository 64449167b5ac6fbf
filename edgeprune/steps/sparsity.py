"""Probing a device for sparse kernels, and what follows for the ladder and for a model's masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import BuildError, MeasurementError
from edgeprune.planning.sparsity import PRUNABLE, MaskChoice, decide_patterns
from edgeprune.profiling.sparsity import PATTERNS, kind_of
from edgeprune.pruning.masks import WeightMasks
from edgeprune.records.rung import Precision, Rung
from edgeprune.records.sparsity import SparsityProbe
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.probing import ProbeJob, kept_probe, summary
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import step_name

if TYPE_CHECKING:
    from torch import nn


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
        probe = bench.step("sparsity", job.name, job.key, SparsityProbe, make, summary)
    except (BuildError, MeasurementError) as error:
        if isinstance(error, MeasurementError) and not error.about_artifact:
            raise
        bench.note(f"{runtime}: sparse kernels could not be probed: {error.message}", "warning")
        return None
    if probe.disturbed:
        bench.note(f"{runtime}: the probe for sparse kernels was disturbed: {probe.disturbed}", "warning")
        # Good enough to go on with, not to keep.
        bench.run.forget(step_name("sparsity", job.name))
    return probe


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
