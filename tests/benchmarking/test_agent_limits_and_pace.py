"""The agent as a process on this machine: under real memory limits, at a rate, and stalled from outside."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from devices_for_tests import Listening, here_device
from onnx import TensorProto, helper, numpy_helper

from edgeprune.benchmarking.agent.package import agent_bytes, agent_digest
from edgeprune.benchmarking.client import AgentClient
from edgeprune.deployment.connections import connect
from edgeprune.deployment.transfer import install_agent
from edgeprune.errors import MeasurementError
from edgeprune.records.measurement import BenchRequest, MemoryProof
from edgeprune.records.paced import Pace
from edgeprune.records.rung import Precision

MB = 1_000_000
REQUEST = BenchRequest(
    runtime="onnxruntime", precision=Precision.FLOAT32, threads=1, runs=20, warmup_min_runs=5, warmup_max_s=0.3
)
WEIGHT_MB = 36


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights take 36 MB, and which needs more than that."""
    folder = tmp_path_factory.mktemp("model")
    weight = numpy_helper.from_array(np.ones((3000, 3000), dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3000])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    np.save(folder / "x.npy", np.ones((4, 3000), dtype=np.float32))
    return folder


@pytest.fixture
def client(tmp_path: Path) -> Iterator[AgentClient]:
    spec = here_device(tmp_path)
    connection = connect(spec)
    agent = install_agent(connection, spec.python, spec.work_folder, agent_bytes(), agent_digest())
    yield AgentClient(connection, python=spec.python, agent_path=agent, work_folder=spec.work_folder, device="here")
    connection.close()


def _proof(client: AgentClient, folder: Path, limit_mb: float, of: str) -> MemoryProof:
    limit = (round(limit_mb * MB), of)
    return client.prove_memory(REQUEST, limit, str(folder / "m.onnx"), str(folder / "x.npy"), timeout_s=120)


@pytest.mark.parametrize(("limit_mb", "of"), [(600, "process"), (400, "model")])
def test_a_limit_that_is_met(client: AgentClient, folder: Path, limit_mb: float, of: str) -> None:
    proof = _proof(client, folder, limit_mb, of)
    assert (proof.survived, proof.reason, proof.limit_bytes, proof.of) == (True, "", limit_mb * MB, of)
    assert proof.how in {"RLIMIT_DATA", "cgroup v1", "cgroup v2"}


@pytest.mark.parametrize(("limit_mb", "of"), [(80, "process"), (20, "model"), (5, "process")])
def test_a_limit_that_kills(client: AgentClient, folder: Path, limit_mb: float, of: str) -> None:
    proof = _proof(client, folder, limit_mb, of)
    assert not proof.survived
    assert proof.reason
    assert proof.how
    # The device is not left locked or limited.
    block = client.bench(REQUEST, str(folder / "m.onnx"), str(folder / "x.npy"), timeout_s=60)
    assert block.model_bytes > WEIGHT_MB * MB
    assert block.peak_run_bytes > 0


def test_a_runtime_that_is_missing_says_nothing_of_memory(client: AgentClient, folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.base_prefix}/bin/python3" -S "$@"\n')
    bare.chmod(0o755)
    client._agent = (str(bare), client._agent[1])
    with pytest.raises(MeasurementError, match="cannot be imported"):
        _proof(client, folder, 100, "process")


def test_at_a_rate_every_frame_is_told(client: AgentClient, folder: Path) -> None:
    pace = Pace(rate_hz=20.0, seconds=1.0, bucket_s=0.5)
    found = client.pace(REQUEST, pace, str(folder / "m.onnx"), str(folder / "x.npy"), timeout_s=60)
    assert (found.frames, found.served, len(found.block.samples_ns)) == (20, 20, 20)
    assert [b.runs for b in found.buckets] == [10, 10]
    assert found.achieved_hz <= 20.0


def test_a_stall_from_outside_is_charged_to_the_frames_that_waited(
    client: AgentClient, folder: Path, tmp_path: Path
) -> None:
    stopped = threading.Thread(target=_stop_the_agent, args=(tmp_path, 0.5, 0.6))

    def hear(line: str) -> None:
        # The timed frames come next; how long it takes to get there is the machine's affair.
        if '"warm"' in line:
            stopped.start()

    client._connection = Listening(client._connection, hear)
    pace = Pace(rate_hz=50.0, seconds=4.0, bucket_s=4.0)
    found = client.pace(REQUEST, pace, str(folder / "m.onnx"), str(folder / "x.npy"), timeout_s=60)
    stopped.join()
    late = [s for s in found.block.samples_ns if s > 0.1e9]
    assert max(late) >= 0.5e9
    # 30 frames arrive in 0.6 s; a clock that starts with the run would have shown one slow frame.
    assert len(late) >= 15
    assert found.missed >= len(late)
    assert found.served == 200


def _stop_the_agent(work: Path, after_s: float, for_s: float) -> None:
    """Freeze the agent that this test started: a child of this process, by its own work folder."""
    found = [p for p in _children(os.getpid()) if str(work) in _command_line(p) and "--seconds" in _command_line(p)]
    assert found
    time.sleep(after_s)
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(for_s)
    for pid in found:
        os.kill(pid, signal.SIGCONT)


def _children(parent: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in _content(task / "children").split():
            found += [int(child), *_children(int(child))]
    return found


def _command_line(pid: int) -> str:
    return _content(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")


def _content(path: Path) -> str:
    """A file of /proc; nothing where its thread or process has ended meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""
