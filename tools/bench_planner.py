"""The planner against what people do instead, at equal latency on one device and after the same short recovery.

    EDGEPRUNE_DATA=../shared/data python tools/bench_planner.py --output runs/planner --epochs 3 --seeds 0 1 2
    ... --output runs/planner --resume --precision float32

For ResNet-20 on CIFAR-10, or another target with pretrained weights: at each budget (a speed-up of p50 over dense
float32 in the fastest runtime) every method proposes widths, and whole untrained shapes are measured until one meets
the budget. When all searches are done, each shape is pruned by the same criterion, recovered for the same epochs,
compiled and tested. All methods work at the same place: the runtime where the full widths are fastest in INT8, or with
`--precision float32` in float32. The budgets are over dense float32 in both. In INT8 a part of a budget is met by the
precision; where it meets all of it nothing is to be cut, no method can differ, and only `int8` has a row. In float32
all of it must come from widths and blocks: that is what a device without INT8 asks of the methods. What is done is kept
in `--output`, so that the bench goes on where it ended, with `--resume`: with the same target, profile, `--epochs`,
`--steps`, data, device and libraries. Rows of other code stay, and are named below the table. The test split chooses
nothing.

Methods: `planner` (this project's), `int8` (the precision alone), `uniform` (one ratio for all groups), `magnitude`
(torch-pruning's global L2 magnitude, rounded to multiples of 8), `macs` (the planner's losses, blocks and solver, with
multiply-accumulates for a price), `random` (widths by lot). Each may cut what the planner may, and takes the weakest of
its cuts that is measured to fit. Trips are counted alike: `whole` are the different whole models that a method had
measured besides the full widths, `tables` its trips for operators; one that was kept from an earlier budget counts
again. The sensitivity curves of `planner` and `macs` take no trip; they are taken before the first search.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from bench_origin import Origin, origin_of
from bench_parts import KeptRows, add_output, kept_rows, opened_workbench
from planner_contest import Contest
from planner_rivals import METHODS

from edgeprune.planning.allocation_problem import Configuration
from edgeprune.planning.feasibility import HEADROOM
from edgeprune.records.rung import Precision
from edgeprune.steps.candidates import CandidateMaker
from edgeprune.steps.inputs import Target, load_profile, load_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method at one budget with one seed; no p50: it found nothing; no accuracies: it waits for training."""

    precision: str
    speedup: float
    method: str
    seed: int
    limit_ms: float
    whole_trips: int
    table_trips: int
    search_s: float
    p50_ms: float | None = None
    widths: Mapping[str, int] = field(default_factory=dict)
    removed_blocks: tuple[str, ...] = ()
    validation: float | None = None
    test: float | None = None

    @property
    def entry(self) -> tuple[str, float, str, int]:
        """What it is a row of."""
        return self.precision, self.speedup, self.method, self.seed

    @property
    def shape(self) -> Configuration:
        """What was found."""
        return Configuration(widths=self.widths, removed_blocks=frozenset(self.removed_blocks))

    @property
    def met(self) -> bool:
        """Whether what was found is within the budget."""
        return self.p50_ms is not None and self.p50_ms <= self.limit_ms


