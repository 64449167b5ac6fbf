"""What compression costs ResNet-20 in accuracy on CIFAR-10, by the methods of a build and with its recovery.

    python tools/bench_compression.py --cifar ../shared/data --output runs/compression
    python tools/bench_compression.py --cifar ../shared/data --output runs/compression --resume

Parts: `one-shot` zeroes single weights by each criterion, before and after the batch norms are re-estimated; `patterns`
the same in N:M and blocks, by the criteria of `--refit`; `channels` takes one share of every group's channels out, by
each criterion; `iterative` zeroes them in rounds with recovery; `structured` takes channels and blocks out until so
many times fewer multiply-accumulates are left, by the planner's losses; `deployed` compiles the dense and the
structured models for each runtime in float32 and INT8, and measures p50 on this machine, one thread, in turn with the
dense float32 one of that runtime; `built` is `edgeprune build` of the target (with `--built-epochs` of recovery), for
each runtime alone, so many times as fast as its dense float32: the planner chooses what to cut by the device's
milliseconds. Choices are made on the even half of the test images (the public weights have seen every training image).
The figures are those of the odd half, which is read for each row, when its model is made: no choice looks at them.
Every row and step is kept in `--output`, so that a run of hours goes on where it ended, with `--resume`: with the same
target, profile, data, device and libraries. Rows of other code stay, and are named below the table.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from bench_origin import origin_of
from bench_parts import KeptRows, add_output, kept_rows, opened_workbench
from compression_at_once import channels, one_shot, patterns
from compression_engine import STEPS, Engine, Options, Row
from compression_parts import built, deployed, iterative, structured

from edgeprune.pruning.criteria import CRITERIA
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.inputs import load_profile, load_target
from edgeprune.zero_patterns import checked_pattern

ONE_SHOT = (0.5, 0.6, 0.7, 0.8, 0.9)
ITERATIVE = (0.7, 0.8, 0.9)
CHANNELS = (0.125, 0.25)
PATTERNS = ("2:4", "4:8", "block1x4", "block4x1", "block16x1")
FEWER_MACS = (1.37, 2.0)
SPEEDUPS = (3.0,)
_PUBLISHED_SOURCE = "Benbaki et al. 2023, arXiv:2302.14623"
_PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "magnitude": (88.44, 85.24, 78.79, 54.01, 11.79),
    "WoodFisher": (90.23, 87.96, 81.05, 62.63, 11.49),
    "CHITA": (90.60, 89.22, 84.12, 57.90, 15.60),
}


PARTS: Mapping[str, Callable[[Engine, KeptRows[Row]], None]] = {
    "one-shot": one_shot,
    "patterns": patterns,
    "channels": channels,
    "iterative": iterative,
    "structured": structured,
    "deployed": deployed,
    "built": built,
}


def table(rows: Sequence[Row]) -> str:
    """Mean, standard deviation and number of the seeds, on the odd half; the mean on the even half.

    The median p50, and the mean speed-up at p50.
    """
    head = f"{'part':<11} {'method':<28} {'amount':>6} {'even half':>9} {'odd half':>8} {'sd':>5} {'n':>2} {'p50':>9}"
    lines = [f"{head} {'speed-up':>8}"]
    for entry in dict.fromkeys((r.part, r.method, r.amount) for r in rows):
        found = [r for r in rows if (r.part, r.method, r.amount) == entry]
        tests = [100 * r.test for r in found]
        deviation = f"{statistics.stdev(tests):.2f}" if len(tests) > 1 else "-"
        latencies = [r.p50_ms for r in found if r.p50_ms is not None]
        p50 = f"{statistics.median(latencies):.4f}" if latencies else "-"
        speedups = [r.speedup for r in found if r.speedup is not None]
        faster = f"{statistics.mean(speedups):.2f}x" if speedups else "-"
        details = "; ".join(dict.fromkeys(r.detail for r in found if r.detail))
        validation = 100 * statistics.mean(r.validation for r in found)
        odd = f"{statistics.mean(tests):>8.2f} {deviation:>5} {len(found):>2}"
        part, method, amount = entry
        line = f"{part:<11} {method:<28} {amount:>6g} {validation:>9.2f} {odd} {p50:>9} {faster:>8}  {details}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def published() -> str:
    """What others published of one-shot zeros in this network, to stand beside; of other weights (91.36 dense)."""
    lines = [f"published, one-shot, dense 91.36 ({_PUBLISHED_SOURCE}):"]
    for name, accuracies in _PUBLISHED.items():
        told = ", ".join(f"{share:.0%} {accuracy:.2f}" for share, accuracy in zip(ONE_SHOT, accuracies, strict=True))
        lines.append(f"  {name:<12} {told}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder with cifar10/ and cifar10_resnets/; or $EDGEPRUNE_DATA")
    parser.add_argument("--target", type=Path, default=Path("targets/cifar10-resnet20"), help="another one to compress")
    parser.add_argument("--profile", default="profiles/local-2x.toml", help="names the runtimes, deployed and built")
    parser.add_argument("--runtimes", nargs="+", help="of the profile's; by default all")
    add_output(parser)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--criteria", nargs="+", choices=CRITERIA.names(), default=CRITERIA.names(), help="at once")
    parser.add_argument(
        "--refit", nargs="*", choices=CRITERIA.names(), default=["l1", "obc"], help="one-shot and patterns"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--one-shot-shares", type=float, nargs="+", default=ONE_SHOT, help="of zeros, one-shot")
    parser.add_argument(
        "--patterns", type=checked_pattern, nargs="+", default=PATTERNS, help="of zeros, such as 2:4 or block4x1"
    )
    parser.add_argument("--channel-shares", type=float, nargs="+", default=CHANNELS, help="channels, at once")
    parser.add_argument("--shares", type=float, nargs="+", default=ITERATIVE, help="of zeros, iterative")
    parser.add_argument(
        "--fewer-macs", type=float, nargs="+", default=FEWER_MACS, help="times, structured and deployed"
    )
    parser.add_argument("--speedups", type=float, nargs="+", default=SPEEDUPS, help="at p50, built")
    parser.add_argument("--iterative-epochs", type=int, default=10, help="of recovery, over four rounds")
    parser.add_argument("--structured-epochs", type=int, default=20, help="of recovery, structured and deployed")
    parser.add_argument("--built-epochs", type=int, help="of recovery, built; by default the target's")
    parser.add_argument("--iterative-learning-rate", type=float, default=0.05, help="peak of recovery")
    parser.add_argument(
        "--structured-learning-rate", type=float, help="peak of recovery; by default a tenth of the training's"
    )
    arguments = parser.parse_args(argv)
    if arguments.iterative_epochs <= STEPS[-1][0]:
        parser.error(
            f"--iterative-epochs: expected more than {STEPS[-1][0]}, one a round, got {arguments.iterative_epochs}"
        )
    profile = load_profile(arguments.profile)
    runtimes = arguments.runtimes or list(profile.runtimes)
    if strange := sorted(set(runtimes) - set(profile.runtimes)):
        parser.error(f"--runtimes: profile {profile.name} has {', '.join(profile.runtimes)}, not {strange[0]}")
    profile = profile.model_copy(update={"runtimes": {name: profile.runtimes[name] for name in runtimes}})
    if arguments.cifar is not None:
        os.environ["EDGEPRUNE_DATA"] = str(arguments.cifar.resolve())
    # Epochs and rates of recovery are in the rows' names.
    kept = kept_rows(parser, arguments, Row, lambda: origin_of(load_target(arguments.target), profile), __file__)
    for part in arguments.parts:
        for seed in arguments.seeds:
            with _engine(arguments, profile, seed) as engine:
                PARTS[part](engine, kept)
    rows = list(kept.rows.values())
    print("\n".join([table(rows), *kept.of_other_code(rows)]))
    if "one-shot" in arguments.parts:
        print(published())


@contextmanager
def _engine(arguments: argparse.Namespace, profile: DeviceProfile, seed: int) -> Iterator[Engine]:
    target = load_target(arguments.target)
    target = replace(target, spec=target.spec.model_copy(update={"seed": seed}))
    with opened_workbench(target, profile, "local", arguments.output / f"seed{seed}") as bench:
        asked = {field.name: getattr(arguments, field.name) for field in fields(Options)}
        yield Engine(bench, Options(**asked))


if __name__ == "__main__":
    main()
