"""A real OpenSSH server on loopback, with keys and configuration of its own, for the tests that need a device."""

from __future__ import annotations

import atexit
import getpass
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edgeprune.schema.device import DeviceSpec

_START_TIMEOUT_S = 15.0
_ACCOUNT = re.compile(r"edgeprune-t(\d+)")


@dataclass(frozen=True)
class Login:
    """Who logs in, and the Python that this user can run with this environment's libraries."""

    user: str
    python: str
    env: tuple[tuple[str, str], ...]


class SshServer:
    """One device: `with SshServer() as server: connect(server.device("edge"))`.

    Args:
        sftp: whether the server has the SFTP subsystem.
        options: more lines of its configuration, such as `MaxSessions 1`.

    Attributes:
        host, port, user, identity_file, host_key, python, env: what an inventory file says; `host_key` is
            `type base64`, and `env` is what every session there has in its environment.
        home: the user's home folder, empty at the start.
    """

    def __init__(self, *, sftp: bool = True, options: tuple[str, ...] = ()) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        login = find_login()
        self.user, self.python, self.env = login.user, login.python, dict(login.env)
        self._folder = Path(tempfile.mkdtemp(prefix="edgeprune-sshd-"))
        # mkdtemp makes it private; sshd reads authorized_keys as the user who logs in.
        self._folder.chmod(0o755)
        self.home = Path(pwd.getpwnam(self.user).pw_dir)
        self.identity_file = self._make_key("identity")
        self.host_key = " ".join(self._make_key("host").with_suffix(".pub").read_text().split()[:2])
        self._sftp = sftp
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for _ in range(5):
            self.port = _free_port()
            self._process = self._start()
            if self._answers():
                return self
            # Somebody took the port in between.
            self._process.kill()
            self._process.wait()
        log = (self._folder / "log").read_text()
        raise RuntimeError(f"sshd did not start: {log}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def device(self, name: str = "edge", **changes: object) -> DeviceSpec:
        """The inventory entry of this server; `changes` replace its fields."""
        values: dict[str, object] = {
            "schema": 1,
            "name": name,
            "profile": "local",
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "identity_file": str(self.identity_file),
            "host_key": self.host_key,
            # That of whoever runs the tests is not asked.
            "ssh_config": "none",
            "python": self.python,
            "work_folder": str(self.home / "work"),
        }
        return DeviceSpec.model_validate({**values, **changes})

    def sessions(self) -> list[int]:
        """Process ids of the sshd of every open connection, not of what runs in them."""
        assert self._process is not None
        found: list[int] = []
        parents = [self._process.pid]
        table = _processes()
        while parents:
            parent = parents.pop()
            children = [p for p, (ppid, name) in table.items() if ppid == parent and name.startswith("sshd")]
            found += children
            parents += children
        return found

    def signal_sessions(self, number: signal.Signals) -> None:
        """SIGKILL drops every connection, SIGSTOP freezes them, SIGCONT thaws them."""
        for pid in self.sessions():
            _signal(pid, number)

    def stop(self) -> None:
        """End the server and its sessions, each by its own process id."""
        if self._process is not None:
            self.signal_sessions(signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        if os.getuid() == 0:
            # Where sshd shuts itself in; its own service makes it at boot.
            Path("/run/sshd").mkdir(exist_ok=True)
        config = self._folder / "sshd_config"
        config.write_text(self._config())
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen([find_sshd(), "-D", "-e", "-f", str(config)], stderr=log)

    def _config(self) -> str:
        lines = [
            f"ListenAddress {self.host}",
            f"Port {self.port}",
            f"HostKey {self._folder / 'host'}",
            f"AuthorizedKeysFile {self._folder / 'identity.pub'}",
            f"PidFile {self._folder / 'pid'}",
            "AuthenticationMethods publickey",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PrintMotd no",
            # Tests open several connections at once.
            "MaxStartups 100",
            *self._options,
            *(["Subsystem sftp internal-sftp"] if self._sftp else []),
        ]
        if self.env:
            lines.append("SetEnv " + " ".join(f'{k}="{v}"' for k, v in self.env.items()))
        return "\n".join(lines) + "\n"

    def _make_key(self, name: str) -> Path:
        path = self._folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        return path

    def _answers(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection((self.host, self.port), 1.0) as sock:
                    return sock.recv(4) == b"SSH-" and self._process.poll() is None
            except OSError:
                time.sleep(0.02)
        return False


def find_sshd() -> str:
    """The server's absolute path, which it insists on.

    Raises:
        RuntimeError: it is not installed. That fails a test; it must not be skipped unseen.
    """
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError("sshd is missing: install it with tools/install_sshd (Debian package openssh-server)")
    return found


@cache
def find_login() -> Login:
    """An unprivileged account made for this process where we are root, else the current user.

    The account must be able to run a Python with this environment's libraries: a virtual environment below
    /root cannot be entered by others. Then the system's Python of the same version is tried, and last, root itself.
    """
    current = Login(user=getpass.getuser(), python=sys.executable, env=())
    if os.getuid() != 0 or shutil.which("useradd") is None:
        return current
    user = _make_account()
    packages = (("PYTHONPATH", str(Path(np.__file__).parents[1])),)
    for python, env in ((sys.executable, ()), ("/usr/bin/python3", packages)):
        login = Login(user=user, python=python, env=env)
        if _runs_python(login):
            return login
    return current


def _runs_python(login: Login) -> bool:
    command = [login.python, "-c", "import sys, numpy; print(sys.version_info[:2])"]
    environment: Mapping[str, str] = {"PATH": "/usr/bin:/bin", **dict(login.env)}
    account = pwd.getpwnam(login.user)
    try:
        result = subprocess.run(
            command,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            cwd=account.pw_dir,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return result.returncode == 0 and result.stdout.strip() == str(sys.version_info[:2])


def _make_account() -> str:
    """An account of this process's own, so that two test runs at once do not meet; it goes at exit."""
    _remove_orphans()
    name = f"edgeprune-t{os.getpid()}"
    home = Path(tempfile.mkdtemp(prefix="edgeprune-home-"))
    options = ["--system", "--shell", "/bin/sh", "--home-dir", str(home), "--no-create-home"]
    # A star is no password at all; useradd's own default, "!", would be a locked account to sshd.
    subprocess.run(["useradd", *options, "--password", "*", name], check=True, capture_output=True)
    atexit.register(_remove_account, name, os.getpid())
    account = pwd.getpwnam(name)
    os.chown(home, account.pw_uid, account.pw_gid)
    return name


def _remove_account(name: str, owner: int) -> None:
    if os.getpid() != owner:
        # A fork of this process ends; the account is not its own.
        return
    account = pwd.getpwnam(name)
    for entry in Path("/proc").iterdir():
        # What a broken connection left running there: all of that user's processes are ours.
        if entry.name.isdigit() and _owner(entry) == account.pw_uid:
            _signal(int(entry.name), signal.SIGKILL)
    subprocess.run(["userdel", "--force", name], check=False, capture_output=True)
    shutil.rmtree(account.pw_dir, ignore_errors=True)


def _remove_orphans() -> None:
    """Accounts of test runs that were killed: the number in the name is a process that is no more."""
    for account in pwd.getpwall():
        match = _ACCOUNT.fullmatch(account.pw_name)
        if match and not Path("/proc", match[1]).exists():
            _remove_account(account.pw_name, os.getpid())


def _owner(entry: Path) -> int:
    try:
        return entry.stat().st_uid
    except OSError:
        return -1


def _processes() -> dict[int, tuple[int, str]]:
    """(parent, command name) by process id."""
    table = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            pid_and_name, _, rest = (entry / "stat").read_text().rpartition(")")
        except OSError:
            continue
        table[int(entry.name)] = (int(rest.split()[1]), pid_and_name.partition("(")[2])
    return table


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
