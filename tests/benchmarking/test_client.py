from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from devices_for_tests import Listening, here_device
from sshd import SshServer

from edgeprune.benchmarking.agent.device import bench
from edgeprune.benchmarking.agent.package import agent_bytes, agent_digest
from edgeprune.benchmarking.client import AgentClient
from edgeprune.deployment.connections import connect
from edgeprune.deployment.transfer import install_agent
from edgeprune.errors import DeployError, MeasurementError
from edgeprune.protocols import Connection
from edgeprune.records.measurement import BenchRequest
from edgeprune.records.rung import Precision
from edgeprune.schema.device import DeviceSpec

WEIGHT = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)


@dataclass(frozen=True)
class Setup:
    """A device with the agent, a quick and a slow model and inputs for both."""

    device: DeviceSpec
    connection: Connection
    agent_path: str
    folder: str

    def client(self, **changes: str) -> AgentClient:
        settings = {
            "python": self.device.python,
            "agent_path": self.agent_path,
            "work_folder": self.device.work_folder,
            "device": self.device.name,
        }
        return AgentClient(self.connection, **{**settings, **changes})

    def bench(self, request: BenchRequest, model: str = "quick", timeout_s: float = 60) -> object:
        return self.client().bench(
            request, f"{self.folder}/{model}.onnx", f"{self.folder}/{model}.npy", timeout_s=timeout_s
        )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    _save_product(folder / "quick.onnx", WEIGHT)
    np.save(folder / "quick.npy", np.array([[1, 0, 0], [0, 1, 1]], dtype=np.float32))
    # About 6 GFLOP, some 30 to 200 ms a run.
    size = 1024
    _save_product(folder / "slow.onnx", np.eye(size, dtype=np.float32), rows=size, times=3)
    np.save(folder / "slow.npy", np.ones((1, size, size), dtype=np.float32))
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with SshServer() as started:
        yield started


@pytest.fixture(params=["local", "ssh"])
def setup(request: pytest.FixtureRequest, models: Path, server: SshServer, tmp_path: Path) -> Iterator[Setup]:
    yield from _setup(server.device() if request.param == "ssh" else here_device(tmp_path), models)


@pytest.fixture
def over_ssh(models: Path, server: SshServer) -> Iterator[Setup]:
    yield from _setup(server.device(), models)


@pytest.fixture
def here(models: Path, tmp_path: Path) -> Iterator[Setup]:
    yield from _setup(here_device(tmp_path), models)


def test_probe(setup: Setup) -> None:
    facts = setup.client().probe()
    assert facts.machine == os.uname().machine
    assert facts.runtime_version("onnxruntime") is not None
    assert facts.memory_bytes > 0
    assert facts.disk_free_bytes > 0
    assert facts.numpy == np.__version__


def test_bench_brings_every_sample(setup: Setup) -> None:
    request = _request(runs=450)
    block = setup.client().bench(request, f"{setup.folder}/quick.onnx", f"{setup.folder}/quick.npy", timeout_s=60)
    assert len(block.samples_ns) == 450
    assert all(s > 0 for s in block.samples_ns)
    assert sum(block.samples_ns) <= block.wall_ns
    assert block.warmup_runs >= request.warmup_min_runs
    assert 0 < block.base_bytes <= block.peak_load_bytes <= block.peak_bytes
    assert block.warmup_ns is not None
    assert block.warmup_ns > 0
    assert block.probe_before_ns
    assert block.probe_after_ns
    assert block.minor_faults is not None
    assert block.load_average is not None
    assert block.clock_source
    assert block.cpus == (max(os.sched_getaffinity(0)),)
    assert abs(block.started_unix_s - time.time()) < 60


def test_runs_fill_the_time_that_is_asked_for(setup: Setup) -> None:
    """Of quick ones as many as are allowed; of slow ones as many as the time has, but not less than were asked for."""
    quick = setup.bench(replace(_request(runs=20), fill_s=30.0, max_runs=700))
    assert len(quick.samples_ns) == 700
    slow = setup.bench(replace(_request(runs=5, warmup_max_runs=20), fill_s=1.0, max_runs=1000), "slow")
    assert 5 <= len(slow.samples_ns) < 200
    few = setup.bench(replace(_request(runs=12, warmup_max_runs=20), fill_s=1e-6, max_runs=1000), "slow")
    assert len(few.samples_ns) == 12
    # Where they would take longer than is wanted, 20 are enough.
    least = setup.bench(replace(_request(runs=300, warmup_max_runs=20), max_s=1e-3), "slow")
    assert len(least.samples_ns) == 20


def test_bench_on_chosen_cores(here: Setup) -> None:
    first = min(os.sched_getaffinity(0))
    block = here.client().bench(
        _request(cpus=(first,)), f"{here.folder}/quick.onnx", f"{here.folder}/quick.npy", timeout_s=60
    )
    assert block.cpus == (first,)


def test_infer_agrees_with_the_product_by_hand(setup: Setup, tmp_path: Path) -> None:
    there = f"{setup.device.work_folder}/outputs/y.npy"
    setup.client().infer(
        "onnxruntime",
        Precision.FLOAT32,
        1,
        f"{setup.folder}/quick.onnx",
        inputs_path=f"{setup.folder}/quick.npy",
        outputs_path=there,
        timeout_s=60,
    )
    setup.connection.get(there, tmp_path / "y.npy")
    outputs = np.load(tmp_path / "y.npy")
    assert outputs.dtype == np.float32
    assert outputs.tolist() == [[1, 2], [8, 10]]


