"""The planner against what people do instead, at equal latency on one device and after the same short recovery.

    EDGEPRUNE_DATA=../shared/data python tools/bench_planner.py --output runs/planner --epochs 3 --seeds 0 1 2

For ResNet-20 on CIFAR-10, or another target with pretrained weights: at each budget (a speed-up of p50 over dense
float32 in the fastest runtime) every method proposes widths, and whole untrained shapes are measured until one meets
the budget. When all searches are done, each shape is pruned by the same criterion, recovered for the same epochs,
compiled to INT8 and tested. All methods work at the same place, where INT8 at full widths is fastest; where that meets
the budget, nothing is cut. What is done is kept in `--output`, so that the bench goes on where it ended. The test split
chooses nothing.

Methods: `planner` (this project's), `uniform` (one ratio for all groups), `magnitude` (torch-pruning's global L2
magnitude with round_to=8), `macs` (the planner's losses and solver, with multiply-accumulates for a price), `random`
(widths by lot).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from bench_parts import KeptRows, millions_of_macs, opened_workbench

from edgeprune.planning.allocation import Allocation, allocate, cheapest
from edgeprune.planning.allocation_problem import Configuration
from edgeprune.planning.cost import CostModel
from edgeprune.planning.feasibility import HEADROOM, ShapeFigures
from edgeprune.planning.shape_problem import LATENCY
from edgeprune.records.rung import GroupWidth, Limits, PlannedRung, Precision, Rung, RungStatus, kept_widths
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.candidates import CandidateMaker
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.inputs import load_profile, load_target
from edgeprune.steps.narrowing import Narrower, structured_rung
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.shapes import ShapeBench
from edgeprune.steps.workbench import Workbench

_STEPS = 32
_LOTS = 12
_NEAR = 0.93

Widths = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method at one budget with one seed; no p50: it found nothing; no accuracies: it waits for training."""

    speedup: float
    method: str
    seed: int
    limit_ms: float
    trips: int
    search_s: float
    p50_ms: float | None = None
    widths: Mapping[str, int] = field(default_factory=dict)
    removed_blocks: tuple[str, ...] = ()
    validation: float | None = None
    test: float | None = None

    @property
    def entry(self) -> tuple[float, str, int]:
        """What it is a row of."""
        return self.speedup, self.method, self.seed

    @property
    def shape(self) -> Configuration:
        """What was found."""
        return Configuration(widths=self.widths, removed_blocks=frozenset(self.removed_blocks))


@dataclass
class Contest:
    """One workbench, and what all methods share."""

    bench: Workbench
    trips: int = 0
    compressor: Compressor = field(init=False)
    shapes: ShapeBench = field(init=False)
    narrower: Narrower = field(init=False)

    def __post_init__(self) -> None:
        self.compressor = Compressor(self.bench)
        self.shapes = ShapeBench(self.bench)
        self.narrower = Narrower(self.shapes, GroupLosses(self.compressor, may_train=False))

    @cached_property
    def full(self) -> dict[str, int]:
        """Width of each group."""
        return {g.name: g.width for g in self.bench.groups.groups}

    @cached_property
    def dense_ms(self) -> float:
        """p50 of dense float32 in the fastest runtime."""
        return min(self._unpruned(name, Precision.FLOAT32).p50_ms for name in self._runtimes)

    @cached_property
    def whole(self) -> ShapeFigures:
        """INT8 at full widths where it is fastest: the place of the contest."""
        return min((self._unpruned(name, Precision.INT8) for name in self._runtimes), key=lambda f: f.p50_ms)

    @property
    def _runtimes(self) -> list[str]:
        return [r for r in self.bench.profile.runtimes if r in RUNTIMES.names()]

    def _unpruned(self, runtime: str, precision: Precision) -> ShapeFigures:
        return self.shapes.measure(Rung(runtime=runtime, precision=precision))

    def measure(self, widths: Widths) -> float:
        """p50 of the whole untrained model, in ms; a trip."""
        self.trips += 1
        return self.figures(Configuration(widths=widths)).p50_ms

    def figures(self, shape: Configuration) -> ShapeFigures:
        """What the device shows for a shape."""
        planned = self.planned(shape)
        return self.shapes.measure(planned.rung, planned.widths, planned.removed_blocks)

    def planned(self, shape: Configuration) -> PlannedRung:
        """A shape as a plan has it; the rung of full widths where nothing is cut."""
        after = shape.widths
        widths = tuple(GroupWidth(group=g, before=full, after=after.get(g, 0)) for g, full in self.full.items())
        blocks = tuple(b for b in self.bench.blocks.removable if b in shape.removed_blocks)
        cut = bool(blocks) or any(w.after < w.before for w in widths)
        return PlannedRung(
            rung=structured_rung(self.whole.rung, widths, blocks) if cut else self.whole.rung,
            status=RungStatus.PLANNED,
            reason="contest",
            accuracy_cost=0.0,
            widths=widths if cut else (),
            removed_blocks=blocks,
        )

    def weakest(self, propose: Callable[[float], Widths], limit_ms: float) -> Configuration | None:
        """The least strength in (0, 1] whose widths are measured to meet the limit, by bisection over 32 steps."""
        low, high, found = 0, _STEPS, None
        while low < high:
            middle = (low + high) // 2
            widths = propose((middle + 1) / _STEPS)
            if self.measure(widths) <= limit_ms:
                high, found = middle, widths
            else:
                low = middle + 1
        return Configuration(widths=found) if found else None


