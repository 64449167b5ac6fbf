"""How well the model cost predicts: whole-model p50 from the operator tables, at random widths held out of the fit.

    python tools/bench_cost_model.py --configurations 40 --output runs/cost-model

For each net, runtime and precision: tables of the operators that the configurations need, a fit to a few whole models
(`--fit`), and the error on the others. Whole models are compiled by the converters and quantizers of a build, several
joined in one module that is then cut (`--singly`: one by one), and many are measured in a trip. What is measured is
kept in `--output`, so that the bench goes on where it ended; tables are kept beside the inventory. The targets are a
median error of 5 %, a worst one of 15 % and a rank correlation of 0.98.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.errors import MeasurementError
from edgeprune.files import write_atomically
from edgeprune.graph.groups import Groups, find_groups
from edgeprune.graph.operators import model_operators
from edgeprune.planning.cost import CostModel, Observation, Terms, cost_terms
from edgeprune.profiling.slicing import SLICERS
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.surgery import structured_prune
from edgeprune.records.operators import OperatorUse
from edgeprune.records.profiled import ProfileRequest
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact
from edgeprune.steps.profiles import time_all
from edgeprune.steps.session import DeviceSession, open_host_session
from edgeprune.steps.shapes import draw_norms_
from edgeprune.steps.tables import OperatorTables
from edgeprune.store.artifacts import describe_files
from edgeprune.store.run_folder import digest

if TYPE_CHECKING:
    from torch import Tensor, nn

MEDIAN, WORST, RANK = 0.05, 0.15, 0.98
_TARGET = Path(__file__).parents[1] / "targets" / "cifar10-resnet20" / "model.py"
_BATCH = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A net of the bench: its factory, its input's shape, and the step between widths."""

    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One net at one place, with the widths of all its configurations."""

    name: str
    net: Net
    place: Rung
    configurations: tuple[Mapping[str, int], ...]
    uses: tuple[OperatorUse, ...]


@dataclass(slots=True)
class Kept:
    """Whole-model latencies that were measured, by their widths, in a file of the cell."""

    path: Path
    latencies_ms: dict[str, float] = field(default_factory=dict)
    disturbed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def load(self) -> None:
        """Take what is there."""
        if self.path.is_file():
            found = json.loads(self.path.read_text())
            self.latencies_ms, self.disturbed = found["latencies_ms"], found["disturbed"]
            self.seconds = found["seconds"]

    def save(self) -> None:
        """Write all of it."""
        content = {"latencies_ms": self.latencies_ms, "disturbed": self.disturbed, "seconds": self.seconds}
        write_atomically(self.path, json.dumps(content, indent=1).encode())


def resnet20() -> nn.Module:
    """The target's own definition."""
    spec = importlib.util.spec_from_file_location("cifar10_resnet20", _TARGET)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{_TARGET}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: nn.Module = module.build_model()
    return made


def separable() -> nn.Module:
    """Depthwise-separable blocks as in MobileNet, small."""
    from torch import nn

    def norm(layer: nn.Module, width: int) -> list[nn.Module]:
        return [layer, nn.BatchNorm2d(width), nn.ReLU6()]

    layers = norm(nn.Conv2d(3, 16, 3, 2, 1, bias=False), 16)
    width = 16
    for after, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        layers += norm(nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), width)
        layers += norm(nn.Conv2d(width, after, 1, bias=False), after)
        width = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def encoder() -> nn.Module:
    """Four transformer layers of width 128 over 64 tokens; the feed-forward widths are the groups."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Layer(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.project = nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.project(self.attend(self.norm1(x)))
            made: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
            return made

        def attend(self, x: Tensor) -> Tensor:
            batch, tokens, width = x.shape
            q, k, v = (
                layer(x).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            scores = torch.softmax(q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5, dim=-1)
            joined: Tensor = (scores @ v).transpose(1, 2).reshape(batch, tokens, width)
            return joined

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(16, 128)
            self.layers = nn.Sequential(*(Layer(128, 4) for _ in range(4)))
            self.head = nn.Linear(128, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layers(self.embed(x))
            logits: Tensor = self.head(x[:, 0])
            return logits

    return Encoder()


NETS: Mapping[str, Net] = {
    "resnet20": Net(make=resnet20, input_shape=(1, 3, 32, 32), step=8),
    "separable": Net(make=separable, input_shape=(1, 3, 64, 64), step=8),
    "encoder": Net(make=encoder, input_shape=(1, 64, 16), step=32),
}
RUNTIME_NAMES = ("onnxruntime", "openvino", "tflite")


def make(net: Net) -> nn.Module:
    """The net at full widths, with the same weights every time."""
    import torch

    torch.manual_seed(0)
    model = net.make().eval()
    draw_norms_(model)
    return model


def random_widths(groups: Groups, net: Net, count: int, seed: int) -> tuple[Mapping[str, int], ...]:
    """Distinct configurations, each width a multiple of the net's step up to the full one."""
    generator = random.Random(seed)  # noqa: S311 - nothing secret
    found: dict[str, Mapping[str, int]] = {}
    while len(found) < count:
        widths = {g.name: generator.choice(range(net.step, g.width + 1, net.step)) for g in groups.groups}
        found.setdefault(key_of(widths), widths)
    return tuple(found.values())


