"""Real ways to a real sshd: through jump hosts, a ProxyCommand, with keys of an ssh-agent, all from an OpenSSH file."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sshd import SshServer

from edgeprune.deployment.connections import connect
from edgeprune.deployment.connections.ssh import scan_host_key
from edgeprune.deployment.host_keys import parse_host_key
from edgeprune.errors import DeployError, DeviceTimeoutError, HostKeyError
from edgeprune.schema.device import DeviceSpec

PIPE = """
import os, socket, sys, threading
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def pump():
    while data := os.read(0, 65536):
        sock.sendall(data)
threading.Thread(target=pump, daemon=True).start()
while data := sock.recv(65536):
    os.write(1, data)
"""
"""What `nc HOST PORT` does."""


@pytest.fixture(scope="module")
def jump() -> Iterator[SshServer]:
    with SshServer() as started:
        yield started


class Lab:
    """A configuration with the device `pi` behind the jump host `gate`."""

    def __init__(self, folder: Path, server: SshServer, jump: SshServer) -> None:
        self.folder, self.server, self.jump = folder, server, jump
        self.known = folder / "known_hosts"
        self.known.write_text(f"[{jump.host}]:{jump.port} {jump.host_key}\n")

    def gate(self, *more: str) -> str:
        return self._host("gate", self.jump, f"UserKnownHostsFile {self.known}", *more)

    def pi(self, *more: str) -> str:
        return self._host("pi", self.server, *more)

    def device(self, config: str, **changes: object) -> DeviceSpec:
        path = self.folder / "config"
        path.write_text(config)
        own = {"host": "pi", "port": 0, "user": "", "identity_file": "", "ssh_config": str(path)}
        return self.server.device("pi", **{**own, **changes})

    def _host(self, alias: str, server: SshServer, *more: str) -> str:
        own = (
            f"HostName {server.host}", f"Port {server.port}", f"User {server.user}", "GlobalKnownHostsFile /dev/null",
            f"IdentityFile {server.identity_file}", "IdentitiesOnly yes", "IdentityAgent none",
        )  # fmt: skip
        return "\n ".join((f"Host {alias}", *more, *own)) + "\n"


@pytest.fixture
def lab(tmp_path: Path, server: SshServer, jump: SshServer) -> Lab:
    return Lab(tmp_path, server, jump)


def test_an_alias_alone_is_enough(lab: Lab) -> None:
    connection = connect(lab.device(lab.pi()))
    assert connection.run(["echo", "hi"], timeout_s=5).stdout == "hi\n"
    connection.close()


def test_through_a_jump_host(lab: Lab, tmp_path: Path) -> None:
    """Commands, both streams and files go through; the device sees the jump host's address and is pinned by itself."""
    device = lab.device(lab.gate() + lab.pi("ProxyJump gate"))
    assert scan_host_key(device).line == lab.server.host_key
    connection = connect(device)
    assert lab.jump.sessions()
    result = connection.run(["sh", "-c", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2"], timeout_s=30)
    assert (len(result.stdout), len(result.stderr)) == (3_000_000, 3_000_000)
    source = tmp_path / "file"
    source.write_bytes(os.urandom(2_000_000))
    there = str(lab.server.home / "through")
    connection.put(source, there)
    connection.get(there, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    connection.close()
    _wait_until(lambda: not lab.jump.sessions())


def test_through_a_chain(lab: Lab) -> None:
    with SshServer() as second:
        more = Lab(lab.folder, second, second)
        lab.known.write_text(f"[{lab.jump.host}]:{lab.jump.port} {lab.jump.host_key}\n" + more.known.read_text())
        inner = more.gate().replace("Host gate", "Host inner")
        connection = connect(lab.device(lab.gate() + inner + lab.pi("ProxyJump gate,inner")))
        assert second.sessions()
        assert connection.run(["echo", "hi"], timeout_s=5).stdout == "hi\n"
        connection.close()


def test_an_unknown_jump_host_is_refused_and_not_added(lab: Lab) -> None:
    lab.known.write_text("")
    # OpenSSH would take it: we never do.
    config = lab.gate("StrictHostKeyChecking no") + lab.pi("ProxyJump gate")
    with pytest.raises(HostKeyError, match=r"jump host gate \(.*\) of device pi: its host key is not known") as caught:
        connect(lab.device(config))
    assert _fingerprint(lab.jump.host_key) in caught.value.message
    assert f"ssh -F {lab.folder}/config -p {lab.jump.port} {lab.jump.user}@gate" in caught.value.message
    assert lab.known.read_text() == ""


def test_a_changed_jump_host_stops_everything(lab: Lab) -> None:
    old = _new_key(lab.folder / "old")
    lab.known.write_text(f"[{lab.jump.host}]:{lab.jump.port} {old}\n")
    device = lab.device(lab.gate("StrictHostKeyChecking no") + lab.pi("ProxyJump gate"))
    for attempt in (connect, scan_host_key):
        with pytest.raises(HostKeyError, match=r"jump host gate .* has CHANGED") as caught:
            attempt(device)
        assert _fingerprint(old) in caught.value.message
        assert _fingerprint(lab.jump.host_key) in caught.value.message
    # The commands that it names do what they are for.
    forget, log_in = caught.value.message.split("see the new one: ")[1].split(" && ")
    subprocess.run(shlex.split(forget), check=True, capture_output=True)
    ssh, *where = shlex.split(log_in)
    accept = [ssh, "-o", "StrictHostKeyChecking=accept-new", *where, "true"]
    subprocess.run(accept, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    connect(device).close()


def test_a_revoked_jump_host_is_refused(lab: Lab) -> None:
    with lab.known.open("a") as file:
        file.write(f"@revoked * {lab.jump.host_key}\n")
    with pytest.raises(HostKeyError, match="@revoked"):
        connect(lab.device(lab.gate() + lab.pi("ProxyJump gate")))


def test_a_changed_device_behind_a_jump_host(lab: Lab) -> None:
    """The command that the message names enrols the device again."""
    old = _new_key(lab.folder / "old")
    device = lab.device(lab.gate() + lab.pi("ProxyJump gate"), host_key=old)
    with pytest.raises(HostKeyError, match=r"device pi .* has CHANGED") as caught:
        connect(device)
    assert caught.value.facts == {"pinned": _fingerprint(old), "found": _fingerprint(lab.server.host_key)}
    words = shlex.split(caught.value.message.split("enrol it again: ")[1])
    assert words[:4] == ["edgeprune", "device", "add", "pi"]
    assert words[-1] == "--replace"
    given = dict(zip(words[4:-1:2], words[5:-1:2], strict=True))
    assert (given["--host"], given["--ssh-config"]) == ("pi", device.ssh_config)


def test_a_jump_host_that_refuses_us(lab: Lab) -> None:
    _new_key(lab.folder / "stranger")
    gate = lab.gate().replace(str(lab.jump.identity_file), str(lab.folder / "stranger"))
    with pytest.raises(DeployError, match=r"jump host gate .* was refused with .*stranger"):
        connect(lab.device(gate + lab.pi("ProxyJump gate")))


def test_a_device_that_is_off_behind_a_jump_host(lab: Lab) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        pi = re.sub(r"Port \d+", f"Port {sock.getsockname()[1]}", lab.pi("ProxyJump gate"))
        with pytest.raises(DeployError, match=r"jump host gate .* does not connect to 127.0.0.1"):
            connect(lab.device(lab.gate() + pi))


def test_a_jump_host_that_forwards_nothing(lab: Lab) -> None:
    with SshServer(options=("AllowTcpForwarding no",)) as closed:
        other = Lab(lab.folder, lab.server, closed)
        with pytest.raises(DeployError, match="AllowTcpForwarding"):
            connect(other.device(other.gate() + other.pi("ProxyJump gate")))


def test_a_jump_host_that_freezes_is_a_timeout(lab: Lab) -> None:
    connection = connect(lab.device(lab.gate() + lab.pi("ProxyJump gate"), connect_timeout_s=1.5))
    connection.run(["true"], timeout_s=5)
    lab.jump.signal_sessions(signal.SIGSTOP)
    try:
        with pytest.raises(DeviceTimeoutError):
            connection.run(["true"], timeout_s=1)
    finally:
        lab.jump.signal_sessions(signal.SIGCONT)
        connection.close()


def test_a_jump_host_that_goes_away(lab: Lab) -> None:
    connection = connect(lab.device(lab.gate() + lab.pi("ProxyJump gate")))
    with pytest.raises(DeployError, match="connection lost"):
        connection.run(
            ["sh", "-c", "echo go; sleep 5"], timeout_s=20, on_line=lambda _: lab.jump.signal_sessions(signal.SIGKILL)
        )
    connection.close()


def test_a_proxy_command(lab: Lab) -> None:
    script = lab.folder / "pipe.py"
    script.write_text(PIPE)
    command = f"ProxyCommand {sys.executable} {script} %h %p"
    connection = connect(lab.device(lab.pi(command)))
    assert connection.run(["echo", "hi"], timeout_s=5).stdout == "hi\n"
    assert _children_with(str(script))
    connection.close()
    assert not _children_with(str(script))


def test_a_proxy_command_that_is_ssh_itself(lab: Lab) -> None:
    """As people wrote it before there was ProxyJump."""
    command = f"ProxyCommand exec ssh -F {lab.folder}/config -W [%h]:%p gate"
    connection = connect(lab.device(lab.gate() + lab.pi(command)))
    assert lab.jump.sessions()
    assert connection.run(["echo", "hi"], timeout_s=5).stdout == "hi\n"
    connection.close()


def test_a_proxy_command_that_is_missing_or_ends(lab: Lab) -> None:
    with pytest.raises(DeployError, match="cannot start /no/such/nc"):
        connect(lab.device(lab.pi("ProxyCommand /no/such/nc %h %p")))
    with pytest.raises(DeployError, match="cannot connect"):
        connect(lab.device(lab.pi("ProxyCommand true")))
    with pytest.raises(DeviceTimeoutError):
        connect(lab.device(lab.pi("ProxyCommand sleep 30"), connect_timeout_s=0.5))
    assert not _children_with("sleep")


@contextmanager
def ssh_agent(folder: Path, *keys: Path) -> Iterator[Path]:
    path = folder / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        _wait_until(path.exists)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        for key in keys:
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment)
        yield path
    finally:
        process.terminate()
        process.wait()


def test_keys_of_an_agent(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By $SSH_AUTH_SOCK and by IdentityAgent; the file itself need not be there."""
    with ssh_agent(tmp_path, lab.server.identity_file) as path:
        plain = lab.server.device("pi", identity_file="")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        connect(plain).close()
        monkeypatch.delenv("SSH_AUTH_SOCK")
        with pytest.raises(DeployError, match="refused with no key"):
            connect(plain)
        pi = lab.pi().replace("IdentityAgent none", f"IdentityAgent {path}").replace("IdentitiesOnly yes", "")
        pi = pi.replace(f"IdentityFile {lab.server.identity_file}", "IdentityFile none")
        connect(lab.device(pi)).close()


def test_identities_only_leaves_an_agent_s_other_keys_out(lab: Lab, tmp_path: Path) -> None:
    _new_key(tmp_path / "other")
    with ssh_agent(tmp_path, lab.server.identity_file) as path:
        only = lab.pi().replace("IdentityAgent none", f"IdentityAgent {path}")
        mine = f"IdentityFile {lab.server.identity_file}"
        with pytest.raises(DeployError, match=r"refused with \S*other: "):
            connect(lab.device(only.replace(mine, f"IdentityFile {tmp_path}/other")))
        # The public half is enough to say which of the agent's keys it shall be.
        public = tmp_path / "named.pub"
        public.write_text(lab.server.identity_file.with_suffix(".pub").read_text())
        connect(lab.device(only.replace(mine, f"IdentityFile {tmp_path}/named"))).close()


def test_a_locked_key_is_unlocked_by_the_agent(lab: Lab, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes(lab.server.identity_file.read_bytes())
    locked.chmod(0o600)
    locked.with_suffix(".pub").write_text(lab.server.identity_file.with_suffix(".pub").read_text())
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(locked)], check=True)
    with pytest.raises(DeployError, match=r"locked: it has a passphrase; `ssh-add` it"):
        connect(lab.server.device("pi", identity_file=str(locked)))
    with ssh_agent(tmp_path, lab.server.identity_file) as path:
        pi = lab.pi().replace("IdentityAgent none", f"IdentityAgent {path}")
        connect(lab.device(pi, identity_file=str(locked))).close()


def test_an_agent_that_does_not_answer_is_not_waited_for_long(lab: Lab, tmp_path: Path) -> None:
    pi = lab.pi().replace("IdentityAgent none", f"IdentityAgent {tmp_path}/nobody")
    connect(lab.device(pi)).close()


def _fingerprint(line: str) -> str:
    return parse_host_key(line, where="test").fingerprint


def _new_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def _children_with(text: str) -> list[int]:
    """Running children of this process whose command line has the text."""
    pids = [
        int(pid) for task in Path(f"/proc/{os.getpid()}/task").iterdir() for pid in _content(task / "children").split()
    ]
    return [pid for pid in pids if text.encode() in _content(Path(f"/proc/{pid}/cmdline"))]


def _content(path: Path) -> bytes:
    """A file of /proc; nothing where its thread or process has ended meanwhile."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _wait_until(condition: object, patience_s: float = 15.0) -> None:
    assert callable(condition)
    over = threading.Event()
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        over.wait(0.02)
