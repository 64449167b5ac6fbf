"""Quick looks: what short processes show of an artifact on the device, to plan by and not to prove."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from edgeprune.benchmarking.validity import Watch, disturbance
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Block
from edgeprune.records.rung import Rung
from edgeprune.statistics import quantile, smallest_sample_count
from edgeprune.steps.session import BlockLength
from edgeprune.steps.workbench import Workbench
from edgeprune.units import ms_from_ns

_FIRST_RUNS = 20
_LOOK = BlockLength(60, fill_s=0.5, max_runs=4000, max_s=3.0)
_ATTEMPTS = 5
_STEADY = 2
_BACK_OFF_S = 0.5

_TAIL = 0.99
_TAIL_LOOK = BlockLength(smallest_sample_count(_TAIL, 0.95), fill_s=3.0, max_runs=5000)
"""A look at p99 is six times as long: so many runs, at the least, that one is over it at 95 % confidence."""


ROUNDS = 5
"""Processes of each model in a closer look."""


@dataclass(frozen=True, slots=True)
class Look:
    """A short block, and what disturbed it; empty when nothing did."""

    block: Block
    disturbed: str = ""


def quick_look(bench: Workbench, rung: Rung, artifact_path: str, samples_path: str, *, tail: bool = False) -> Look:
    """A look at an untrained shape, not a proof: one short block, undisturbed if the device lets us have one.

    Otherwise the fastest of several disturbed ones, because a neighbour makes runs slower and never faster, and leaves
    p50 nearly where it is (docs/architecture.md, fact 5). `tail` asks for a block that is long enough to decide by p99,
    and takes the one with the least of those that were disturbed.

    A core that is slow all through shows beside the session's earlier looks. One that stays so is taken for what the
    device has now, which is told.
    """
    with bench.device.leased(bench.note):
        return _look(bench, rung, artifact_path, samples_path, tail=tail)


def _look(bench: Workbench, rung: Rung, artifact_path: str, samples_path: str, *, tail: bool) -> Look:
    (length, share), estimate_ns = ((_TAIL_LOOK, _TAIL) if tail else (_LOOK, 0.5)), None
    if tail:
        # Hundreds of runs have a deadline only where it is known what one takes.
        first = bench.device.block(rung, artifact_path, samples_path, _FIRST_RUNS)
        estimate_ns = quantile(first.samples_ns, 0.5)
    looks = list[Look]()
    while len(looks) < _ATTEMPTS and (not looks or looks[-1].disturbed):
        if looks:
            time.sleep(_BACK_OFF_S * len(looks))
        block = bench.device.block(rung, artifact_path, samples_path, length, estimate_ns)
        estimate_ns = quantile(block.samples_ns, 0.5)
        looks.append(Look(block, bench.device.watch.disturbance(block) or ""))
    steady = [Look(look.block) for look in looks if not disturbance(look.block)]
    if len(steady) >= _STEADY and all(look.disturbed for look in looks):
        # Slow only beside earlier looks, and again and again: what the device has now.
        bench.note(f"{rung.name}: the device's cores stay slower than they were, warm or shared", "warning")
        bench.device.watch = Watch()
        looks = steady
    return min(looks, key=lambda look: (bool(look.disturbed), quantile(look.block.samples_ns, share)))


@dataclass(frozen=True, slots=True)
class Looked:
    """What is looked at: an artifact in a folder on this host, and how it runs."""

    rung: Rung
    folder: Path
    artifact: Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class CloserLook:
    """Looks by `ROUNDS` processes.

    Attributes:
        p50_ms: the median of theirs.
        ratio: the median of p50 over that of the model beside it; None where there was none.
        disturbed: what disturbed most of the rounds; empty where it was fewer of them, or none.
    """

    p50_ms: float
    ratio: float | None
    disturbed: str


def closer_look(bench: Workbench, looked: Looked, beside: Looked | None) -> CloserLook:
    """Quick looks by several processes, in turn with those of another model: AB, BA, AB, ...

    Processes of one file differ by percents, and hosts switch their pace between looks that are minutes apart. A ratio
    of neighbours says what a speedup will be judged to be.
    """
    both = [looked] if beside is None else [looked, beside]
    rounds = []
    for model in both:
        bench.device.place(model.folder, model.artifact)
    with bench.device.leased(bench.note):
        for number in range(ROUNDS):
            order = both if number % 2 == 0 else both[::-1]
            rounds.append({model.rung: _placed_look(bench, model) for model in order})
    own = [p50_ms(found[looked.rung].block) for found in rounds]
    reasons = [next((look.disturbed for look in found.values() if look.disturbed), "") for found in rounds]
    disturbed = statistics.mode(filter(None, reasons)) if 2 * sum(map(bool, reasons)) > ROUNDS else ""
    if beside is None:
        return CloserLook(p50_ms=statistics.median(own), ratio=None, disturbed=disturbed)
    others = [p50_ms(found[beside.rung].block) for found in rounds]
    ratio = statistics.median(a / b for a, b in zip(own, others, strict=True))
    return CloserLook(p50_ms=statistics.median(own), ratio=ratio, disturbed=disturbed)


def _placed_look(bench: Workbench, model: Looked) -> Look:
    # Placed anew each time: the other one may have taken its place in a small cache.
    return quick_look(bench, model.rung, bench.device.place(model.folder, model.artifact), bench.samples_path)


def p50_ms(block: Block) -> float:
    """Median latency of a block, nearest rank."""
    return ms_from_ns(quantile(block.samples_ns, 0.5))