def planner(contest: Contest, limit_ms: float) -> Configuration | None:
    """This project's."""
    narrow = contest.narrower.fastest_admissible(contest.whole.rung)
    head = contest.narrower.plan(contest.whole, narrow, Limits(p50_ms=limit_ms))[0]
    contest.trips += 1 + len(head.trips)
    if head.status is not RungStatus.PLANNED:
        return None
    return Configuration(widths=kept_widths(head.widths), removed_blocks=frozenset(head.removed_blocks))


def uniform(contest: Contest, limit_ms: float) -> Configuration | None:
    """The same share of every group."""
    most = max(contest.bench.target.spec.pruning.ratios)
    return contest.weakest(
        lambda strength: {g: max(1, round(w * (1 - most * strength))) for g, w in contest.full.items()}, limit_ms
    )


def magnitude(contest: Contest, limit_ms: float) -> Configuration | None:
    """torch-pruning's global L2 magnitude, widths rounded to multiples of 8."""
    import torch_pruning
    from torch import nn

    most = max(contest.bench.target.spec.pruning.ratios)

    def propose(strength: float) -> Widths:
        model = contest.bench.fresh_model().eval()
        layers = dict(model.named_modules())
        kept = [
            m for n, m in layers.items() if isinstance(m, nn.Conv2d | nn.Conv1d | nn.Linear) and n not in contest.full
        ]
        torch_pruning.pruner.MetaPruner(
            model,
            contest.bench.example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=most * strength,
            max_pruning_ratio=most,
            round_to=8,
            ignored_layers=kept,
        ).step()
        return {g: int(layers[g].weight.shape[0]) for g in contest.full}

    return contest.weakest(propose, limit_ms)


def macs(contest: Contest, limit_ms: float) -> Configuration | None:
    """The planner's own losses and solver, but multiply-accumulates in the place of measured time."""
    narrow = contest.narrower.fastest_admissible(contest.whole.rung)
    priced = replace(contest.narrower.problem(contest.whole.rung, narrow), entry_ms=millions_of_macs, blocks=())
    problem = priced.allocation(CostModel())
    least, most = cheapest(problem, LATENCY, {}), problem.used(Configuration(widths=contest.full), LATENCY)
    if not isinstance(least, Allocation):
        return None
    lowest = least.used[LATENCY]

    def propose(strength: float) -> Widths:
        found = allocate(problem, {LATENCY: most - strength * (most - lowest)})
        return found.widths if isinstance(found, Allocation) else least.widths

    return contest.weakest(propose, limit_ms)


def random_widths(contest: Contest, limit_ms: float) -> Configuration | None:
    """By lot among multiples of 8 until one is just under the limit, or the slowest of those that fit."""
    generator = np.random.default_rng(contest.bench.target.spec.seed)
    most = max(contest.bench.target.spec.pruning.ratios)
    fitting: list[tuple[float, Widths]] = []
    for _ in range(_LOTS):
        strength = generator.uniform(0.2, 1.0)
        drawn = {g: w * (1 - most * min(1.0, generator.uniform(0, 2 * strength))) for g, w in contest.full.items()}
        widths = {g: max(4, min(contest.full[g], 8 * round(w / 8))) for g, w in drawn.items()}
        p50_ms = contest.measure(widths)
        if p50_ms <= limit_ms:
            fitting.append((p50_ms, widths))
            if p50_ms >= _NEAR * limit_ms:
                break
    return Configuration(widths=max(fitting, key=lambda f: f[0])[1]) if fitting else None


METHODS: Mapping[str, Callable[[Contest, float], Configuration | None]] = {
    "planner": planner,
    "uniform": uniform,
    "magnitude": magnitude,
    "macs": macs,
    "random": random_widths,
}


