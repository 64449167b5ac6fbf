"""Whole ResNet-18s of several base widths on this host, beside the sum of their operator tables.

    python tools/show_whole_widths.py --bases 48 56 60 64 --size 32

Tells whether a width is slower than a larger one in a whole model, and whether the tables, which price each operator in
a company of its own, put the widths in the same order. Beside p50 stands the latency of runs that were left alone;
`x whole` and `x tables` are that and the tables' sum against those of the widest net, for `x work` of its
multiplications.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.errors import MeasurementError
from edgeprune.graph.cost import count_macs
from edgeprune.graph.operators import model_operators
from edgeprune.planning.cost import cost_terms
from edgeprune.records.operators import OperatorUse
from edgeprune.records.profiled import ProfileRequest, Timing
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact
from edgeprune.steps.fresh_weights import draw_norms_
from edgeprune.steps.profiles import time_all
from edgeprune.steps.session import DeviceSession, open_host_session
from edgeprune.steps.tables import OperatorTables

if TYPE_CHECKING:
    from torch import Tensor, nn

_LARGE = 64


def resnet18(width: int, size: int) -> nn.Module:
    """A ResNet-18 whose first stage has `width` channels; inputs of up to 64 pixels get the stem for CIFAR."""
    import torch
    from torch import nn
    from torch.nn import functional

    def convolution(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
        layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(after))

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = convolution(before, after, 3, stride), convolution(after, after, 3, 1)
            self.beside = convolution(before, after, 1, stride) if before != after else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return functional.relu(self.second(functional.relu(self.first(x))) + self.beside(x))

    torch.manual_seed(0)
    stem = convolution(3, width, 7, 2) if size > _LARGE else convolution(3, width, 3, 1)
    layers: list[nn.Module] = [stem, nn.ReLU(), *([nn.MaxPool2d(3, 2, 1)] if size > _LARGE else [])]
    widths = [width, *(width << stage for stage in range(4) for _ in range(2))]
    for number, (before, after) in enumerate(pairwise(widths)):
        layers.append(Block(before, after, 2 if number and number % 2 == 0 else 1))
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)).eval()
    draw_norms_(model)
    return model


def timed(session: DeviceSession, models: list[nn.Module], size: int, place: Rung, rounds: int) -> list[Timing]:
    """The whole models, each compiled as a build does, their rounds interleaved."""
    shape = (1, 3, size, size)
    samples = np.random.default_rng(0).standard_normal((2, *shape[1:]), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for number, model in enumerate(models):
            own = Path(folder) / str(number)
            own.mkdir()
            artifact = compile_artifact(CompileJob(model, shape, samples), place, own)
            jobs.append(ProfileJob(folder=own, artifact=artifact, input_shape=shape))
        request = ProfileRequest(runtime=place.runtime, threads=place.threads, rounds=rounds, round_s=0.05)
        found = []
        for timing in time_all(session, request, jobs):
            if isinstance(timing, MeasurementError):
                raise timing
            found.append(timing)
    return found


def main() -> int:
    """Print a row for each base width; exit code 1 where the tables put them in another order than the whole models."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", type=int, nargs="+", default=[48, 56, 60, 64])
    parser.add_argument("--size", type=int, default=32, help="of the square input, in pixels")
    parser.add_argument("--runtime", choices=RUNTIMES.names(), default="openvino")
    parser.add_argument("--precision", choices=["float32", "int8"], default="int8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=18)
    arguments = parser.parse_args()
    place = Rung(runtime=arguments.runtime, precision=Precision(arguments.precision), threads=arguments.threads)
    bases, size = sorted(set(arguments.bases)), arguments.size
    torch.set_num_threads(1)
    models, example = [resnet18(base, size) for base in bases], torch.zeros(1, 3, size, size)
    work = [count_macs(model, example) for model in models]
    uses = [model_operators(model, example, ()) for model in models]
    with open_host_session() as session:
        whole = timed(session, models, size, place, arguments.rounds)
        tables = OperatorTables(session, lambda text: print(f"  {text}", file=sys.stderr, flush=True))
        tables.ensure((use.shape for model in uses for use in model), place)
        sums = [_sum_by_kind(model, tables, place) for model in uses]
    print(f"ResNet-18, {size}x{size} pixels, {place.name}; milliseconds; ?: disturbed")
    print(f"{'base':>6} {'p50':>9} {'alone':>9} {'tables':>9} {'x work':>7} {'x whole':>8} {'x tables':>9}  by kind")
    for base, timing, kinds, macs in zip(bases, whole, sums, work, strict=True):
        total, last = sum(kinds.values()), sum(sums[-1].values())
        print(
            f"{base:6d} {timing.p50_ms:9.4f} {timing.latency_ms:9.4f}{'?' if timing.disturbed else ''} {total:9.4f} "
            f"{macs / work[-1]:7.2f} {timing.latency_ms / whole[-1].latency_ms:8.3f} {total / last:9.3f}  "
            + ", ".join(f"{kind} {ms:.3f}" for kind, ms in kinds.items())
        )
    measured = sorted(range(len(bases)), key=lambda n: whole[n].latency_ms)
    told = sorted(range(len(bases)), key=lambda n: sum(sums[n].values()))
    print(f"fastest first: whole {[bases[n] for n in measured]}, tables {[bases[n] for n in told]}")
    return 0 if measured == told else 1


def _sum_by_kind(uses: tuple[OperatorUse, ...], tables: OperatorTables, place: Rung) -> dict[str, float]:
    return dict(cost_terms(uses, {}, lambda shape: tables.latency_ms(shape, place)).by_kind)


if __name__ == "__main__":
    sys.exit(main())