def key_of(widths: Mapping[str, int]) -> str:
    """The widths as text."""
    return "-".join(map(str, widths.values()))


def compile_together(cell: Cell, part: Sequence[Mapping[str, int]], folder: Path) -> list[ProfileJob]:
    """Compile some configurations as branches of one module, and cut it: the same operators in half of the time."""
    import torch

    shape = cell.net.input_shape
    samples = np.random.default_rng(0).standard_normal((2, *shape[1:]), dtype=np.float32)
    example, criterion = torch.from_numpy(samples[:1].copy()), CRITERIA.get("l1")
    models = [structured_prune(make(cell.net), example, widths, criterion, seed=0)[0] for widths in part]
    whole, parts = folder / "whole", folder / "parts"
    whole.mkdir()
    parts.mkdir()
    artifact = compile_artifact(CompileJob(joined(models), shape, samples), cell.place, whole)
    SLICERS.get(cell.place.runtime).slice(whole / artifact.files[0].name, parts)
    jobs = []
    for number in range(len(part)):
        described = describe_files(
            parts / str(number),
            tuple(f.name for f in artifact.files),
            runtime=cell.place.runtime,
            precision=cell.place.precision,
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            file_format=artifact.format,
        )
        jobs.append(ProfileJob(folder=parts / str(number), artifact=described, input_shape=shape))
    return jobs


def compile_singly(cell: Cell, part: Sequence[Mapping[str, int]], folder: Path) -> list[ProfileJob]:
    """Compile each configuration as a build does."""
    import torch

    shape = cell.net.input_shape
    samples = np.random.default_rng(0).standard_normal((2, *shape[1:]), dtype=np.float32)
    example, criterion = torch.from_numpy(samples[:1].copy()), CRITERIA.get("l1")
    jobs = []
    for number, widths in enumerate(part):
        own = folder / str(number)
        own.mkdir()
        model = structured_prune(make(cell.net), example, widths, criterion, seed=0)[0]
        artifact = compile_artifact(CompileJob(model, shape, samples), cell.place, own)
        jobs.append(ProfileJob(folder=own, artifact=artifact, input_shape=shape))
    return jobs


def joined(models: Sequence[nn.Module]) -> nn.Module:
    """One module whose output joins those of all models on the same input."""
    import torch
    from torch import nn

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.models = nn.ModuleList(models)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([model(x) for model in self.models], dim=1)

    return Joined().eval()


def measure_whole(session: DeviceSession, cell: Cell, kept: Kept, *, singly: bool) -> None:
    """Compile and measure the configurations in one trip, unless all of them are kept.

    In one, because what was measured minutes apart differs by the drift of the machine as well.
    """
    if all(key_of(w) in kept.latencies_ms for w in cell.configurations):
        return
    started = time.monotonic()
    compiled = compile_singly if singly else compile_together
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for first in range(0, len(cell.configurations), _BATCH):
            own = Path(folder) / str(first)
            own.mkdir()
            jobs += compiled(cell, cell.configurations[first : first + _BATCH], own)
        request = ProfileRequest(runtime=cell.place.runtime, threads=cell.place.threads, round_s=0.03)
        timings = time_all(session, request, jobs)
    kept.latencies_ms, kept.disturbed = {}, {}
    for widths, timing in zip(cell.configurations, timings, strict=True):
        if isinstance(timing, MeasurementError):
            raise timing
        kept.latencies_ms[key_of(widths)] = timing.latency_ms
        if timing.disturbed:
            kept.disturbed[key_of(widths)] = timing.disturbed
    kept.seconds = time.monotonic() - started
    kept.save()


