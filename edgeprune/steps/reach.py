"""The ladder as far as this host can compile and this device can run it."""

from __future__ import annotations

from edgeprune.errors import MeasurementError, NotInstalledError
from edgeprune.planning.ladder import Ladder, RefusedRung, is_offered, make_ladder
from edgeprune.planning.placement import out_of_reach
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import compiler_versions
from edgeprune.steps.sparsity import choose_patterns, explain_refused, unused_settings
from edgeprune.steps.workbench import Workbench


def reachable_ladder(bench: Workbench, notes: list[str]) -> Ladder:
    """The rungs that are worth a measurement; those that are not have the reason.

    Args:
        bench: of the build.
        notes: what a person should know is added: runtimes and precisions that are missing, what zeros bought.

    Raises:
        MeasurementError: no runtime of the profile is on the device, or the device cannot be measured on.
    """
    precisions = _usable_precisions(bench, notes)
    masks = choose_patterns(bench, precisions)
    notes += [choice.note for choice in masks if choice.note]
    can_cut = bool(bench.groups.groups or bench.blocks.removable)
    ladder = make_ladder(
        bench.profile,
        bench.target.spec.pruning,
        precisions,
        can_cut=can_cut,
        masks=masks,
        topology=bench.device.facts.topology,
    )
    if not any(r.masked for r in (*ladder.rungs, *(r.rung for r in ladder.refused))):
        unused = unused_settings(bench, precisions)
        if unused:
            notes.append(unused)
            bench.note(unused, "warning")
    out = {rung: why for rung in ladder.rungs if (why := out_of_reach(rung, bench.device.facts))}
    refused = [RefusedRung(rung=rung, reason=why) for rung, why in out.items()]
    return Ladder(
        rungs=tuple(r for r in ladder.rungs if r not in out),
        places=tuple(p for p in ladder.places if p not in out),
        finer_places=tuple(p for p in ladder.finer_places if p not in out),
        refused=(*explain_refused(bench, ladder.refused), *refused),
    )


def _usable_precisions(bench: Workbench, notes: list[str]) -> dict[str, tuple[Precision, ...]]:
    """By runtime, what it computes in there; runtimes missing on the device or here are left out, with a note."""
    usable = {}
    for name in bench.profile.runtimes:
        try:
            bench.device.require(name)
        except MeasurementError as error:
            notes.append(f"no rung with {name}: {error.message}")
            continue
        found = []
        for precision in RUNTIMES.get(name).precisions(bench.device.facts):
            if not is_offered(precision, bench.profile.budget):
                continue
            try:
                compiler_versions(Rung(runtime=name, precision=precision))
            except NotInstalledError as error:
                notes.append(f"no {precision} rung with {name}: {error.message}")
            else:
                found.append(precision)
        if Precision.FLOAT32 in found:
            usable[name] = tuple(found)
    for note in notes:
        bench.note(note, "warning")
    if not usable:
        raise MeasurementError("\n".join(notes))
    return usable
