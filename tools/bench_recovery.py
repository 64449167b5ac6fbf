"""What each way to win accuracy back gives a net that is trained here: zeros in rounds, by the same epochs.

    python tools/bench_recovery.py --data ../shared/data --output runs/recovery
    python tools/bench_recovery.py --data ../shared/data --output runs/recovery --resume

By default LeNet-300-100 on Fashion-MNIST (`targets/fashion-lenet`): winning tickets were found in this net. Each round
takes the same fraction of what remains, and trains for as long as the dense net was trained:

- `fine-tuned`: with the weights that are left, at a tenth of the rate; by magnitude, as all that do not say otherwise;
- `tickets`: with the weights from before any training, at the whole rate; `fresh weights`: the zeros of the tickets,
  other initial weights; `tickets by lot`: zeros by lot (Frankle and Carbin 2019, arXiv:1803.03635);
- `rate rewound`: with the weights that are left, at the whole rate (Renda et al. 2020, arXiv:2003.02389);
- `movement`: fine-tuned, by how training moves weights (Sanh et al. 2020, arXiv:2005.07683); `by lot`: fine-tuned,
  zeros by lot;
- `logits`, `features`, `both`: fine-tuned, taught by the dense net's soft labels (Hinton et al. 2015,
  arXiv:1503.02531), by the outputs of its layers `--features` (Romero et al. 2015, arXiv:1412.6550), or by both.

Nothing is chosen here: the test split is read for each row. Rows and steps are kept in `--output`, to go on with by
`--resume`: with the same target, profile, data, device and libraries. Rows of other code stay, and are named below the
table.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench_origin import origin_of
from bench_parts import accuracies, add_output, kept_rows, opened_workbench, zeroed_rung

from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.inputs import Target, load_profile, load_target

DENSE, FRESH = "dense", "fresh weights"


@dataclass(frozen=True)
class Way:
    """By default fine-tuned without a teacher.

    Attributes:
        criterion: of the weights that go.
        rewind: as in `[recovery]`.
        soft_labels: their share of the loss.
        by_features: whether layers are compared with the dense net's.
    """

    criterion: str = "l1"
    rewind: str = "none"
    soft_labels: float = 0.0
    by_features: bool = False


WAYS: Mapping[str, Way] = {
    "fine-tuned": Way(),
    "tickets": Way(rewind="weights"),
    FRESH: Way(rewind="weights"),
    "tickets by lot": Way("random", rewind="weights"),
    "rate rewound": Way(rewind="learning_rate"),
    "movement": Way("movement"),
    "by lot": Way("random"),
    "logits": Way(soft_labels=0.5),
    "features": Way(by_features=True),
    "both": Way(soft_labels=0.5, by_features=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model; `zeros` is the share that was asked for of the layers that masks may zero, `sparsity` that of all."""

    way: str
    zeros: float
    seed: int
    validation: float
    test: float
    sparsity: float = 0.0

    @property
    def entry(self) -> tuple[str, float, int]:
        """What it is a row of."""
        return self.way, self.zeros, self.seed


@dataclass(frozen=True)
class Bench:
    """What all rows of a run share."""

    arguments: argparse.Namespace
    profile: DeviceProfile

    def row(self, name: str, zeros: float, seed: int) -> Row:
        """Trained, pruned and recovered, and judged on both splits."""
        with self._compressor(WAYS.get(name, Way()), seed) as compressor:
            made = compressor.dense if name == DENSE else compressor.compressed(zeroed_rung(zeros))
            if name == FRESH:
                made = compressor.from_scratch(made)
            validation, test = accuracies(compressor.bench, compressor.load(made))
        return Row(way=name, zeros=zeros, seed=seed, validation=validation, test=test, sparsity=made.sparsity)

    @contextmanager
    def _compressor(self, way: Way, seed: int) -> Iterator[Compressor]:
        """On a workbench whose steps all ways share."""
        target = _seeded(load_target(self.arguments.target), way, seed)
        with opened_workbench(target, self.profile, "local", self.arguments.output / f"seed{seed}") as bench:
            rounds = self.arguments.rounds
            recovery = {
                "rounds": rounds,
                "schedule": "geometric",
                "epochs": rounds * target.spec.training.epochs,
                "rewind": way.rewind,
                "rewind_to": 0.0,
                "distillation_weight": way.soft_labels,
                "features": tuple(self.arguments.features) if way.by_features else (),
            }
            yield Compressor(bench, short_recovery=target.spec.recovery.model_copy(update=recovery))


def _seeded(target: Target, way: Way, seed: int) -> Target:
    pruning = target.spec.pruning.model_copy(update={"weight_criterion": way.criterion})
    return replace(target, spec=target.spec.model_copy(update={"seed": seed, "pruning": pruning}))


def table(rows: Sequence[Row]) -> str:
    """Of each way and share: mean over the seeds, standard deviation, and less than the dense nets of these seeds."""
    dense = {r.seed: r.test for r in rows if r.way == DENSE}
    lines = [
        f"{'way':<15} {'zeros':>6} {'validation':>10} {'test':>6} {'sd':>5} {'n':>2} {'to dense':>8} {'of all':>6}"
    ]
    for way, zeros in dict.fromkeys((r.way, r.zeros) for r in rows):
        found = [r for r in rows if (r.way, r.zeros) == (way, zeros)]
        tests = [100 * r.test for r in found]
        deviation = f"{statistics.stdev(tests):.2f}" if len(tests) > 1 else "-"
        lost = statistics.mean(100 * (r.test - dense[r.seed]) for r in found)
        validation, sparsity = (
            statistics.mean(x) for x in zip(*((r.validation, r.sparsity) for r in found), strict=True)
        )
        mean = f"{100 * validation:>10.2f} {statistics.mean(tests):>6.2f} {deviation:>5} {len(found):>2}"
        lines.append(f"{way:<15} {zeros:>6g} {mean} {lost:>+8.2f} {sparsity:>6.4f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that $EDGEPRUNE_DATA is to name")
    parser.add_argument("--target", type=Path, default=Path("targets/fashion-lenet"), help="with no weights of its own")
    parser.add_argument("--profile", default="profiles/local-2x.toml")
    add_output(parser)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.9, 0.98], help="of zeros")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--features", nargs="+", default=["fc1", "fc2"], help="layers that the dense net teaches by")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args(argv)
    if arguments.data is not None:
        os.environ["EDGEPRUNE_DATA"] = str(arguments.data.resolve())
    bench = Bench(arguments, load_profile(arguments.profile))
    asked = {"rounds": arguments.rounds, "features": arguments.features}
    origin = partial(origin_of, load_target(arguments.target), bench.profile, asked=asked)
    kept = kept_rows(parser, arguments, Row, origin, __file__)
    for seed in arguments.seeds:
        for zeros, name in [(0.0, DENSE), *((s, w) for s in arguments.shares for w in arguments.ways)]:
            if (name, zeros, seed) not in kept.rows:
                kept.add(bench.row(name, zeros, seed))
    rows = list(kept.rows.values())
    print("\n".join([table(rows), *kept.of_other_code(rows)]))


if __name__ == "__main__":
    main()