def test_artifact_that_is_none(here: Setup) -> None:
    with pytest.raises(MeasurementError, match="onnxruntime refuses") as caught:
        here.client().bench(_request(), f"{here.folder}/quick.npy", f"{here.folder}/quick.npy", timeout_s=60)
    assert caught.value.facts["kind"] == "bad_artifact"


def test_inputs_of_another_shape(here: Setup) -> None:
    with pytest.raises(MeasurementError, match="onnxruntime on here") as caught:
        here.client().bench(_request(), f"{here.folder}/quick.onnx", f"{here.folder}/slow.npy", timeout_s=60)
    assert caught.value.facts["kind"] == "runtime"


def test_runtime_that_the_device_lacks(here: Setup, tmp_path: Path) -> None:
    # An environment of the same Python with numpy alone.
    (tmp_path / "packages").mkdir()
    packages = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (packages / name).exists():
            (tmp_path / "packages" / name).symlink_to(packages / name)
    python = _script(tmp_path, f'PYTHONPATH="{tmp_path}/packages" exec "{sys.base_prefix}/bin/python3" "$@"')
    client = here.client(python=python)
    with pytest.raises(MeasurementError, match=r"onnxruntime on here: .*install onnxruntime") as caught:
        client.bench(_request(), f"{here.folder}/quick.onnx", f"{here.folder}/quick.npy", timeout_s=60)
    assert caught.value.facts["kind"] == "not_installed"
    assert client.probe().runtimes == ()


def test_no_python(setup: Setup) -> None:
    with pytest.raises(DeployError, match="no python9 on"):
        setup.client(python="python9").probe()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -9 $$", r"killed \(out of memory\?\)"),
        ("exit 137", r"killed \(out of memory\?\)"),
        ("echo Segmentation; echo more", "cannot be read: 'Segmentation'"),
        ("echo 17", "cannot be read: '17'"),
        ('echo \'{"schema": 2, "event": "done"}\'', "cannot be read"),
        ("echo broken >&2; exit 3", "exit code 3: broken"),
        ("exit 0", "expected 300 samples, got 0"),
    ],
)
def test_python_that_misbehaves(here: Setup, tmp_path: Path, script: str, reason: str) -> None:
    client = here.client(python=_script(tmp_path, script))
    with pytest.raises(MeasurementError, match=reason):
        client.bench(_request(), "model", "inputs", timeout_s=60)


def test_exit_code_127_means_no_python(here: Setup, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="on here: install Python"):
        here.client(python=_script(tmp_path, "exit 127")).probe()


def test_bench_that_takes_too_long(setup: Setup) -> None:
    with pytest.raises(MeasurementError, match=r"no end within 3\.0 s"):
        setup.bench(_request(runs=100_000), "slow", timeout_s=3)


def test_connection_lost_in_mid_bench_drops_what_came(over_ssh: Setup, server: SshServer) -> None:
    def drop(line: str) -> None:
        if '"samples"' in line:
            server.signal_sessions(signal.SIGKILL)

    client = AgentClient(
        Listening(over_ssh.connection, drop),
        python=over_ssh.device.python,
        agent_path=over_ssh.agent_path,
        work_folder=over_ssh.device.work_folder,
    )
    with pytest.raises(MeasurementError, match=r"the connection broke.* samples that had come are dropped") as caught:
        client.bench(
            _request(runs=100_000, warmup_max_runs=1),
            f"{over_ssh.folder}/slow.onnx",
            f"{over_ssh.folder}/slow.npy",
            timeout_s=60,
        )
    samples = caught.value.facts["samples"]
    assert isinstance(samples, int)
    assert samples > 0


def test_measurements_wait_for_each_other(here: Setup) -> None:
    held = bench.take_lock(here.device.work_folder, 0)
    threading.Timer(1.0, os.close, [held]).start()
    start = time.monotonic()
    here.bench(_request())
    assert time.monotonic() - start > 1.0


def _request(runs: int = 300, cpus: tuple[int, ...] = (), warmup_max_runs: int = 2000) -> BenchRequest:
    return BenchRequest(
        runtime="onnxruntime",
        precision=Precision.FLOAT32,
        threads=1,
        runs=runs,
        warmup_max_runs=warmup_max_runs,
        cpus=cpus,
    )


def _setup(device: DeviceSpec, models: Path) -> Iterator[Setup]:
    connection = connect(device)
    agent = install_agent(connection, device.python, device.work_folder, agent_bytes(), agent_digest())
    folder = f"{device.work_folder}/models"
    for path in models.iterdir():
        connection.put(path, f"{folder}/{path.name}")
    yield Setup(device, connection, agent, folder)
    connection.close()


def _script(folder: Path, text: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def _save_product(path: Path, weight: np.ndarray, *, rows: int | None = None, times: int = 1) -> None:
    """A model that multiplies its input by a matrix, again and again."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    lead = [1] if rows is None else [1, rows]
    names = ["x", *(f"h{i}" for i in range(times - 1)), "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(times)],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*lead, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*lead, weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
