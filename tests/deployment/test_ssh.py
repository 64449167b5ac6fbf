from __future__ import annotations

import importlib
import os
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from paramiko.auth_strategy import AuthFailure, AuthResult
from paramiko.hostkeys import InvalidHostKey
from paramiko.pkey import UnknownKeyType
from sshd import SshServer

import edgeprune
from edgeprune.deployment.connections import connect
from edgeprune.deployment.connections.ssh import scan_host_key
from edgeprune.deployment.connections.ssh.translation import translated
from edgeprune.deployment.ssh_errors import Place
from edgeprune.deployment.watchdog import Watchdog
from edgeprune.errors import DeployError, DeviceTimeoutError, EdgepruneError, HostKeyError, InputError
from edgeprune.protocols import Connection

PLACE = Place(name="edge", host="10.0.0.9", port=22, user="pi")
KEY = paramiko.Ed25519Key.from_type_string("ssh-ed25519", b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
ARGUMENTS: dict[type[BaseException], tuple[object, ...]] = {
    paramiko.BadAuthenticationType: ("no", ["password"]),
    paramiko.BadHostKeyException: ("10.0.0.9", KEY, KEY),
    paramiko.ChannelException: (2, "Connect failed"),
    paramiko.ssh_exception.CouldNotCanonicalize: ("no",),
    paramiko.ssh_exception.PartialAuthentication: (["password"],),
    paramiko.ProxyCommandFailure: ("nc", 1),
    paramiko.ssh_exception.NoValidConnectionsError: ({("10.0.0.9", 22): ConnectionRefusedError("no")},),
    InvalidHostKey: ("line", ValueError("no")),
    AuthFailure: (AuthResult(strategy=None),),
    UnknownKeyType: ("ssh-dss", b""),
}


def paramiko_exceptions() -> list[type[Exception]]:
    found: set[type[Exception]] = set()
    for info in pkgutil.iter_modules(paramiko.__path__):
        # These are for Windows and cannot be imported elsewhere.
        if info.name not in ("_winapi", "win_pageant", "win_openssh"):
            module = importlib.import_module(f"paramiko.{info.name}")
            own = (v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__)
            found |= {v for v in own if issubclass(v, Exception)}
    return sorted(found, key=lambda c: c.__name__)


@pytest.mark.parametrize("kind", paramiko_exceptions(), ids=lambda c: c.__name__)
def test_every_paramiko_exception_becomes_ours(kind: type[Exception]) -> None:
    error = kind(*ARGUMENTS.get(kind, ("it said no",)))
    with (
        pytest.raises(EdgepruneError, match=r"device edge \(pi@10\.0\.0\.9:22\)") as caught,
        translated(PLACE, "work"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_the_walk_finds_the_odd_ones() -> None:
    names = {c.__name__ for c in paramiko_exceptions()}
    assert {"UnknownKeyType", "SSHException", "SFTPError", "PipeTimeout", "NoValidConnectionsError"} <= names


@pytest.mark.parametrize(
    "error", [EOFError(), OSError("Failure"), ConnectionResetError(104, "reset"), ValueError("bad")]
)
def test_other_exceptions_become_ours(error: Exception) -> None:
    with pytest.raises(DeployError, match="cannot work"), translated(PLACE, "work"):
        raise error


@pytest.mark.parametrize(("waited_s", "kind"), [(0.19, DeviceTimeoutError), (0.0, DeployError)])
def test_a_session_that_paramiko_gave_up_in_vain_timed_out(waited_s: float, kind: type[DeployError]) -> None:
    def work(one: socket.socket) -> None:
        with translated(PLACE, "work", Watchdog(one, 0.2)):
            time.sleep(waited_s)
            raise paramiko.SSHException("No existing session")

    one, other = socket.socketpair()
    with one, other, pytest.raises(DeployError) as caught:
        work(one)
    assert type(caught.value) is kind


def test_changed_host_key_stops_with_both_fingerprints(server: SshServer, tmp_path: Path) -> None:
    other = _new_key(tmp_path / "other")
    pinned = subprocess.run(
        ["ssh-keygen", "-l", "-f", f"{tmp_path}/other.pub"], check=True, capture_output=True, text=True
    ).stdout.split()[1]
    found = scan_host_key(server.device()).fingerprint
    with pytest.raises(HostKeyError) as caught:
        connect(server.device(name="pi4", host_key=other))
    assert caught.value.facts == {"pinned": pinned, "found": found}
    assert pinned in caught.value.message
    assert found in caught.value.message
    assert "edgeprune device add pi4" in caught.value.message


def test_another_type_of_host_key_is_a_stranger_too(server: SshServer, tmp_path: Path) -> None:
    other = _new_key(tmp_path / "other", kind="ecdsa")
    with pytest.raises(HostKeyError, match="CHANGED"):
        connect(server.device(host_key=other))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_the_pinned_type_is_asked_for_among_several(tmp_path: Path, kind: str) -> None:
    pinned = _new_key(tmp_path / "other", kind=kind)
    with SshServer(options=(f"HostKey {tmp_path}/other",)) as both:
        assert scan_host_key(both.device()).type == "ssh-ed25519"
        connect(both.device(host_key=pinned)).close()
        connect(both.device()).close()


def test_no_pinned_key_is_refused(server: SshServer) -> None:
    with pytest.raises(HostKeyError, match="no host key is pinned"):
        connect(server.device(host_key=""))


@pytest.mark.parametrize("host_key", ["ssh-ed25519", "ssh-ed25519 !!!!", "x"])
def test_malformed_pinned_key(server: SshServer, host_key: str) -> None:
    with pytest.raises(InputError, match="host_key: expected a type and base64"):
        connect(server.device(host_key=host_key))


def test_pinned_key_of_an_unknown_type(server: SshServer) -> None:
    with pytest.raises(EdgepruneError, match="device edge"):
        connect(server.device(host_key="ssh-strange AAAAB3Nz"))


def test_scanned_key_is_the_servers(server: SshServer) -> None:
    assert scan_host_key(server.device()).line == server.host_key


def test_nothing_listens(server: SshServer) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(DeployError, match="refused"):
            scan_host_key(server.device(port=sock.getsockname()[1]))


def test_silent_server_is_given_up(server: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(DeployError):
            connect(server.device(port=silent.getsockname()[1], connect_timeout_s=1.0))
        assert time.monotonic() - start < 4


def test_unknown_host(server: SshServer) -> None:
    with pytest.raises(DeployError, match="cannot connect"):
        connect(server.device(host="no-such-host.invalid"))


def test_wrong_identity(server: SshServer, tmp_path: Path) -> None:
    _new_key(tmp_path / "stranger")
    with pytest.raises(DeployError, match="refused with"):
        connect(server.device(identity_file=str(tmp_path / "stranger")))


def test_identity_with_a_passphrase(server: SshServer, tmp_path: Path) -> None:
    _new_key(tmp_path / "locked", passphrase="secret")  # noqa: S106
    with pytest.raises(DeployError, match="passphrase"):
        connect(server.device(identity_file=str(tmp_path / "locked")))


def test_malformed_identity(server: SshServer, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(DeployError, match="cannot connect"):
        connect(server.device(identity_file=str(tmp_path / "bad")))


def test_missing_identity_and_host(server: SshServer) -> None:
    with pytest.raises(InputError, match="identity_file: no such file"):
        connect(server.device(identity_file="/nowhere/key"))
    with pytest.raises(InputError, match="host: missing"):
        connect(server.device(host=""))


def test_server_without_sftp(tmp_path: Path) -> None:
    with SshServer(sftp=False) as bare:
        connection = connect(bare.device())
        (tmp_path / "x").write_text("x")
        with pytest.raises(DeployError, match="no SFTP"):
            connection.put(tmp_path / "x", "x")
        assert connection.run(["echo", "works"], timeout_s=5).stdout == "works\n"
        connection.close()


def test_no_permission(server: SshServer, tmp_path: Path) -> None:
    if server.user == "root":
        pytest.skip("root may write anywhere")
    (tmp_path / "x").write_text("x")
    connection = connect(server.device())
    with pytest.raises(DeployError, match="permission denied"):
        connection.put(tmp_path / "x", "/etc/edgeprune-test")
    connection.close()


@pytest.fixture
def full_disk(server: SshServer) -> Iterator[Path]:
    folder = server.home / "small"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_said_with_sizes(server: SshServer, full_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.write_bytes(bytes(3_000_000))
    connection = connect(server.device())
    with pytest.raises(DeployError, match=r"disk full on edge: needs 3\.00 MB, 1\.05 MB free"):
        connection.put(source, f"{full_disk}/model")
    assert not list(full_disk.iterdir())
    connection.close()


def test_lost_connection_in_a_command(server: SshServer) -> None:
    connection = connect(server.device())

    def drop(_line: str) -> None:
        server.signal_sessions(signal.SIGKILL)

    with pytest.raises(DeployError, match="connection lost"):
        connection.run(["sh", "-c", "echo go; sleep 5"], timeout_s=20, on_line=drop)
    with pytest.raises(DeployError, match="connection lost"):
        connection.run(["true"], timeout_s=5)
    connection.close()


def test_frozen_device_is_a_timeout_not_a_hang(server: SshServer, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(bytes(30_000_000))
    commands: list[Callable[[Connection], object]] = [
        lambda c: c.run(["true"], timeout_s=1),
        lambda c: c.put(source, "big"),
    ]
    for command in commands:
        connection = connect(server.device(connect_timeout_s=1.5))
        # Once a command has run, all of the session's processes are there to be frozen.
        connection.run(["true"], timeout_s=5)
        server.signal_sessions(signal.SIGSTOP)
        start = time.monotonic()
        try:
            with pytest.raises(DeviceTimeoutError):
                command(connection)
            assert time.monotonic() - start < 8
        finally:
            server.signal_sessions(signal.SIGCONT)
            connection.close()


def test_frozen_in_the_middle_of_a_command(server: SshServer) -> None:
    connection = connect(server.device())

    def freeze(_line: str) -> None:
        server.signal_sessions(signal.SIGSTOP)

    start = time.monotonic()
    try:
        with pytest.raises(DeviceTimeoutError):
            connection.run(["sh", "-c", "echo go; sleep 3"], timeout_s=1, on_line=freeze)
        assert time.monotonic() - start < 8
    finally:
        server.signal_sessions(signal.SIGCONT)
        connection.close()


def test_frozen_before_the_handshake(server: SshServer) -> None:
    with SshServer() as other:
        assert other._process is not None
        os.kill(other._process.pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(DeployError):
            connect(other.device(connect_timeout_s=1.0))
        assert time.monotonic() - start < 4


def test_short_commands_are_quick(server: SshServer) -> None:
    """Without TCP_NODELAY each would take more than 40 ms."""
    connection = connect(server.device())
    times = []
    for _ in range(10):
        start = time.monotonic()
        connection.run(["true"], timeout_s=5)
        times.append(time.monotonic() - start)
    connection.close()
    assert min(times) < 0.03


def _new_key(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


def test_paramiko_is_imported_in_one_package() -> None:
    sources = Path(edgeprune.__file__).parent.rglob("*.py")
    importing = [s for s in sources if re.search(r"^\s*(import|from) paramiko", s.read_text(), re.MULTILINE)]
    assert {s.parent.relative_to(Path(edgeprune.__file__).parent).as_posix() for s in importing} == {
        "deployment/connections/ssh"
    }


def test_a_local_device_loads_no_paramiko() -> None:
    program = (
        "import sys; from edgeprune.deployment.connections import CONNECTIONS; import edgeprune.deployment.transfer;"
        "CONNECTIONS.get('local'); import edgeprune.deployment.inventory; sys.exit('paramiko' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
