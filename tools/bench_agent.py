"""Whether the agent measures what the runtime's own tool measures: p50 of both on the same artifact, in turn.

    python tools/bench_agent.py --rounds 8

OpenVINO's tool is `benchmark_app` and LiteRT's is `litert-benchmark`, both from the pip packages; ONNX Runtime's
package has none, so a bare loop over `InferenceSession.run` in a fresh process stands for it. All processes are pinned
to the same core. A round counts only if neither was disturbed: the agent's block by its evidence, the other tool by the
involuntary context switches of its process, held to the same limit. On a machine that is never quiet --keep-disturbed
counts all rounds: a median of quick runs moves little, and the spread shows how much.

The tools do not time quite the same thing: the agent's latency is set the input, run, read the output; `benchmark_app`
and `litert-benchmark` leave the input in place and read nothing. The bare loop of each runtime times what the agent
does, and is shown for all three. Exit code 1 when the agent differs from a runtime's own tool by more than the target.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeprune.benchmarking.validity import (
    GRANTED_INVOLUNTARY_SWITCHES,
    MOST_INVOLUNTARY_SWITCHES_PER_S,
    disturbance,
)
from edgeprune.records.artifact import Artifact
from edgeprune.records.rung import Precision, Rung
from edgeprune.steps.session import DeviceSession, open_host_session

TARGET = 0.02
RUNTIMES = ("openvino", "tflite", "onnxruntime")
INPUT = (1, 3, 48, 48)
_LOOPS = {
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
feed = {session.get_inputs()[0].name: x}
def run(): session.run(None, feed)
""",
    "openvino": """
import openvino
settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
def run(): request.infer({0: x})
""",
    "tflite": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(path, num_threads=1)
interpreter.allocate_tensors()
taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
def run():
    interpreter.set_tensor(taken, x); interpreter.invoke(); interpreter.get_tensor(given)
""",
}
_HEAD = """
import statistics, sys, time
import numpy as np
path, runs, warmup = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
x = np.load(sys.argv[4])[:1]
"""
_TAIL = """
for _ in range(warmup): run()
found = []
for _ in range(runs):
    start = time.perf_counter_ns(); run(); found.append(time.perf_counter_ns() - start)
print("median", statistics.median(found) / 1e6)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One artifact and how often to run it."""

    runtime: str
    path: Path
    inputs: Path
    runs: int
    warmup: int


def own_tool(job: Job) -> tuple[str, Callable[[], float]] | None:
    """The runtime's own tool: its name, and what measures the median in ms by it; None where pip brings none."""
    runs, warmup, binaries = str(job.runs), str(job.warmup), Path(sys.executable).parent
    if job.runtime == "openvino" and (binaries / "benchmark_app").exists():
        argv = [str(binaries / "benchmark_app"), "-m", str(job.path), "-d", "CPU", "-api", "sync", "-hint", "none"]
        argv += ["-nstreams", "1", "-nthreads", "1", "-niter", runs, "-infer_precision", "f32", "-pin", "NO"]
        return "benchmark_app", lambda: median_of(argv, r"Median:\s+([\d.]+) ms")
    if job.runtime == "tflite" and (binaries / "litert-benchmark").exists():
        return "litert-benchmark", lambda: _litert([str(binaries / "litert-benchmark")], job, runs, warmup)
    return None


