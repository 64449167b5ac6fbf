"""What goes wrong between a client and a device, on real servers: nothing is left running, nothing hangs."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import Client
from devices_for_tests import gone, here_device
from sshd import SshServer

from edgeprune.benchmarking.agent.package import agent_bytes, agent_digest
from edgeprune.deployment import remote_shell
from edgeprune.deployment.connections import connect
from edgeprune.deployment.transfer import ensure_files, install_agent
from edgeprune.errors import DeployError, DeviceTimeoutError
from edgeprune.protocols import Connection
from edgeprune.schema.device import DeviceSpec

LONG = ["sh", "-c", "sleep 60 & echo $! $$; sleep 60"]


@pytest.fixture(scope="module")
def narrow() -> Iterator[SshServer]:
    with SshServer(options=("MaxSessions 1",)) as started:
        yield started


@pytest.fixture
def work(server: SshServer) -> str:
    return str(server.home / f"work-{time.monotonic_ns()}")


def test_a_lost_connection_ends_the_command_there(server: SshServer) -> None:
    connection = connect(server.device())
    pids: list[str] = []

    def drop(line: str) -> None:
        pids.extend(line.split())
        server.signal_sessions(signal.SIGKILL)

    with pytest.raises(DeployError, match="connection lost"):
        connection.run(LONG, timeout_s=20, on_line=drop)
    assert len(pids) == 2
    assert gone(pids)


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_a_killed_client_leaves_nothing_running(kind: str, server: SshServer, tmp_path: Path) -> None:
    here = here_device(tmp_path)
    with Client(server.device() if kind == "ssh" else here, "run", *LONG) as client:
        pids = client.said("line")[1].split()
        assert not gone(pids, within_s=0.2)
        client.kill()
        assert gone(pids)


def test_a_command_ends_by_the_devices_own_clock_when_the_link_goes_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_shell, "_DEVICE_GRACE_S", 0)
    command = subprocess.Popen(
        ["sh", "-c", remote_shell.wrap(["sleep", "60"], 1)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    start = time.monotonic()
    assert command.wait(10) == -signal.SIGKILL
    assert 0.8 < time.monotonic() - start < 4
    assert command.stdin is not None
    command.stdin.close()


def test_one_session_at_a_time_is_enough(narrow: SshServer, tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(os.urandom(300_000))
    connection = connect(narrow.device())
    for round_number in range(3):
        there = f"{narrow.home}/narrow-{round_number}"
        connection.put(source, there)
        assert connection.run(["wc", "-c", there], timeout_s=10).stdout.split()[0] == "300000"
        connection.get(there, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    connection.close()


def test_a_timeout_kills_where_no_second_session_can_be_had(narrow: SshServer) -> None:
    connection = connect(narrow.device())
    pids: list[str] = []
    with pytest.raises(DeviceTimeoutError):
        connection.run(LONG, timeout_s=1, on_line=lambda line: pids.extend(line.split()))
    assert gone(pids)
    assert connection.run(["echo", "still"], timeout_s=10).stdout == "still\n"
    connection.close()


def test_a_session_that_is_taken_is_said(narrow: SshServer) -> None:
    connection = connect(narrow.device())
    begun = threading.Event()
    command = threading.Thread(
        target=lambda: connection.run(["sh", "-c", "echo; sleep 2"], timeout_s=10, on_line=lambda _: begun.set())
    )
    command.start()
    begun.wait(5)
    with pytest.raises(DeployError, match="MaxSessions"):
        connection.run(["true"], timeout_s=0.5)
    command.join()
    assert connection.run(["true"], timeout_s=5).returncode == 0
    connection.close()


def test_an_upload_that_was_cut_goes_on_where_it_stopped(server: SshServer, work: str, tmp_path: Path) -> None:
    source, sha256 = _model(tmp_path, 60_000_000)
    device = server.device(work_folder=work)
    connection = connect(device)
    agent = _agent(connection, device)
    part = Path(work) / "parts" / f"{sha256}.part"
    with pytest.raises(DeployError, match="connection lost"), _cut_when(part, 5_000_000, server):
        ensure_files(connection, device.python, agent, work, [(source, sha256)])
    assert not list(Path(work, "artifacts").glob("*/*"))
    left = part.stat().st_size
    assert 5_000_000 <= left < 60_000_000
    connection = connect(device)
    offsets: list[int] = []
    folder = ensure_files(_Spying(connection, offsets), device.python, agent, work, [(source, sha256)])
    assert offsets == [left]
    assert Path(folder, "model.bin").read_bytes() == source.read_bytes()
    assert not part.exists()
    connection.close()


def test_a_part_of_something_else_is_written_anew(server: SshServer, work: str, tmp_path: Path) -> None:
    source, sha256 = _model(tmp_path, 400_000)
    device = server.device(work_folder=work)
    connection = connect(device)
    agent = _agent(connection, device)
    (tmp_path / "other").write_bytes(bytes(500_000))
    for rotten in (b"other", bytes(500_000)):
        (tmp_path / "other").write_bytes(rotten)
        connection.put(tmp_path / "other", f"{work}/parts/{sha256}.part")
        folder = ensure_files(connection, device.python, agent, work, [(source, sha256)])
        assert Path(folder, "model.bin").read_bytes() == source.read_bytes()
        connection.run(["rm", "-r", folder], timeout_s=10)
    connection.close()


def test_a_read_only_work_folder_is_said(server: SshServer, work: str, tmp_path: Path) -> None:
    if server.user == "root":
        pytest.skip("root may write anywhere")
    device = server.device(work_folder=f"{work}/closed")
    connection = connect(device)
    connection.run(["mkdir", "-p", f"{work}/closed"], timeout_s=10)
    connection.run(["chmod", "555", f"{work}/closed"], timeout_s=10)
    with pytest.raises(DeployError, match=f"cannot write {work}/closed/agent.*permission denied"):
        _agent(connection, device)
    connection.close()


def test_a_full_disk_in_mid_artifact(server: SshServer, tmp_path: Path) -> None:
    folder = server.home / "full"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        source, sha256 = _model(tmp_path, 3_000_000)
        device = server.device(work_folder=str(folder))
        connection = connect(device)
        agent = _agent(connection, device)
        with pytest.raises(DeployError, match=r"disk full on edge: needs 3\.00 MB"):
            ensure_files(connection, device.python, agent, str(folder), [(source, sha256)])
        assert not list(folder.rglob("*.part"))
        connection.close()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class _Spying:
    """A real connection that tells where uploads begin."""

    def __init__(self, connection: Connection, offsets: list[int]) -> None:
        self.run = connection.run
        self.get = connection.get
        self.close = connection.close
        self._connection = connection
        self._offsets = offsets

    def put(self, source: Path, destination: str, *, offset: int = 0) -> None:
        self._offsets.append(offset)
        self._connection.put(source, destination, offset=offset)


class _cut_when:  # noqa: N801 - used as a function
    """Kills the server's sessions once a file there has so many bytes."""

    def __init__(self, path: Path, size_bytes: int, server: SshServer) -> None:
        self._thread = threading.Thread(target=self._watch, args=(path, size_bytes, server))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    @staticmethod
    def _watch(path: Path, size_bytes: int, server: SshServer) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if path.exists() and path.stat().st_size >= size_bytes:
                server.signal_sessions(signal.SIGKILL)
                return
            time.sleep(0.001)


def _agent(connection: Connection, device: DeviceSpec) -> str:
    return install_agent(connection, device.python, device.work_folder, agent_bytes(), agent_digest())


def _model(folder: Path, size_bytes: int) -> tuple[Path, str]:
    """A file that no device has yet, and its sha256."""
    source = folder / "model.bin"
    source.write_bytes(os.urandom(size_bytes))
    return source, hashlib.sha256(source.read_bytes()).hexdigest()
