"""Environments on real devices: made, made again, and what goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from devices_for_tests import here_device
from sshd import SshServer
from wheels_for_tests import HERE, make_wheel, only_index

from edgeprune.cli import run
from edgeprune.deployment.inventory import load_device, lock_file, save_device
from edgeprune.deployment.provisioning import Environments
from edgeprune.deployment.wheels import Fetched, read_wheel
from edgeprune.errors import DeployError
from edgeprune.events import NullReporter
from edgeprune.schema.device import DeviceSpec
from edgeprune.steps.health import check_device
from edgeprune.steps.provisioning import provision
from edgeprune.steps.session import open_session

RUNTIME = ("onnxruntime",)


@pytest.fixture(scope="module")
def bare() -> Iterator[SshServer]:
    """A device whose Python has no libraries."""
    server = SshServer()
    server.env.clear()
    server.python = os.path.realpath(server.python)
    with server:
        yield server


@pytest.fixture
def spec(bare: SshServer) -> DeviceSpec:
    work = bare.home / f"work '{time.monotonic_ns()}"
    return bare.device(work_folder=str(work), lease_folder=f"{work}-lease")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    monkeypatch.setenv("EDGEPRUNE_HOME", str(tmp_path / "home"))
    only_index(monkeypatch, folder)
    make_wheel(folder, "onnxruntime", "1.0", tag=HERE, requires=("numpy>=1.5", 'helper; sys_platform == "linux"'))
    make_wheel(folder, "onnxruntime", "2.0", tag="cp27-cp27m-manylinux1_x86_64")
    make_wheel(folder, "openvino", "1.0", tag="py3-none-win_amd64")
    make_wheel(folder, "tflite-runtime", "2.14", tag=HERE, requires=("numpy>=1",), more={
        "tflite_runtime/interpreter.py": b"",
    })  # fmt: skip
    make_wheel(folder, "helper", "1.0")
    for version in ("1.9", "2.1"):
        make_wheel(folder, "numpy", version)
    return folder


def test_an_environment_is_made_kept_and_replaced(spec: DeviceSpec, index: Path) -> None:
    save_device(spec)
    first = provision("edge", RUNTIME, NullReporter())
    assert first.changed
    assert [(w.name, w.version) for w in first.wheels] == [("helper", "1.0"), ("numpy", "2.1"), ("onnxruntime", "1.0")]
    assert first.sent_bytes == sum(w.size_bytes for w in first.wheels)
    assert first.runtimes == (("onnxruntime", "1.0"),)
    assert load_device("edge") == spec.model_copy(update={"python": first.python, "base_python": spec.python})
    facts = check_device(load_device("edge")).health.facts
    assert (facts.numpy, facts.runtimes) == ("2.1", (("onnxruntime", "1.0"),))
    lock = lock_file("edge").read_text().splitlines()
    (wheel,) = index.glob("helper-*.whl")
    assert lock[1] == f"helper==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    assert stat.S_IMODE(lock_file("edge").stat().st_mode) == 0o600

    second = provision("edge", RUNTIME, NullReporter())
    assert (second.changed, second.sent_bytes, second.wheels) == (False, 0, first.wheels)

    third = provision("edge", ["tflite", "onnxruntime"], NullReporter())
    assert third.changed
    assert (third.numpy, third.before) == ("1.9", first.runtimes)
    assert third.runtimes == (("onnxruntime", "1.0"), ("tflite", "2.14"))
    sent = {w.file for w in third.wheels} - {w.file for w in first.wheels}
    assert third.sent_bytes == sum(w.size_bytes for w in third.wheels if w.file in sent)
    assert third.python == first.python
    assert len(_entries(spec)) == 2


def test_the_command_says_what_it_did(spec: DeviceSpec, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_device(spec)
    assert run(["device", "provision", "edge", "--runtime", "onnxruntime", "--format", "json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["runtimes"] == [["onnxruntime", "1.0"]]
    (_target(spec) / "bin" / "python").unlink()
    assert run(["device", "provision", "edge", "--runtime", "onnxruntime", "-q"]) == 0
    assert "edge: onnxruntime 1.0; numpy 2.1\n  new environment of 3 wheels" in capsys.readouterr().out
    for arguments, code, reason in (
        (["--runtime", "openvino"], 5, "no wheel of openvino for the device"),
        (["--runtime", "onxruntime"], 2, "did you mean 'onnxruntime'"),
        (["--runtime", "onnxruntime,"], 2, "expected names with commas"),
        (["--runtime", "onnxruntime", "--python", "python9"], 5, "no python9 on the device"),
    ):
        assert run(["device", "provision", "edge", *arguments]) == code
        assert reason in capsys.readouterr().err
    assert run(["device", "provision", "local", "--runtime", "openvino"]) == 2
    assert check_device(load_device("edge")).health.facts.runtimes == (("onnxruntime", "1.0"),)


@dataclass
class Device:
    """A device with an environment on it, and what it takes to give it another one."""

    spec: DeviceSpec
    there: Environments
    wheels: Path
    lease: str

    def give(
        self, code: str, *, tell: Callable[[int], None] = lambda done: None, numpy: bool = True, **wheel: object
    ) -> None:
        """One with this code in its runtime; `wheel` is what `make_wheel` takes."""
        folder = self.wheels / str(time.monotonic_ns())
        made = [make_wheel(folder, "onnxruntime", "1.0", code=code, **wheel)]  # type: ignore[arg-type]
        if numpy:
            made.append(make_wheel(folder, "numpy", "2.1"))
        self.make([read_wheel(path) for path in made], tell)

    def make(self, fetched: Sequence[Fetched], tell: Callable[[int], None] = lambda done: None) -> None:
        paths, _ = self.there.send(fetched, (), 10**12)
        digest = hashlib.sha256("".join(f.wheel.sha256 for f in fetched).encode()).hexdigest()
        self.there.make(digest, RUNTIME, list(zip(paths, fetched, strict=True)), self.lease, tell)

    def assert_untouched(self, before: list[str]) -> None:
        """The earlier environment still works, and there is nothing else."""
        assert self.there.works(self.there.describe().python, RUNTIME) is not None
        assert _entries(self.spec) == before
        assert not any(name.startswith(".") for name in before)


@contextmanager
def _device(spec: DeviceSpec, tmp_path: Path) -> Iterator[Device]:
    with open_session(spec) as session, session.leased() as lease:
        device = Device(spec, Environments(session.agent, spec), tmp_path / "wheels", lease.token)
        device.give("")
        yield device


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """This host; whatever a test does to it, its environment is the same afterwards."""
    folder = tmp_path_factory.mktemp("local")
    spec = here_device(folder, python=os.path.realpath(sys.executable), lease_folder=str(folder / "lease"))
    with _device(spec, folder) as found:
        yield found


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('no such symbol')", "onnxruntime cannot be imported: no such symbol"),
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 4)", "illegal instruction: a wheel was built for a newer processor"),
        ("import os; os.abort()", "ended by SIGABRT"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_a_runtime_that_cannot_be_imported(device: Device, code: str, reason: str) -> None:
    before = _entries(device.spec)
    with pytest.raises(DeployError, match=f"{reason}.*nothing was changed"):
        device.give(code)
    device.assert_untouched(before)


def test_what_an_environment_lacks_is_said(device: Device) -> None:
    before = _entries(device.spec)
    with pytest.raises(DeployError, match="numpy cannot be imported"):
        device.give("", numpy=False)
    with pytest.raises(DeployError, match="would leave the environment"):
        device.give("", more={"../../outside": b"bad"})
    device.assert_untouched(before)


def test_libraries_from_outside_do_not_count(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside" / "numpy").mkdir(parents=True)
    (tmp_path / "outside" / "numpy" / "__init__.py").write_text("")
    before = _entries(device.spec)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "outside"))
    with pytest.raises(DeployError, match=r"numpy does not come from the environment .*outside.*PYTHONPATH"):
        device.give("")
    monkeypatch.delenv("PYTHONPATH")
    device.assert_untouched(before)


def test_a_lost_lease_makes_nothing(device: Device) -> None:
    before = _entries(device.spec)
    with pytest.raises(DeployError, match="lease of this device was lost"):
        replace(device, lease="0-stale").give("pass")
    device.assert_untouched(before)


def test_too_little_disk_is_seen_before_anything_is_sent(device: Device, tmp_path: Path) -> None:
    wheel = read_wheel(make_wheel(tmp_path, "numpy", "3.0", more={"numpy/zeros": bytes(2_000_000)}))
    with pytest.raises(
        DeployError, match=r"disk full: wheels and environment take 2\.6. MB, 1\.00 MB are free"
    ) as error:
        device.there.send([wheel], (), 1_000_000)
    assert error.value.exit_code == 5
    assert math.isclose(error.value.facts["needed_bytes"], 2_600_000, rel_tol=0.02)  # type: ignore[call-overload]


def test_a_wheel_that_was_changed_on_its_way(spec: DeviceSpec, tmp_path: Path) -> None:
    with _device(spec, tmp_path) as device:
        before = _entries(spec)
        wheel = read_wheel(make_wheel(tmp_path, "numpy", "3.0", more={"numpy/data": os.urandom(1000)}))
        content = bytearray(wheel.path.read_bytes())
        content[500] ^= 1
        wheel.path.write_bytes(content)
        with pytest.raises(DeployError, match="another sha256"):
            device.make([wheel])
        device.assert_untouched(before)


def test_a_folder_that_may_not_be_written(spec: DeviceSpec, bare: SshServer, tmp_path: Path) -> None:
    if bare.user == "root":
        pytest.skip("root may write anywhere")
    with _device(spec, tmp_path) as device:
        before = _entries(spec)
        folder = Path(spec.work_folder) / "environments"
        folder.chmod(0o555)
        with pytest.raises(DeployError, match=r"cannot make the environment: .*Permission denied"):
            device.give("pass")
        device.assert_untouched(before)


def test_a_disk_that_fills_up_in_the_middle(bare: SshServer, spec: DeviceSpec, tmp_path: Path) -> None:
    folder = bare.home / "small"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0777", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    small = spec.model_copy(update={"work_folder": str(folder)})
    try:
        with _device(small, tmp_path) as device:
            before = _entries(small)
            # Compressed it fits.
            with pytest.raises(DeployError, match=r"the environment takes \d+ MB, 2 MB are free"):
                device.give("", more={"onnxruntime/zeros": bytes(5_000_000)})
            device.assert_untouched(before)
            # Its bytes fit, the pages that they take do not.
            with pytest.raises(DeployError, match="No space left on device"):
                device.give("", more={f"onnxruntime/{k}": b"x" for k in range(600)})
            device.assert_untouched(before)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_client_that_dies_in_the_middle(bare: SshServer, spec: DeviceSpec, tmp_path: Path) -> None:
    with _device(spec, tmp_path) as device:
        before = _entries(spec)

        def cut(done: int) -> None:
            if done == 2:
                bare.signal_sessions(signal.SIGKILL)

        with pytest.raises(DeployError, match="connection lost"):
            # Without the lease, which whoever comes next would wait for.
            replace(device, lease="").give("import time; time.sleep(60)", tell=cut)
    assert len(_entries(spec)) >= len(before)
    with open_session(spec) as session:
        there = Environments(session.agent, spec)
        assert there.works(there.describe().python, RUNTIME) is not None
        after = Device(spec, there, tmp_path / "after", "")
        after.give("two = 2")
    (name,) = set(_entries(spec)) - {"current"}
    assert name not in before


def _entries(spec: DeviceSpec) -> list[str]:
    return sorted(path.name for path in (Path(spec.work_folder) / "environments").iterdir())


def _target(spec: DeviceSpec) -> Path:
    return Path(spec.work_folder) / "environments" / "current"
