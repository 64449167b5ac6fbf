"""How well the model cost predicts: whole-model p50 from the operator tables, at random widths held out of the fit.

    python tools/bench_cost_model.py --configurations 40 --output runs/cost-model

For each net, runtime and precision: tables of the operators that the configurations need, a fit to a few whole models,
and the error on others, by each of these predictors on the same held-out configurations:

    planner 2   what a plan proposes its first widths by: the price that its solver has (`ShapeProblem.terms`: an entry
                a group's width, not a pair), fitted to the two ends, the full widths and the narrowest
    planner 7   the same after as many trips as a search may make, here to random widths
    pairs 8     an entry for each pair of widths that an operator has in a configuration, fitted to `--fit` random
                configurations: what the tables could tell if all pairs were measured

`--predictors planner` leaves the last one out, and the operators that only it needs. Whole models are compiled by the
converters and quantizers of a build, several joined in one module that is then cut (`--singly`: one by one), and many
are measured in a trip. What is held out is measured in six processes, because one alone is off by 0.5 to 1 % (where its
memory lies, what else the machine does); the fit has what a plan would have, one process. `--output` keeps what was
compiled and a row for each configuration, so that the bench goes on where it ended; a cell with a row that was
disturbed, and each operator that was (`dist.` counts both), is measured again by the next run. Rows are kept by the
net's groups and the code that measures as well: others are not mixed with them. Tables are kept beside the inventory.
`--compile-only` compiles the whole models and measures nothing, so that only the rest needs a quiet machine. The
targets are a median error of 5 %, a worst one of 15 % and a rank correlation of 0.98.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
from cost_model_nets import NETS, Net, key_of, make, with_ends

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.deployment.inventory import load_device
from edgeprune.errors import MeasurementError
from edgeprune.files import write_atomically
from edgeprune.graph.activations import model_activations
from edgeprune.graph.groups import find_groups
from edgeprune.graph.operators import model_operators
from edgeprune.planning.allocation_problem import Choice, Configuration
from edgeprune.planning.cost import CostModel, Observation, Terms, cost_terms
from edgeprune.planning.operator_price import corner_shapes
from edgeprune.planning.shape_problem import ShapeProblem
from edgeprune.profiling.slicing import SLICERS
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.surgery import structured_prune
from edgeprune.records.artifact import Artifact
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.memory import OpenCall
from edgeprune.records.operators import OperatorShape, OperatorUse
from edgeprune.records.profiled import ProfileRequest, Timing
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions
from edgeprune.steps.measuring_code import measuring_key
from edgeprune.steps.profiles import LEAST_ROUNDS, time_all
from edgeprune.steps.session import DeviceSession, open_session
from edgeprune.steps.tables import OperatorTables
from edgeprune.store.artifacts import describe_files
from edgeprune.store.run_folder import digest

if TYPE_CHECKING:
    from torch import Tensor, nn


MEDIAN, WORST, RANK = 0.05, 0.15, 0.98
PREDICTORS = ("planner", "pairs")
RUNTIME_NAMES = ("onnxruntime", "openvino", "tflite")
_BATCH = 12
_PROCESSES = 6
_ROUNDS = 4
_MANIFEST = "artifact.json"
_TRIPS = 5
"""Whole models that a search may measure besides the two ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One net at one place, with the widths of all its configurations; the first two are the full and the narrowest."""

    name: str
    net: Net
    place: Rung
    configurations: tuple[Mapping[str, int], ...]
    uses: tuple[OperatorUse, ...]
    calls: tuple[OpenCall, ...] = ()

    @property
    def full(self) -> Mapping[str, int]:
        """Width of each group before any cut."""
        return self.configurations[0]

    @property
    def narrowest(self) -> Mapping[str, int]:
        """The least width of each group."""
        return self.configurations[1]

    def problem(self, entry_ms: Callable[[OperatorShape], float]) -> ShapeProblem:
        """The net as a plan has it, with all the widths that a configuration may have."""
        choices = {
            group: tuple(Choice(width=w, loss=0.0) for w in range(self.net.step, width + 1, self.net.step))
            for group, width in self.full.items()
        }
        return ShapeProblem(
            uses=self.uses,
            full=self.full,
            choices=choices,
            entry_ms=entry_ms,
            narrowest=self.narrowest,
            calls=self.calls,
        )

    def shapes(self, predictors: Collection[str]) -> tuple[OperatorShape, ...]:
        """The operators that these predictors need, by name."""
        priced = [u for u in self.uses if not u.unsupported]
        found = {u.shape for u in priced}
        if "planner" in predictors:
            found |= {u.at({g: w[g]}) for w in self.configurations for u in priced for g in u.groups}
            widths = {g: {w[g] for w in self.configurations} for g in self.full}
            found |= set(corner_shapes(self.uses, widths, self.narrowest))
        if "pairs" in predictors:
            found |= {u.at(w) for w in self.configurations for u in priced}
        return tuple(sorted(found, key=lambda shape: shape.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A whole model that was measured: its p50 in each process that was left alone.

    `disturbed` says what may have made it wrong, where these are too few.
    """

    processes_ms: tuple[float, ...]
    disturbed: str = ""

    @property
    def first_ms(self) -> float:
        """Of one process, as a plan measures it."""
        return self.processes_ms[0]

    @property
    def p50_ms(self) -> float:
        """The mean without the slowest: a neighbour makes a process slower, never faster."""
        return fmean(sorted(self.processes_ms)[: max(1, len(self.processes_ms) - 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All rows of a cell by their widths, and what compiling and measuring them took."""

    rows: dict[str, Row]
    seconds: float = 0.0


def compiled(cell: Cell, folder: Path, *, singly: bool) -> list[ProfileJob]:
    """The whole models in the order of the configurations; only those are compiled that the folder does not hold."""
    folders = {key_of(widths): folder / key_of(widths) for widths in cell.configurations}
    missing = [w for w in cell.configurations if not (folders[key_of(w)] / _MANIFEST).is_file()]
    size = 1 if singly else _BATCH
    for first in range(0, len(missing), size):
        part = missing[first : first + size]
        compile_part(cell, part, [folders[key_of(w)] for w in part])
    return [
        ProfileJob(
            folder=own,
            artifact=from_json(Artifact, (own / _MANIFEST).read_bytes()),
            input_shape=cell.net.input_shape,
        )
        for own in folders.values()
    ]


def compile_missing(cell: Cell, path: Path, *, singly: bool) -> None:
    """Compile what `measure_whole` will want, and print how long that took."""
    started = time.monotonic()
    if wanted(cell, rows_at(path)):
        compiled(cell, path.with_suffix(""), singly=singly)
    print(f"{cell.name:10} {cell.place.name}: compiled in {time.monotonic() - started:.1f} s", flush=True)


def rows_at(path: Path) -> Rows:
    """Those that were measured so far."""
    return from_json(Rows, path.read_bytes()) if path.is_file() else Rows(rows={})


def wanted(cell: Cell, rows: Rows) -> list[str]:
    """All configurations where one is not measured yet, or was disturbed.

    What is measured minutes later is measured at another pace of the machine, by up to 1.5 times.
    """
    keys = [key_of(w) for w in cell.configurations]
    return keys if any(key not in rows.rows or rows.rows[key].disturbed for key in keys) else []


def compile_part(cell: Cell, part: Sequence[Mapping[str, int]], folders: Sequence[Path]) -> None:
    """Compile one configuration as a build does; or several as branches of one module, and cut it: half of the time."""
    import torch

    shape = cell.net.input_shape
    samples = np.random.default_rng(0).standard_normal((2, *shape[1:]), dtype=np.float32)
    example, criterion = torch.from_numpy(samples[:1].copy()), CRITERIA.get("l1")
    models = [structured_prune(make(cell.net), example, widths, criterion, seed=0)[0] for widths in part]
    with tempfile.TemporaryDirectory(dir=make_folder(folders[0].parent)) as work:
        whole, parts = make_folder(Path(work) / "whole"), make_folder(Path(work) / "parts")
        module = joined(models) if len(models) > 1 else models[0]
        artifact = compile_artifact(CompileJob(module, shape, samples), cell.place, whole)
        if len(models) > 1:
            SLICERS.get(cell.place.runtime).slice(whole / artifact.files[0].name, parts)
        else:
            whole.rename(parts / "0")
        for number, own in enumerate(folders):
            described = describe_files(
                parts / str(number),
                tuple(f.name for f in artifact.files),
                runtime=cell.place.runtime,
                precision=cell.place.precision,
                inputs=artifact.inputs,
                outputs=artifact.outputs,
                file_format=artifact.format,
            )
            write_atomically(parts / str(number) / _MANIFEST, to_json(described))
            (parts / str(number)).rename(own)


def make_folder(path: Path) -> Path:
    """Make the folder where it is missing."""
    path.mkdir(parents=True, exist_ok=True)
    return path


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


def timed(session: DeviceSession, request: ProfileRequest, jobs: Sequence[ProfileJob]) -> list[Timing]:
    """What all of them take in one process.

    Raises:
        MeasurementError: the device would not run one, is busy or went away.
    """
    found: list[Timing] = []
    for timing in time_all(session, request, jobs):
        if isinstance(timing, MeasurementError):
            raise timing
        found.append(timing)
    return found


def without_drift(trips: Sequence[Sequence[Timing]]) -> list[list[Timing]]:
    """The same, as if the device had been as fast all the time as on the first trip: some hosts switch by 1.5 times."""
    paces = [median(t.p50_ms / first.p50_ms for t, first in zip(trip, trips[0], strict=True)) for trip in trips]
    return [[replace(t, p50_ms=t.p50_ms / pace) for t in trip] for trip, pace in zip(trips, paces, strict=True)]


def row_of(timings: Sequence[Timing]) -> Row:
    """The row of a whole model from its processes."""
    # A median is disturbed sooner than what the tables rest on.
    quiet = [t for t in timings if not t.disturbed and t.rounds >= LEAST_ROUNDS]
    few = f"{len(quiet)} of {len(timings)} processes undisturbed" if 2 * len(quiet) <= len(timings) else ""
    return Row(processes_ms=tuple(t.p50_ms for t in quiet or timings), disturbed=few)


def measure_whole(session: DeviceSession, cell: Cell, path: Path, *, singly: bool, processes: int = _PROCESSES) -> Rows:
    """A row for each configuration; read where all are there and none was disturbed."""
    rows = rows_at(path)
    keys = wanted(cell, rows)
    if not keys:
        return rows
    started = time.monotonic()
    folder = path.with_suffix("")
    jobs = dict(zip(map(key_of, cell.configurations), compiled(cell, folder, singly=singly), strict=True))
    request = ProfileRequest(runtime=cell.place.runtime, threads=cell.place.threads, rounds=_ROUNDS)
    trips = without_drift([timed(session, request, [jobs[key] for key in keys]) for _ in range(processes)])
    found = dict(zip(keys, map(row_of, zip(*trips, strict=True)), strict=True))
    rows = Rows(rows=found, seconds=rows.seconds + time.monotonic() - started)
    write_atomically(path, to_json(rows, indent=1))
    if not any(row.disturbed for row in found.values()):
        shutil.rmtree(folder)
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How far a predictor is off on configurations that it was not fitted to."""

    name: str
    median: float
    worst: float
    rank: float

    @property
    def met(self) -> bool:
        """Whether it meets the targets."""
        return self.median <= MEDIAN and self.worst <= WORST and self.rank >= RANK

    @property
    def figures(self) -> str:
        """For the table."""
        verdict = "met" if self.met else "NOT MET"
        return f"{self.name:10} {self.median:8.1%} {self.worst:7.1%} {self.rank:7.3f}  {verdict}"


def judge(name: str, fitted: Sequence[Observation], held: Sequence[Observation], *, verbose: bool) -> Judgement:
    """Fit a cost model to some whole models, and look how it predicts others."""
    from scipy.stats import spearmanr

    model = CostModel().updated(*fitted)
    predicted = [model.predict_ms(o.terms) for o in held]
    errors = [abs(p / o.latency_ms - 1) for p, o in zip(predicted, held, strict=True)]
    rank = float(spearmanr(predicted, [o.latency_ms for o in held]).statistic)
    if verbose:
        scales = {kind: round(model.scale(kind), 3) for kind, _ in held[0].terms.by_kind}
        rates = {call: round(1e6 * model.rate_ms(call), 3) for call, _ in held[0].terms.by_call}
        caches = f"{1e6 * model.weight_ms:.4f} ns a weight, {1e3 * model.code_ms:.3f} us an operator unlike others"
        print(f"  {name}: intercept {model.intercept_ms:.4f} ms, scales {scales}, ns an element {rates}, {caches}")
        for o, p in sorted(zip(held, predicted, strict=True), key=lambda pair: pair[0].latency_ms):
            print(f"  measured {o.latency_ms:8.4f} predicted {p:8.4f} {p / o.latency_ms - 1:+7.1%}")
    return Judgement(name=name, median=float(np.median(errors)), worst=max(errors), rank=rank)


def judgements(
    cell: Cell, rows: Rows, entry_ms: Callable[[OperatorShape], float], arguments: argparse.Namespace
) -> list[Judgement]:
    """Of each predictor, on the same configurations: those after the two ends and the `--fit` next."""
    found, first = list[Judgement](), 2 + arguments.fit
    measured = [rows.rows[key_of(w)] for w in cell.configurations]
    latencies_ms = [row.first_ms if number < first else row.p50_ms for number, row in enumerate(measured)]

    def observed(terms_of: Callable[[Mapping[str, int]], Terms]) -> list[Observation]:
        terms = (terms_of(w) for w in cell.configurations)
        return [Observation(t, ms) for t, ms in zip(terms, latencies_ms, strict=True)]

    problem = cell.problem(entry_ms)
    if "planner" in arguments.predictors:
        all_of = observed(lambda widths: problem.terms(Configuration(widths=widths)))
        for count in (2, 2 + _TRIPS):
            name = f"planner {count}"
            found.append(judge(name, all_of[:count], all_of[first:], verbose=arguments.verbose))
    if "pairs" in arguments.predictors:
        # Not the problem's terms: these would have corners measured that only the planner asks for.
        all_of = observed(
            lambda widths: replace(
                cost_terms(cell.uses, widths, entry_ms), by_call=problem.by_call(Configuration(widths=widths))
            )
        )
        name = f"pairs {arguments.fit}"
        found.append(judge(name, all_of[2:first], all_of[first:], verbose=arguments.verbose))
    return found


def path_of(cell: Cell, fingerprint: str, arguments: argparse.Namespace) -> Path:
    """Of the cell's rows; a folder of the same name holds what was compiled and is not measured yet."""
    operators = [(use.shape.name, use.groups) for use in cell.uses]
    code = (compiler_versions(cell.place), measuring_key(cell.place), _PROCESSES, _ROUNDS)
    identity = digest(fingerprint, cell.net.input_shape, operators, tuple(cell.full.items()), code)[:12]
    how = "-singly" if arguments.singly else ""
    return Path(arguments.output / f"{cell.name}-{cell.place.name}-{identity}{how}.json")


def run_cell(session: DeviceSession, cell: Cell, arguments: argparse.Namespace) -> bool:
    """Measure and print one cell; whether it meets the targets."""
    shapes = cell.shapes(arguments.predictors)
    path = path_of(cell, session.facts.fingerprint, arguments)
    tables = OperatorTables(session, lambda text: print(f"  {text}", file=sys.stderr, flush=True))
    started = time.monotonic()
    measured = tables.ensure(shapes, cell.place)
    table_s = time.monotonic() - started
    rows = measure_whole(session, cell, path, singly=arguments.singly)
    found = judgements(cell, rows, lambda shape: tables.latency_ms(shape, cell.place), arguments)
    disturbed = sum(bool(rows.rows[key_of(w)].disturbed) for w in cell.configurations)
    unsure = sum(bool(tables.entry(shape, cell.place).disturbed) for shape in shapes)
    for judgement in found:
        print(
            f"{cell.name:10} {cell.place.runtime:12} {cell.place.precision.value:8} {len(shapes):5d} {measured:5d} "
            f"{unsure:5d} {table_s:7.1f} {rows.seconds:7.1f} {disturbed:5d}  {judgement.figures}",
            flush=True,
        )
    return all(judgement.met for judgement in found)


def main() -> int:
    """Print the table; exit code 1 where a cell misses a target."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=sorted(NETS), default=list(NETS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES.names(), default=list(RUNTIME_NAMES))
    parser.add_argument("--precisions", nargs="+", choices=["float32", "int8"], default=["float32", "int8"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--configurations", type=int, default=40, help="held out of the fit")
    parser.add_argument("--fit", type=int, default=8, help="whole models that the fit of `pairs` sees, 5 at least")
    parser.add_argument("--predictors", nargs="+", choices=PREDICTORS, default=list(PREDICTORS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/cost-model"))
    parser.add_argument("--singly", action="store_true", help="compile whole models one by one, as a build does")
    parser.add_argument(
        "--compile-only", action="store_true", help="compile the whole models ahead, beside other work; measure nothing"
    )
    parser.add_argument("--verbose", action="store_true", help="every configuration, and the fitted parameters")
    arguments = parser.parse_args()
    if arguments.fit < _TRIPS:
        parser.error(f"--fit: expected at least {_TRIPS}, got {arguments.fit}")
    print(f"{arguments.configurations} configurations held out")
    print(
        f"{'net':10} {'runtime':12} {'precision':8} {'ops':>5} {'new':>5} {'dist.':>5} {'table s':>7} {'whole s':>7} "
        f"{'dist.':>5}  "
        f"{'predictor':10} {'median':>8} {'worst':>7} {'rank':>7}"
    )
    # Tracing runs small layers, whose threads would only wait for one another.
    torch.set_num_threads(1)
    spec, held = load_device("local"), []
    with open_session(spec) as session:
        if arguments.compile_only:
            for cell in (cell for name in arguments.nets for cell in cells(name, arguments)):
                compile_missing(cell, path_of(cell, session.facts.fingerprint, arguments), singly=arguments.singly)
            return 0
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
    configurations = with_ends(groups, net, arguments.fit + arguments.configurations, arguments.seed)
    places = [
        Rung(runtime=runtime, precision=Precision(precision), threads=arguments.threads)
        for runtime in arguments.runtimes
        for precision in arguments.precisions
    ]
    calls = model_activations(model, example, groups.groups).calls
    return [Cell(name=name, net=net, place=p, configurations=configurations, uses=uses, calls=calls) for p in places]


if __name__ == "__main__":
    sys.exit(main())