def _litert(program: list[str], job: Job, runs: str, warmup: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        argv = [*program, "--model", str(job.path), "--num_runs", runs, "--warmup_runs", warmup, "--num_threads", "1"]
        shown = median_of([*argv, "--result_json", str(result)], r"Inference \(median\):\s+([\d.]+) ms")
        # The text has two digits after the point; the file has them all, where it tells the median.
        told: dict[str, object] = json.loads(result.read_text())
    exact = next((v for k, v in _flat(told) if "median" in k), None)
    return exact if exact is not None else shown


def _flat(told: dict[str, object], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for key, value in told.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            found.append((f"{prefix}{key}", float(value)))
    return found


def bare_loop(job: Job) -> Callable[[], float]:
    """A loop over the runtime's API in a fresh process: set the input, run, read the output."""
    arguments = [str(job.path), str(job.runs), str(job.warmup), str(job.inputs)]
    argv = [sys.executable, "-c", _HEAD + _LOOPS[job.runtime] + _TAIL, *arguments]
    return lambda: median_of(argv, r"median ([\d.]+)")


class Quiet:
    """Whether rounds that were disturbed are dropped."""

    required = True


class DisturbedError(Exception):
    """The other tool lost its core too often."""


def median_of(argv: list[str], pattern: str) -> float:
    """Run a tool and read the median, in ms, that it prints.

    Raises:
        DisturbedError: it was switched out against its will more often than a block of the agent may be.
    """
    before, start_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nivcsw, time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    found = re.search(pattern, done.stdout)
    if done.returncode != 0 or found is None:
        raise SystemExit(
            f"{argv[0]}: exit code {done.returncode}, no median:\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        )
    switches = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nivcsw - before
    seconds = time.monotonic() - start_s
    if Quiet.required and switches > GRANTED_INVOLUNTARY_SWITCHES + MOST_INVOLUNTARY_SWITCHES_PER_S * seconds:
        raise DisturbedError(f"{switches} involuntary context switches in {seconds:.1f} s")
    return float(found[1])


def small_model(runtime: str, folder: Path) -> Artifact:
    """A small convolutional net of 1 to 2 ms: two digits after the point are enough, and few runs are preempted."""
    import numpy as np
    import torch
    from torch import nn

    from edgeprune.steps.compiling import CompileJob, compile_artifact

    torch.manual_seed(0)
    width = 64
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()
    folder.mkdir()
    job = CompileJob(model, INPUT, np.zeros((1, *INPUT[1:]), np.float32))
    return compile_artifact(job, Rung(runtime=runtime, precision=Precision.FLOAT32), folder)


def by_agent(session: DeviceSession, rung: Rung, paths: tuple[str, str], runs: int) -> float:
    """The agent's median in ms.

    Raises:
        DisturbedError: with what disturbed it.
    """
    block = session.block(rung, *paths, runs)
    reason = disturbance(block)
    if Quiet.required and reason is not None:
        raise DisturbedError(reason)
    return statistics.median(block.samples_ns) / 1e6


def compare(session: DeviceSession, runtime: str, folder: Path, rounds: int, runs: int) -> bool:
    """Measure and print one runtime; whether the agent is within the target of its own tool."""
    import numpy as np

    artifact = small_model(runtime, folder)
    rung = Rung(runtime=runtime, precision=Precision.FLOAT32)
    samples = np.random.default_rng(0).standard_normal((4, *INPUT[1:]), dtype=np.float32)
    inputs = folder / "inputs.npy"
    np.save(inputs, samples)
    paths = (session.place(folder, artifact), session.place_samples(samples))
    job = Job(runtime=runtime, path=folder / artifact.files[0].name, inputs=inputs, runs=runs, warmup=runs // 4)
    tool = own_tool(job)
    others: dict[str, Callable[[], float]] = {"bare loop": bare_loop(job)}
    if tool is not None:
        others = {tool[0]: tool[1], **others}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in others}
    disturbed = 0
    for name, measure in others.items():
        attempts = 0
        while len(found[name]) < rounds and attempts < 5 * rounds:
            attempts += 1
            try:
                # AB, BA, AB, ...: a drift falls on both alike.
                theirs = measure() if attempts % 2 == 0 else None
                ours = by_agent(session, rung, paths, runs)
                found[name].append((ours, measure() if theirs is None else theirs))
            except DisturbedError:
                disturbed += 1
                time.sleep(0.5)
    judged = next(iter(others))
    for name, pairs in found.items():
        _show(runtime, name, pairs, judged=name == judged)
    if disturbed:
        print(f"{'':12} {disturbed} rounds were disturbed and not counted")
    ratios = [ours / theirs for ours, theirs in found[judged]]
    return bool(ratios) and abs(statistics.median(ratios) - 1) <= TARGET


def _show(runtime: str, name: str, pairs: list[tuple[float, float]], *, judged: bool) -> None:
    if not pairs:
        print(f"{runtime:12} {name:18} no undisturbed round")
        return
    ratios = [ours / theirs for ours, theirs in pairs]
    ours, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
    middle = statistics.median(ratios)
    verdict = ("within" if abs(middle - 1) <= TARGET else "NOT WITHIN") + f" {TARGET:.0%}" if judged else ""
    print(
        f"{runtime:12} {name:18} {ours:9.3f} {theirs:9.3f} {middle:9.4f} {min(ratios):8.4f} to {max(ratios):.4f} "
        f"{len(pairs):7d}  {verdict}",
        flush=True,
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--runs", type=int, default=300, help="a process")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help="may be repeated; all by default")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="all processes run on it")
    parser.add_argument("--keep-disturbed", action="store_true", help="count every round")
    arguments = parser.parse_args()
    Quiet.required = not arguments.keep_disturbed
    # Children inherit it, and the agent pins itself to the last core that it may use.
    os.sched_setaffinity(0, {arguments.core})
    print(f"{'runtime':12} {'other tool':18} {'agent ms':>9} {'other ms':>9} {'ratio':>9} {'spread':>18} {'rounds':>7}")
    with tempfile.TemporaryDirectory() as folder, open_host_session() as session:
        held = [
            compare(session, runtime, Path(folder) / runtime, arguments.rounds, arguments.runs)
            for runtime in arguments.runtime or RUNTIMES
        ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