def search(contest: Contest, speedup: float, method: str) -> Row:
    """Find a shape that meets the budget."""
    limit_ms, counted = contest.dense_ms / speedup, contest.counted
    # Those of the full widths are every method's.
    whole = contest.whole
    counted.shapes.clear()
    counted.tables, started_s = 0, time.monotonic()
    found = METHODS[method](contest, HEADROOM * limit_ms)
    row = Row(
        precision=whole.rung.precision.value,
        speedup=speedup,
        method=method,
        seed=contest.bench.target.spec.seed,
        limit_ms=limit_ms,
        whole_trips=len([rung for rung, *_ in counted.shapes if rung != whole.rung]),
        table_trips=counted.tables,
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
    """Mean and standard error over the seeds, by budget and method, and the planner beside the best of the others."""
    columns = f"{'p50 / limit':>12} {'test accuracy':>16} {'whole':>6} {'tables':>6} {'search':>8} seeds"
    lines = [f"{'budget':>7} {'method':<10} {columns}"]
    for speedup in sorted({r.speedup for r in rows}):
        of = {m: [r for r in rows if (r.speedup, r.method) == (speedup, m)] for m in METHODS}
        lines += [_line(found) for found in of.values() if found]
        if any(r.met for r in of["int8"]):
            lines.append(f"{'':>7} INT8 alone is enough: all methods keep the full widths, and nothing is compared")
        else:
            lines += _verdict(of)
    return "\n".join(lines)


def _line(found: Sequence[Row]) -> str:
    start = f"{found[0].speedup:>6.2f}x {found[0].method:<10}"
    whole, tables, search_s = (
        statistics.mean(of) for of in zip(*((r.whole_trips, r.table_trips, r.search_s) for r in found), strict=True)
    )
    end = f"{whole:>6.1f} {tables:>6.1f} {search_s:>6.0f} s"
    met = [r.p50_ms / r.limit_ms for r in found if r.p50_ms is not None and r.met]
    if not met:
        return f"{start} {'nothing meets it':>29} {end} {len(found)}"
    percents = _percents(found)
    told = f"{statistics.mean(percents):>8.2f} +- {_error(percents):4.2f}" if percents else f"{'not yet':>16}"
    return f"{start} {statistics.mean(met):>12.3f} {told} {end} {len(met)} of {len(found)}"


def _verdict(of: Mapping[str, Sequence[Row]]) -> list[str]:
    """By how much the planner is over the best of the others, in points, with the standard error of the difference."""
    ours = _percents(of["planner"])
    others = {m: p for m, found in of.items() if m != "planner" and (p := _percents(found))}
    if not ours or not others:
        return []
    best = max(others, key=lambda m: statistics.mean(others[m]))
    over = statistics.mean(ours) - statistics.mean(others[best])
    error = (_error(ours) ** 2 + _error(others[best]) ** 2) ** 0.5
    return [f"{'':>7} the planner is at {over:+.2f} +- {error:.2f} points from the best of the others, {best}"]


def _percents(found: Sequence[Row]) -> list[float]:
    return [100 * r.test for r in found if r.met and r.test is not None]


def _error(percents: Sequence[float]) -> float:
    """Standard error of the mean; not a number for one value."""
    return float(statistics.stdev(percents) / len(percents) ** 0.5) if len(percents) > 1 else float("nan")


def main(given: Sequence[str] | None = None) -> None:
    """Run the contest, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="targets/cifar10-resnet20")
    parser.add_argument("--profile", default="profiles/local-2x.toml")
    parser.add_argument("--device", default="local")
    add_output(parser)
    parser.add_argument(
        "--precision", choices=["int8", "float32"], default="int8", help="where widths are searched for"
    )
    parser.add_argument(
        "--speedups", type=float, nargs="+", default=[2.0, 2.5, 3.0, 4.0, 20.0], help="the last one cannot be met"
    )
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--steps", type=int, default=32, help="strengths of each rival that are tried")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3, help="of recovery, the same for all")
    arguments = parser.parse_args(given)
    kept = kept_rows(parser, arguments, Row, partial(_origin, arguments), __file__)
    for work in (_search_all, _train_all):
        for seed in arguments.seeds:
            with _contest(arguments, seed) as contest:
                work(contest, arguments, kept)
    asked = [r for r in kept.rows.values() if _is_asked_for(r, arguments)]
    print(f"widths are searched for in {arguments.precision}; recovery takes {arguments.epochs} epochs")
    print("\n".join([table(asked), *kept.of_other_code(asked)]))


def _is_asked_for(row: Row, arguments: argparse.Namespace) -> bool:
    return (
        row.precision == arguments.precision
        and row.speedup in arguments.speedups
        and row.method in {*arguments.methods, "int8"}
        and row.seed in arguments.seeds
    )


def _search_all(contest: Contest, arguments: argparse.Namespace, kept: KeptRows[Row]) -> None:
    seed = contest.bench.target.spec.seed
    if {"planner", "macs"} & set(arguments.methods):
        contest.take_losses()
    for speedup in arguments.speedups:
        methods = [m for m in arguments.methods if arguments.precision == "int8" or m != "int8"]
        if arguments.precision == "int8" and contest.whole.p50_ms <= HEADROOM * contest.dense_ms / speedup:
            methods = ["int8"]
        for method in methods:
            if (arguments.precision, speedup, method, seed) not in kept.rows:
                kept.add(search(contest, speedup, method))


def _train_all(contest: Contest, arguments: argparse.Namespace, kept: KeptRows[Row]) -> None:
    """Each shape once: methods may have found the same one."""
    seed = contest.bench.target.spec.seed
    trained = {_trained(r): r for r in kept.rows.values() if r.test is not None and kept.is_of_this_code(r)}
    for row in [r for r in kept.rows.values() if r.seed == seed and _is_asked_for(r, arguments)]:
        if row.met and row.test is None:
            same = trained.get(_trained(row)) or train(contest, row)
            trained[_trained(row)] = same
            kept.add(replace(row, validation=same.validation, test=same.test), begun=True)


def _trained(row: Row) -> tuple[object, ...]:
    return row.precision, row.seed, tuple(sorted(row.widths.items())), tuple(row.removed_blocks)


@contextmanager
def _contest(arguments: argparse.Namespace, seed: int) -> Iterator[Contest]:
    target, profile = _target(arguments), load_profile(arguments.profile)
    target = replace(target, spec=target.spec.model_copy(update={"seed": seed}))
    with opened_workbench(target, profile, arguments.device, arguments.output / f"seed{seed}") as bench:
        yield Contest(bench, Precision(arguments.precision), arguments.steps)


def _target(arguments: argparse.Namespace) -> Target:
    """Recovered for so many epochs, at its own seed."""
    target = load_target(arguments.target)
    recovery = target.spec.recovery.model_copy(update={"epochs": arguments.epochs, "rounds": 1})
    return replace(target, spec=target.spec.model_copy(update={"recovery": recovery}))


def _origin(arguments: argparse.Namespace) -> Origin:
    """All runtimes have a say in a row: the fastest one is its place."""
    profile = load_profile(arguments.profile)
    asked = {"steps": arguments.steps}
    return origin_of(_target(arguments), profile, device=arguments.device, by_runtime=False, asked=asked)


if __name__ == "__main__":
    main()
