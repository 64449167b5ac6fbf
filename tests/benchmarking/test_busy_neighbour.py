"""A real process that takes turns on the very core that is measured: INVALID, whatever the limits; quiet: not INVALID.

The machine that runs the tests may have neighbours of its own, and then INVALID is the right answer. The quiet half
therefore asks up to `QUIET_TRIES` times, and looks at /proc/stat by itself around each try: INVALID on a core that was
idle before and after fails the test, a core that was never idle skips it. The busy half needs no second try.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from devices_for_tests import here_device

from edgeprune.cli.render import results
from edgeprune.events import NullReporter
from edgeprune.gating.judge import judge
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.result import BenchResult
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import Evidence, Floors, Verdict
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.steps.benching import bench_artifact, bench_subject

QUIET_TRIES = 5
QUIET_PAUSE_S = 2.0
IDLE_SHARE = 0.97
EASY, HARD = 10_000.0, 0.000_001
# The core that the agent takes for one thread.
CORE = max(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About half a millisecond a run."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size = 256
    shape = [1, size, size]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")],
    )
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@contextmanager
def hog(core: int) -> Iterator[None]:
    """A process of ours that computes without end on one core; it is ended by its own handle."""
    script = f"import os\nos.sched_setaffinity(0, [{core}])\nprint('busy', flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        yield
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def core_was_idle() -> bool:
    """Whether the core did next to nothing for half a second."""
    first = core_ticks()
    time.sleep(0.5)
    idle, total = (after - before for before, after in zip(first, core_ticks(), strict=True))
    return idle >= IDLE_SHARE * total


def core_ticks() -> tuple[int, int]:
    """(idle, all) of the core since the machine started."""
    line = next(x for x in Path("/proc/stat").read_text().splitlines() if x.startswith(f"cpu{CORE} "))
    ticks = [int(t) for t in line.split()[1:9]]
    return ticks[3], sum(ticks)


def measured(model: Path, work: Path, limits: Limits, *, max_disturbed: int) -> BenchResult:
    device = here_device(work.parent, work_folder=str(work))
    policy = MeasurementPolicy(processes=3, min_runs=900, looks=1, max_disturbed=max_disturbed, time_limit_s=60)
    return bench_artifact(bench_subject(model), device, policy, limits, NullReporter())


@pytest.mark.parametrize("limit_ms", [EASY, HARD])
def test_busy_neighbour_on_the_same_core_is_invalid_and_named(model: Path, tmp_path: Path, limit_ms: float) -> None:
    limits = Limits(p50_ms=limit_ms, p99_ms=limit_ms)
    with hog(CORE):
        result = measured(model, tmp_path, limits, max_disturbed=2)
    assert result.judgement.verdict is Verdict.INVALID
    assert {gate.verdict for gate in result.judgement.gates} == {Verdict.INVALID}
    assert "used by other processes" in result.judgement.gates[0].reason
    assert result.measurement.gave_up
    assert len(result.measurement.disturbed) == 3
    evidence = Evidence(limits=limits, floors=Floors(), artifact_bytes=1, measurement=result.measurement)
    assert judge(from_json(Evidence, to_json(evidence))).verdict is Verdict.INVALID
    assert "INVALID" in results.bench(result, "text")


def test_busy_neighbour_is_invalid_without_any_limit(model: Path, tmp_path: Path) -> None:
    with hog(CORE):
        result = measured(model, tmp_path, Limits(), max_disturbed=0)
    assert result.judgement.verdict.exit_code == 9
    assert (result.summary, result.percentiles, result.load_ms) == (None, (), None)
    assert "no valid block" in results.bench(result, "text")


def test_quiet_device_is_not_invalid(model: Path, tmp_path: Path) -> None:
    quiet_tries = 0
    for _ in range(QUIET_TRIES):
        before = core_was_idle()
        result = measured(model, tmp_path, Limits(p50_ms=EASY), max_disturbed=2)
        if result.judgement.verdict is not Verdict.INVALID:
            break
        quiet_tries += before and core_was_idle()
        time.sleep(QUIET_PAUSE_S)
    else:
        if not quiet_tries:
            pytest.skip(f"core {CORE} of this machine was busy all the time")
    assert result.judgement.verdict is Verdict.PASS
    assert result.summary is not None
    assert result.summary.processes == len(result.measurement.blocks) == 3
    hard = Evidence(limits=Limits(p50_ms=HARD), floors=Floors(), artifact_bytes=1, measurement=result.measurement)
    assert judge(hard).verdict is Verdict.FAIL
