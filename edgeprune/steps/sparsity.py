"""Probing a device for sparse kernels, and what follows for the ladder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from edgeprune.errors import BuildError, MeasurementError
from edgeprune.planning.ladder import RefusedRung
from edgeprune.planning.placement import Placement, reachable
from edgeprune.planning.sparsity import MaskChoice, decide_patterns
from edgeprune.profiling.sparsity import PATTERNS, can_hold, kind_of
from edgeprune.records.rung import Precision, Rung
from edgeprune.records.sparsity import SparsePath, SparsityProbe
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions, sparse_path
from edgeprune.steps.masking import MaskMaker
from edgeprune.steps.probing import ProbeJob, kept_probe, summary
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest, step_name

_OF_MASKS = ("weight_criterion", "sparsities", "mask_scope", "layer_sparsities", "classifier")


def choose_patterns(bench: Workbench, runtimes: Iterable[str]) -> tuple[MaskChoice, ...]:
    """The patterns of zeros that get rungs; the person is told where the profile and the device disagree.

    A runtime is probed where its profile claims sparse kernels, and where it could have some on this device; a runtime
    without such kernels and without a claim costs no time.

    Raises:
        MeasurementError: the device went away, or stays disturbed.
    """
    choices: list[MaskChoice] = []
    spots = reachable(bench.profile, bench.device.facts)
    for name in runtimes if spots else ():
        claims = bench.profile.runtimes[name].sparse_kernels
        why_not = _known_refusals(name, bench)
        if claims or not why_not:
            choices += decide_patterns(name, claims, _probe_for(bench, name, claims, spots[0]), why_not)
    for choice in choices:
        if choice.note:
            bench.note(choice.note, "warning" if choice.contradicted else "info")
    return tuple(choices)


def unused_settings(bench: Workbench, runtimes: Iterable[str]) -> str:
    """What the target says of zeros in vain, where no mask has a rung, and why; empty where it says nothing of them."""
    said = [key for key in _OF_MASKS if key in bench.target.spec.pruning.model_fields_set]
    if not said:
        return ""
    reasons = [f"{name}: {'; '.join(_known_refusals(name, bench)) or 'no gain was measured'}" for name in runtimes]
    keys = ", ".join(f"pruning.{key}" for key in said)
    return f"{keys}: not used, because zeros buy no time on this device ({'. '.join(reasons)})"


def _known_refusals(runtime: str, bench: Workbench) -> tuple[str, ...]:
    """Why zeros buy no time there by the runtime's own rule; empty where they may."""
    form = RUNTIMES.get(runtime).sparse_form()
    return ("it has no sparse kernels for float weights",) if form is None else form.refusals(bench.device.facts)


def _probe_for(bench: Workbench, runtime: str, claims: Sequence[str], spot: Placement) -> SparsityProbe | None:
    """None where the micro-models cannot be made or run: then the whole model has to show it."""
    kind = kind_of(bench.fresh_model())
    if kind is None:
        return None
    wanted = tuple(dict.fromkeys((*PATTERNS, *claims)))
    patterns = tuple(p for p in wanted if can_hold(kind, p))
    for pattern in (c for c in claims if c not in patterns):
        bench.note(
            f"{runtime}: no micro-model of {kind.name} can have {pattern} zeros: the whole model has to show them"
        )
    job = ProbeJob(
        session=bench.device,
        rung=Rung(runtime=runtime, precision=Precision.FLOAT32, threads=spot.threads, cpus=spot.cpus),
        kind=kind,
        patterns=patterns,
        claims=tuple(claims),
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


def explain_refused(bench: Workbench, refused: Sequence[RefusedRung]) -> tuple[RefusedRung, ...]:
    """Begin the reasons of refused mask rungs with what the runtime's own rule says of this very model.

    The operator that breaks it, or how many zeros are missing. Compiled on this host; the device is not asked again.
    """
    return tuple(_explained(bench, r) if r.rung.masked else r for r in refused)


def _explained(bench: Workbench, refused: RefusedRung) -> RefusedRung:
    rung = refused.rung
    if RUNTIMES.get(rung.runtime).sparse_form() is None:
        return refused
    maker = MaskMaker(bench.example, bench.target.spec.pruning)
    facts = bench.device.facts
    key = digest(bench.model_key, rung.name, compiler_versions(rung), bench.input_shape, facts.fingerprint, maker.key)

    def make(folder: Path) -> SparsePath:
        model = bench.fresh_model()
        maker.masks(model, rung, rung.pruning_ratio).make_permanent()
        artifact = compile_artifact(CompileJob(model, bench.input_shape, bench.frozen_samples), rung, folder)
        path = sparse_path(artifact, folder, rung, facts) or SparsePath(reasons=())
        return replace(path, reasons=maker.reasons(model, rung, path))

    try:
        path = bench.step("rule", rung.name, key, SparsePath, make, lambda p: "" if p.taken else "; ".join(p.reasons))
    except BuildError as error:
        return replace(refused, reason=f"{error.message} ({refused.reason})")
    # What the device's architecture or the runtime's version rule out is in the reason already.
    new = [reason for reason in path.reasons if reason not in refused.reason]
    return replace(refused, reason=f"{'; '.join(new)} ({refused.reason})") if new else refused
