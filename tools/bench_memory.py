"""How well memory is predicted: a model's peak at random widths, from its full and its narrowest widths alone.

    python tools/bench_memory.py --nets resnet20 --scale 8 --configurations 4

For each net of `bench_cost_model.py`, runtime and precision: the model is compiled and measured at its full and at its
narrowest widths, then at random ones, whose peak was predicted before.

found: share of the compiled tensors' bytes that the model's own calls explain; `calls` where the compiled graphs of the
    two ends differ in more than sizes.
activ.: worst error of the predicted peak of the activations, against the schedule of the compiled file.
memory: median and worst error of the model's resident memory (beyond the runtime's own), against what the agent
    measured: by the two ends only; and by the shapes before it as well, as the search for widths has them.
weights, activ.: the fitted factors.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench_cost_model import RUNTIME_NAMES, Cell, compiled
from cost_model_nets import NETS, Net, make, with_ends

from edgeprune.deployment.inventory import load_device
from edgeprune.graph.activations import model_activations
from edgeprune.graph.groups import find_groups
from edgeprune.graph.operators import model_operators
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.operator_price import weight_count
from edgeprune.records.memory import MemoryForecast, OpenSchedule
from edgeprune.records.rung import GroupWidth, Limits, Precision, Rung, kept_widths
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.memory import compiled_schedule, shape_memory
from edgeprune.steps.session import DeviceSession, open_session
from edgeprune.units import BYTES_PER_MB, mb_from_bytes

_RUNS = 60


def scaled(net: Net, scale: int) -> Net:
    """The net on an input with `scale` times as many pixels a side, or tokens."""
    match net.input_shape:
        case (batch, tokens, features):
            return replace(net, input_shape=(batch, scale * tokens, features))
        case (batch, channels, *sides):
            return replace(net, input_shape=(batch, channels, *(scale * side for side in sides)))
    raise ValueError(f"an input of shape {net.input_shape}")


def measured(session: DeviceSession, cell: Cell, full: Mapping[str, int]) -> list[ShapeFigures]:
    """Compile and run every configuration of a cell."""
    found = []
    samples = np.random.default_rng(0).standard_normal((2, *cell.net.input_shape[1:]), dtype=np.float32)
    samples_path = session.place_samples(samples)
    for widths in cell.configurations:
        with tempfile.TemporaryDirectory() as folder:
            (job,) = compiled(replace(cell, configurations=(widths,)), Path(folder), singly=True)
            there = session.place(job.folder, job.artifact)
            block = session.block(cell.place, there, samples_path, _RUNS)
            schedule = compiled_schedule(job.folder / job.artifact.files[0].name, cell.place, print)
        found.append(
            ShapeFigures(
                rung=cell.place,
                p50_ms=0.0,
                p99_ms=0.0,
                artifact_bytes=job.artifact.size_bytes,
                peak_bytes=block.peak_bytes,
                base_bytes=block.base_bytes,
                widths=tuple(GroupWidth(group=g, before=full[g], after=w) for g, w in widths.items()),
                load_bytes=block.peak_load_bytes,
                run_bytes=block.peak_run_bytes,
                schedule=schedule,
            )
        )
    return found


def run_cell(session: DeviceSession, cell: Cell, calls: OpenSchedule, *, verbose: bool) -> None:
    """Measure and print one cell, whose first two configurations are its ends."""
    full = cell.configurations[0]
    dense, narrow, *others = measured(session, cell, full)

    def count(figures: ShapeFigures) -> int:
        widths = kept_widths(figures.widths)
        return sum(weight_count(use.at(widths)) for use in cell.uses if not use.unsupported)

    limits = Limits(memory_of="model")
    by_ends = [shape_memory(calls, count, limits, dense, narrow).take(figures) for figures in others]
    growing = shape_memory(calls, count, limits, dense, narrow)
    in_turn = [growing.take(figures) for figures in others]
    model = growing.book.model
    sizes = [mb_from_bytes(f.measured_bytes) for f in by_ends]
    activations = [f.activation_bytes / max(f.measured_activation_bytes, 1) - 1 for f in by_ends]
    found = "calls" if growing.followed is None else f"{growing.followed:.1%}"
    print(
        f"{cell.name:10} {cell.place.runtime:12} {cell.place.precision.value:8} {found:>6} "
        f"{min(sizes):6.1f}-{max(sizes):<6.1f} {_worst(activations):>8} {_errors(by_ends):>24} {_errors(in_turn):>24} "
        f"{model.weight_factor:7.2f} {model.activation_factor:6.2f}",
        flush=True,
    )
    for figures, forecast in zip(others, by_ends, strict=True) if verbose else ():
        print(
            f"  {[w.after for w in figures.widths]}: {forecast.summary}; activations {forecast.activation_bytes} ",
            end="",
        )
        print(f"of {forecast.measured_activation_bytes}", flush=True)


def _worst(errors: Sequence[float]) -> str:
    return f"{max(errors, key=abs):+.1%}"


def _errors(forecasts: Sequence[MemoryForecast]) -> str:
    """Median and worst, in MB and as a share."""
    beside = [abs(f.predicted_bytes - f.measured_bytes) / BYTES_PER_MB for f in forecasts]
    shares = [abs(f.error) for f in forecasts]
    return f"{np.median(beside):.2f}/{max(beside):.2f} MB {np.median(shares):.1%}/{max(shares):.1%}"


def main() -> int:
    """Print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=sorted(NETS), default=list(NETS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES.names(), default=list(RUNTIME_NAMES))
    parser.add_argument("--precisions", nargs="+", choices=["float32", "int8"], default=["float32", "int8"])
    parser.add_argument("--scale", type=int, default=8, help="times as many pixels a side, or tokens")
    parser.add_argument("--configurations", type=int, default=5, help="random ones, beside the two ends")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--own-lease",
        type=Path,
        help="a folder for a lease of its own: neighbours do not change memory, but are slowed",
    )
    parser.add_argument("--verbose", action="store_true", help="every configuration")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = load_device("local")
    if arguments.own_lease is not None:
        folder = str(arguments.own_lease.resolve())
        spec = spec.model_copy(update={"lease_folder": folder, "work_folder": folder})
    print(
        f"{'net':10} {'runtime':12} {'precision':8} {'found':>6} {'model, MB':>13} {'activ.':>8} "
        f"{'memory by two ends':>24} {'and trips before':>24} {'weights':>7} {'activ.':>6}"
    )
    with open_session(spec) as session:
        for name in arguments.nets:
            for cell, calls in cells(name, arguments):
                run_cell(session, cell, calls, verbose=arguments.verbose)
    return 0


def cells(name: str, arguments: argparse.Namespace) -> list[tuple[Cell, OpenSchedule]]:
    """The cells of one net, with what it calls."""
    import torch

    net = scaled(NETS[name], arguments.scale)
    model, example = make(net), torch.zeros(net.input_shape)
    groups = find_groups(model, example)
    calls = model_activations(model, example, groups.groups)
    configurations = with_ends(groups, net, arguments.configurations, arguments.seed)
    uses = model_operators(model, example, groups.groups)
    places = [
        Rung(runtime=runtime, precision=Precision(precision))
        for runtime in arguments.runtimes
        for precision in arguments.precisions
    ]
    return [(Cell(name=name, net=net, place=p, configurations=configurations, uses=uses), calls) for p in places]


if __name__ == "__main__":
    sys.exit(main())