def judge(cell: Cell, kept: Kept, terms: Sequence[Terms], fit: int, *, verbose: bool) -> tuple[float, float, float]:
    """(median error, worst error, rank correlation) over the configurations after the first `fit`."""
    from scipy.stats import spearmanr

    found = [Observation(t, kept.latencies_ms[key_of(w)]) for t, w in zip(terms, cell.configurations, strict=True)]
    model = CostModel().updated(*found[:fit])
    held = found[fit:]
    predicted = [model.predict_ms(o.terms) for o in held]
    errors = [abs(p / o.latency_ms - 1) for p, o in zip(predicted, held, strict=True)]
    rank = float(spearmanr(predicted, [o.latency_ms for o in held]).statistic)
    if verbose:
        scales = {kind: round(model.scale(kind), 3) for kind, _ in held[0].terms.by_kind}
        print(f"  intercept {model.intercept_ms:.4f} ms, scales {scales}")
        for o, p in sorted(zip(held, predicted, strict=True), key=lambda pair: pair[0].latency_ms):
            print(f"  measured {o.latency_ms:8.4f} predicted {p:8.4f} {p / o.latency_ms - 1:+7.1%}")
    return float(np.median(errors)), max(errors), rank


def run_cell(session: DeviceSession, cell: Cell, arguments: argparse.Namespace) -> bool:
    """Measure and print one cell; whether it meets the targets."""
    version = digest(session.facts.fingerprint, cell.net.input_shape, [u.shape.name for u in cell.uses])[:12]
    how = "-singly" if arguments.singly else ""
    kept = Kept(arguments.output / f"{cell.name}-{cell.place.name}-{version}{how}.json")
    kept.load()
    tables = OperatorTables(session, lambda text: print(f"  {text}", file=sys.stderr, flush=True))
    shapes = {u.at(w) for w in cell.configurations for u in cell.uses if not u.unsupported}
    started = time.monotonic()
    measured = tables.ensure(sorted(shapes, key=lambda s: s.name), cell.place)
    table_s = time.monotonic() - started
    measure_whole(session, cell, kept, singly=arguments.singly)
    terms = [cost_terms(cell.uses, w, lambda shape: tables.latency_ms(shape, cell.place)) for w in cell.configurations]
    median, worst, rank = judge(cell, kept, terms, arguments.fit, verbose=arguments.verbose)
    met = median <= MEDIAN and worst <= WORST and rank >= RANK
    wanted = {key_of(w) for w in cell.configurations}
    disturbed = sum(key in wanted for key in kept.disturbed)
    print(
        f"{cell.name:10} {cell.place.runtime:12} {cell.place.precision.value:8} {len(shapes):5d} {measured:5d} "
        f"{table_s:7.1f} {kept.seconds:7.1f} {disturbed:5d} {median:8.1%} {worst:7.1%} {rank:7.3f}  "
        f"{'met' if met else 'NOT MET'}",
        flush=True,
    )
    return met


def main() -> int:
    """Print the table; exit code 1 where a cell misses a target."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=sorted(NETS), default=list(NETS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES.names(), default=list(RUNTIME_NAMES))
    parser.add_argument("--precisions", nargs="+", choices=["float32", "int8"], default=["float32", "int8"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--configurations", type=int, default=40, help="held out of the fit")
    parser.add_argument("--fit", type=int, default=8, help="whole models that the fit sees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/cost-model"))
    parser.add_argument("--singly", action="store_true", help="compile whole models one by one, as a build does")
    parser.add_argument("--verbose", action="store_true", help="every configuration, and the fitted parameters")
    arguments = parser.parse_args()
    print(f"{arguments.fit} whole models in each fit, {arguments.configurations} held out")
    print(
        f"{'net':10} {'runtime':12} {'precision':8} {'ops':>5} {'new':>5} {'table s':>7} {'whole s':>7} {'dist.':>5} "
        f"{'median':>8} {'worst':>7} {'rank':>7}"
    )
    # Tracing runs small layers, whose threads would only wait for one another.
    torch.set_num_threads(1)
    held = []
    with open_host_session() as session:
        for name in arguments.nets:
            held += [run_cell(session, cell, arguments) for cell in cells(name, arguments)]
    return 0 if all(held) else 1


def cells(name: str, arguments: argparse.Namespace) -> list[Cell]:
    """The cells of one net."""
    import torch

    net = NETS[name]
    model, example = make(net), torch.zeros(net.input_shape)
    groups = find_groups(model, example)
    uses = model_operators(model, example, groups.groups)
    configurations = random_widths(groups, net, arguments.fit + arguments.configurations, arguments.seed)
    places = [
        Rung(runtime=runtime, precision=Precision(precision), threads=arguments.threads)
        for runtime in arguments.runtimes
        for precision in arguments.precisions
    ]
    return [Cell(name=name, net=net, place=p, configurations=configurations, uses=uses) for p in places]


if __name__ == "__main__":
    sys.exit(main())