def search(contest: Contest, speedup: float, method: str) -> Row:
    """Find a shape that meets the budget."""
    limit_ms = contest.dense_ms / speedup
    contest.trips, started_s = 0, time.monotonic()
    if contest.whole.p50_ms <= HEADROOM * limit_ms:
        found: Configuration | None = Configuration(widths=contest.full)
    else:
        aim_ms = limit_ms if method == "planner" else HEADROOM * limit_ms
        found = METHODS[method](contest, aim_ms)
    row = Row(
        speedup=speedup,
        method=method,
        seed=contest.bench.target.spec.seed,
        limit_ms=limit_ms,
        trips=contest.trips,
        search_s=time.monotonic() - started_s,
    )
    if found is None:
        return row
    blocks = tuple(sorted(found.removed_blocks))
    return replace(row, p50_ms=contest.figures(found).p50_ms, widths=dict(found.widths), removed_blocks=blocks)


def train(contest: Contest, row: Row) -> Row:
    """Recover, compile, test."""
    planned = contest.planned(row.shape)
    maker = CandidateMaker(contest.bench, contest.compressor)
    compiled = maker.compile(planned)
    test = maker.assessor.accuracy(planned.rung, compiled.artifact, compiled.folder, contest.bench.data.test, "test")
    return replace(row, validation=compiled.evaluation.accuracy.overall, test=test.overall)


def table(rows: Sequence[Row]) -> str:
    """Mean and standard error over the seeds, by budget and method."""
    lines = [f"{'budget':>7} {'method':<10} {'p50 / limit':>12} {'test accuracy':>16} {'trips':>6} {'search':>8} seeds"]
    for speedup, method in dict.fromkeys((r.speedup, r.method) for r in rows):
        found = [r for r in rows if (r.speedup, r.method) == (speedup, method)]
        start = f"{speedup:>6.2f}x {method:<10}"
        end = f"{statistics.mean(r.trips for r in found):>6.1f} {statistics.mean(r.search_s for r in found):>6.0f} s"
        met = [r.p50_ms / r.limit_ms for r in found if r.p50_ms is not None]
        if not met:
            lines.append(f"{start} {'nothing meets it':>29} {end} {len(found)}")
            continue
        accuracies = [100 * r.test for r in found if r.test is not None]
        error = statistics.stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else float("nan")
        told = f"{statistics.mean(accuracies):>8.2f} +- {error:4.2f}" if accuracies else f"{'not yet':>16}"
        lines.append(f"{start} {statistics.mean(met):>12.3f} {told} {end} {len(accuracies)}")
    return "\n".join(lines)


def main() -> None:
    """Run the contest, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="targets/cifar10-resnet20")
    parser.add_argument("--profile", default="profiles/local-2x.toml")
    parser.add_argument("--device", default="local")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--speedups", type=float, nargs="+", default=[2.0, 2.5, 3.0, 4.0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3, help="of recovery, the same for all")
    arguments = parser.parse_args()
    kept = KeptRows(arguments.output / "rows.json", Row)
    for work in (_search_all, _train_all):
        for seed in arguments.seeds:
            with _contest(arguments, seed) as contest:
                work(contest, arguments, kept)
    print(table([r for r in kept.rows.values() if r.method in arguments.methods]))


def _search_all(contest: Contest, arguments: argparse.Namespace, kept: KeptRows[Row]) -> None:
    seed = contest.bench.target.spec.seed
    for speedup in arguments.speedups:
        for method in arguments.methods:
            if (speedup, method, seed) not in kept.rows:
                kept.add(search(contest, speedup, method))


def _train_all(contest: Contest, arguments: argparse.Namespace, kept: KeptRows[Row]) -> None:
    seed = contest.bench.target.spec.seed
    for row in [r for r in kept.rows.values() if r.seed == seed and r.method in arguments.methods]:
        if row.p50_ms is not None and row.test is None and row.speedup in arguments.speedups:
            kept.add(train(contest, row))


@contextmanager
def _contest(arguments: argparse.Namespace, seed: int) -> Iterator[Contest]:
    target = load_target(arguments.target)
    recovery = target.spec.recovery.model_copy(update={"epochs": arguments.epochs, "rounds": 1})
    target = replace(target, spec=target.spec.model_copy(update={"seed": seed, "recovery": recovery}))
    profile = load_profile(arguments.profile)
    with opened_workbench(target, profile, arguments.device, arguments.output / f"seed{seed}") as bench:
        yield Contest(bench)


if __name__ == "__main__":
    main()
