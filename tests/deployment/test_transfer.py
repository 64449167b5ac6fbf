from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from devices_for_tests import here_device
from sshd import SshServer

from edgeprune.benchmarking.agent.package import agent_bytes, agent_digest
from edgeprune.deployment.connections import connect
from edgeprune.deployment.transfer import ensure_files, install_agent
from edgeprune.errors import DeployError
from edgeprune.protocols import CommandResult, Connection
from edgeprune.records.artifact import Artifact, ArtifactFile
from edgeprune.records.rung import Precision
from edgeprune.schema.device import DeviceSpec


class Counting:
    """A real connection that remembers what was sent, and may spoil it."""

    def __init__(self, connection: Connection, spoil: Callable[[bytes], bytes] | None = None) -> None:
        self._connection = connection
        self._spoil = spoil
        self.sent: list[str] = []

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_line: Callable[[str], None] | None = None
    ) -> CommandResult:
        return self._connection.run(argv, timeout_s=timeout_s, on_line=on_line)

    def put(self, source: Path, destination: str, *, offset: int = 0) -> None:
        self.sent.append(source.name)
        if self._spoil is not None:
            spoiled = source.with_name("spoiled")
            spoiled.write_bytes(self._spoil(source.read_bytes()))
            source = spoiled
        self._connection.put(source, destination, offset=offset)

    def get(self, source: str, destination: Path) -> None:
        self._connection.get(source, destination)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def local(tmp_path: Path) -> Connection:
    return connect(here_device(tmp_path))


@pytest.fixture(params=["local", "ssh"])
def device(request: pytest.FixtureRequest, server: SshServer, tmp_path: Path) -> DeviceSpec:
    if request.param == "local":
        return here_device(tmp_path)
    # A name with a space and a quote: nothing may be pasted into a shell unquoted.
    return server.device(work_folder=str(server.home / f"work '{tmp_path.name}"))


@pytest.fixture
def connection(device: DeviceSpec) -> Iterator[Connection]:
    opened = connect(device)
    yield opened
    opened.close()


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, str]]:
    made = []
    for name, size in (("model.xml", 5_000), ("model.bin", 200_000)):
        path = tmp_path / "made" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(size))
        made.append((path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return made


def test_files_are_sent_once(device: DeviceSpec, connection: Connection, files: list[tuple[Path, str]]) -> None:
    counting = Counting(connection)
    folders = set()
    for _ in range(2):
        agent = install_agent(counting, device.python, device.work_folder, agent_bytes(), agent_digest())
        folders.add(ensure_files(counting, device.python, agent, device.work_folder, files))
    assert counting.sent == ["agent.pyz", "model.xml", "model.bin"]
    (folder,) = folders
    for path, sha256 in files:
        there = connection.run(["sha256sum", f"{folder}/{path.name}"], timeout_s=10).stdout
        assert there.removeprefix("\\").startswith(sha256)
    names = connection.run(["ls", "-A", folder, device.work_folder], timeout_s=10).stdout
    assert ".part" not in names


def test_folder_is_named_after_the_artifact(local: Connection, tmp_path: Path, files: list[tuple[Path, str]]) -> None:
    artifact = Artifact(
        runtime="openvino",
        precision=Precision.FLOAT32,
        files=tuple(ArtifactFile(name=p.name, sha256=s, size_bytes=p.stat().st_size) for p, s in files),
        inputs=(),
        outputs=(),
        format="",
    )
    assert ensure_files(local, sys.executable, _agent(local, tmp_path), str(tmp_path / "work"), files) == (
        f"{tmp_path}/work/artifacts/{artifact.digest}"
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(lambda data: data[:-1], "cut short"), (lambda data: data[:-1] + b"!", "another sha256")],
)
def test_what_arrives_wrong_never_appears(
    local: Connection, tmp_path: Path, files: list[tuple[Path, str]], spoil: Callable[[bytes], bytes], reason: str
) -> None:
    agent = _agent(local, tmp_path)
    with pytest.raises(DeployError, match=reason):
        ensure_files(Counting(local, spoil), sys.executable, agent, str(tmp_path / "work"), files)
    assert not [p for p in (tmp_path / "work" / "artifacts").rglob("*") if p.is_file()]


def test_a_file_that_was_changed_there_is_sent_again(
    local: Connection, tmp_path: Path, files: list[tuple[Path, str]]
) -> None:
    agent = _agent(local, tmp_path)
    folder = Path(ensure_files(local, sys.executable, agent, str(tmp_path / "work"), files))
    (folder / "model.bin").write_bytes(b"rotten")
    counting = Counting(local)
    ensure_files(counting, sys.executable, agent, str(tmp_path / "work"), files)
    assert counting.sent == ["model.bin"]


def test_an_agent_that_was_cut_short_is_sent_again(local: Connection, tmp_path: Path) -> None:
    agent = Path(_agent(local, tmp_path))
    agent.write_bytes(agent.read_bytes()[:1000])
    assert _agent(local, tmp_path) == str(agent)
    assert agent.read_bytes() == agent_bytes()


def test_an_agent_cut_short_on_its_way(local: Connection, tmp_path: Path) -> None:
    counting = Counting(local, lambda data: data[:20_000])
    with pytest.raises(DeployError, match="did not take"):
        install_agent(counting, sys.executable, str(tmp_path / "work"), agent_bytes(), agent_digest())
    assert not list((tmp_path / "work").glob("*.pyz"))


def test_two_builds_install_at_once(local: Connection, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def install() -> None:
        try:
            _agent(local, tmp_path)
        except DeployError as error:
            failures.append(error)

    threads = [threading.Thread(target=install) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [p.name for p in (tmp_path / "work").iterdir()] == [f"agent-{agent_digest()[:16]}.pyz"]


def test_no_python_on_the_device(device: DeviceSpec, connection: Connection) -> None:
    with pytest.raises(DeployError, match="no python9 on the device"):
        install_agent(connection, "python9", device.work_folder, agent_bytes(), agent_digest())


def _agent(connection: Connection, tmp_path: Path) -> str:
    return install_agent(connection, sys.executable, str(tmp_path / "work"), agent_bytes(), agent_digest())
