"""The rungs that a profile allows, by kind: float32, then bf16 and fp16, then INT8, then what is pruned.

Right after float32 comes float32 with weights stored in float16, where the size is limited. It rounds each weight once
to 11 bits; fp16 rounds the same weights and all that is computed from them, bf16 to 8 bits.

That order is habit. It stands where nothing was measured, and between rungs whose measured costs differ by noise; the
costs that a build goes by are losses on validation data (`steps/costs.py`), its order is `planning/rung_order.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeprune.planning.placement import Placement, placements
from edgeprune.planning.sparsity import MaskChoice
from edgeprune.records.cores import Core
from edgeprune.records.rung import Precision, PruningKind, Rung
from edgeprune.schema.compression import Pruning
from edgeprune.schema.profile import Budget, DeviceProfile
from edgeprune.zero_patterns import ZeroPattern, parse_pattern

PRECISION_COST: Mapping[Precision, float] = {
    Precision.FLOAT32: 0.0,
    Precision.FLOAT32_W16: 0.05,
    Precision.BF16: 0.1,
    Precision.FP16: 0.2,
    Precision.INT8: 1.0,
}
"""Rank, not points: only the order is used."""

_SHARE_STEP = 0.05
_PRUNED = 2.0
"""Every pruned rung comes after every unpruned one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRung:
    """A rung that the profile or the device rules out before anything is measured."""

    rung: Rung
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What is to be measured.

    Attributes:
        rungs: those whose shape is known, by ascending accuracy cost.
        places: runtime, precision, threads and cores where widths are to be searched for, at the runtime's fastest
            precision. None with weights of 16 bits: `planning.half_weights` puts those in once they were measured.
        finer_places: the same at its other precisions, for where cutting costs less than INT8.
        refused: rungs that are ruled out.
    """

    rungs: tuple[Rung, ...]
    places: tuple[Rung, ...]
    refused: tuple[RefusedRung, ...]
    finer_places: tuple[Rung, ...] = ()


def accuracy_cost(rung: Rung) -> float:
    """Expected order of accuracy cost; equal for rungs that differ in runtime and placement only."""
    cost = PRECISION_COST[rung.precision]
    if rung.pruning is not PruningKind.NONE:
        cost += _PRUNED + rung.pruning_ratio
    return cost


def structured_cost(precision: Precision, loss: float | None) -> float:
    """Of a structured rung, by the predicted increase of its loss; without a prediction it comes last of its kind."""
    return PRECISION_COST[precision] + _PRUNED + (1.0 if loss is None else loss / (1.0 + loss))


def make_ladder(
    profile: DeviceProfile,
    pruning: Pruning,
    precisions: Mapping[str, Sequence[Precision]],
    *,
    can_cut: bool,
    masks: Sequence[MaskChoice] = (),
    topology: Sequence[Core] = (),
) -> Ladder:
    """Every combination that the profile declares and the device can run.

    Args:
        profile: runtimes, their INT8 support, thread counts.
        pruning: ratios and sparsities of the target.
        precisions: by runtime name, what it can compute in on this device. Runtimes that are missing there are absent.
        can_cut: whether the model has channel groups that can be cut.
        masks: what the device was measured to gain from zeros: `planning.sparsity.decide_patterns`.
        topology: of the device.
    """
    spots = placements(profile, topology)
    rungs: list[Rung] = []
    places: list[Rung] = []
    finer: list[Rung] = []
    refused: list[RefusedRung] = []
    for runtime, available in precisions.items():
        support = profile.runtimes[runtime]
        for precision in (p for p in available if is_offered(p, profile.budget)):
            if precision is Precision.INT8 and not support.int8:
                rung = Rung(runtime=runtime, precision=precision)
                refused.append(RefusedRung(rung=rung, reason=f"runtimes.{runtime}.int8 = false in the profile"))
                continue
            rungs += _everywhere(runtime, precision, spots)
        computed = [p for p in available if p is p.arithmetic]
        usable = [p for p in computed if p is not Precision.INT8 or support.int8]
        fastest = Precision.INT8 if Precision.INT8 in usable else usable[-1]
        if can_cut:
            places += _everywhere(runtime, fastest, spots)
            finer += [rung for p in usable if p is not fastest for rung in _everywhere(runtime, p, spots)]
        for choice in (m for m in masks if m.runtime == runtime and (m.used or m.contradicted)):
            kept, out = _mask_rungs(choice, spots, pruning)
            rungs += kept
            refused += out
    return Ladder(
        rungs=tuple(sorted(rungs, key=accuracy_cost)),
        places=tuple(places),
        refused=tuple(refused),
        finer_places=tuple(finer),
    )


def is_offered(precision: Precision, budget: Budget) -> bool:
    """Whether a precision may gain anything: weights of 16 bits make a file smaller, and nothing faster."""
    return precision is not Precision.FLOAT32_W16 or budget.artifact_mb is not None


def _everywhere(runtime: str, precision: Precision, spots: Sequence[Placement]) -> list[Rung]:
    return [Rung(runtime=runtime, precision=precision, threads=s.threads, cpus=s.cpus) for s in spots]


def _mask_rungs(
    choice: MaskChoice, spots: Sequence[Placement], pruning: Pruning
) -> tuple[list[Rung], list[RefusedRung]]:
    """The rungs of one pattern of zeros, and those of them that the device showed to gain nothing.

    In float32: sparse kernels of today's runtimes take float weights only (XNNPACK: docs/architecture.md, fact 2).
    """
    rungs: list[Rung] = []
    refused: list[RefusedRung] = []
    for place in _everywhere(choice.runtime, Precision.FLOAT32, spots):
        for rung in _masked(place, parse_pattern(choice.pattern), pruning):
            ratio = rung.pruning_ratio
            # A share between two measured ones is given the benefit of the doubt: the whole model is measured yet.
            if choice.used and ratio >= choice.least_share - _SHARE_STEP:
                rungs.append(rung)
            else:
                refused.append(RefusedRung(rung=rung, reason=choice.reason))
    return rungs, refused


def _masked(place: Rung, pattern: ZeroPattern, pruning: Pruning) -> list[Rung]:
    """The rungs of one pattern of zeros: N:M has one share, the others those of the target."""
    if pattern.n_m is not None:
        kept, of = pattern.n_m
        return [replace(place, pruning=PruningKind.N_M, pruning_ratio=1 - kept / of, n_m=pattern.n_m)]
    kind = PruningKind.UNSTRUCTURED if pattern.block is None else PruningKind.BLOCK
    return [replace(place, pruning=kind, pruning_ratio=share, block=pattern.block) for share in pruning.sparsities]
