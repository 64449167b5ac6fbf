"""Real runtimes from the package index that this machine's pip is configured for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from models import ResNet, seeded
from sshd import SshServer
from wheels_for_tests import interpreter

import edgeprune
from edgeprune import api
from edgeprune.benchmarking.agent.device import tflite_session
from edgeprune.deployment.inventory import load_device, save_device
from edgeprune.deployment.wheels import Fetcher
from edgeprune.events import NullReporter
from edgeprune.records.artifact import TensorSpec
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.provisioning import choose

INPUTS = TensorSpec(name="x", shape=(1, 3, 16, 16), dtype="float32")


@pytest.fixture
def bare() -> Iterator[SshServer]:
    """A device whose Python has no libraries, and none by its environment either."""
    server = SshServer()
    server.env.clear()
    server.python = os.path.realpath(server.python)
    with server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("runtime", "library"),
    [("onnxruntime", "onnxruntime"), ("tflite", "ai-edge-litert"), ("tflite", "tflite-runtime")],
)
def test_a_bare_device_is_provisioned_and_benched(
    bare: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, library: str
) -> None:
    libraries = sorted(tflite_session.LIBRARIES, key=lambda pair: pair[1] != library)
    monkeypatch.setattr(tflite_session, "LIBRARIES", tuple(libraries))
    work = str(bare.home / f"work-{library}")
    save_device(bare.device(name="bare", work_folder=work, lease_folder=f"{work}-lease"))
    done = api.provision("bare", [runtime])
    assert library in {wheel.name for wheel in done.wheels}
    if library == "tflite-runtime":
        assert done.numpy.startswith("1.")
    assert load_device("bare").python == done.python

    (tmp_path / "model").mkdir()
    files = RUNTIMES.get(runtime).compile(seeded(ResNet), INPUTS, tmp_path / "model")
    policy = api.BenchPolicy(processes=3, runs=300)
    result = edgeprune.bench(files.folder / files.names[0], device="bare", policy=policy)
    # On a machine that others use, too, the blocks may be disturbed: they ran all the same.
    assert result.measurement.all_blocks
    assert result.measurement.device.numpy == done.numpy
    assert result.measurement.device.runtimes == done.runtimes
    assert not api.provision("bare", [runtime]).changed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wheels_for_another_machine(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    for folder in (new, old):
        folder.mkdir()
    device = interpreter("3.11.2", "aarch64", "glibc 2.36")
    wheels = choose(Fetcher(interpreter=device, folder=new), ["openvino", "onnxruntime", "tflite"], NullReporter())
    found = {f.wheel.name: f.wheel.file for f in wheels}
    for name in ("openvino", "onnxruntime", "ai-edge-litert", "numpy"):
        assert "cp311" in found[name]
        assert found[name].endswith("_aarch64.whl")
    assert not any("x86_64" in file for file in found.values())

    device = interpreter("3.8.10", "aarch64", "glibc 2.31")
    wheels = choose(Fetcher(interpreter=device, folder=old), ["tflite"], NullReporter())
    found = {f.wheel.name: f.wheel.file for f in wheels}
    assert found["tflite-runtime"].endswith("_aarch64.whl")
    assert found["numpy"].startswith("numpy-1.")
