"""The way to a device as OpenSSH would go it: `ssh -G` reads the user's configuration, jump hosts included.

OpenSSH itself reads the file, so that Host, Match, Include, defaults and precedence are exactly its own. What the
answer says is honoured for: HostName, User, Port, IdentityFile, IdentitiesOnly, IdentityAgent, ProxyJump (chains and
jump hosts with jump hosts), ProxyCommand without a shell, HostKeyAlias, UserKnownHostsFile and GlobalKnownHostsFile (of
jump hosts). Not honoured: StrictHostKeyChecking (checking is always strict), certificates of hosts, security keys and
PKCS#11, ProxyUseFdpass, ControlMaster, AddressFamily, BindAddress, and the choice of algorithms; %C and %k in values.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeprune.errors import InputError
from edgeprune.schema.device import DeviceSpec

NO_CONFIG: Final = "none"
SSH_PORT: Final = 22
# `Match exec` runs commands of the user's.
_TIMEOUT_S = 30.0
_MOST_JUMPS = 8
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?:\[(?P<v6>[^]]+)\]|(?P<host>[^:@]+))(?::(?P<port>\d+))?/?")
_NEEDS_SHELL = re.compile(r"[|&;<>()$`*?\n]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One SSH server on the way to a device; the device itself is the last.

    Attributes:
        alias: what was asked for: the `Host` of the configuration.
        identity_files: key files to try in turn; some may not exist.
        identities_only: whether ssh-agent may offer no other keys than those.
        agent: ssh-agent's socket; empty for none.
        proxy_command: a program and its arguments that speak to the server; empty for a socket.
        known_as: the name that its host key has in known_hosts files.
        known_hosts: those files; some may not exist.
    """

    alias: str
    host: str
    port: int
    user: str
    identity_files: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str = ""
    proxy_command: tuple[str, ...] = ()
    known_as: str = ""
    known_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is said on a host beside the configuration; it wins over that."""

    alias: str
    user: str = ""
    port: int = 0
    identity: str = ""


def route(device: DeviceSpec) -> tuple[Hop, ...]:
    """The servers to log in to, one through the other; what the device's own file says wins over the configuration.

    Raises:
        InputError: the device's file names no host or a missing key file, or the configuration cannot be used.
    """
    if not device.host:
        raise InputError(f"device {device.name}: host: missing; a device over ssh needs it")
    asked = _Asked(alias=device.host, user=device.user, port=device.port, identity=_identity(device))
    if not reads_config(device):
        return (_plain(asked),)
    config = os.path.expanduser(device.ssh_config)  # noqa: PTH111 - "" must stay ""
    if config and not Path(config).is_file():
        raise InputError(f"device {device.name}: ssh_config: no such file: {config}")
    return tuple(_hops(asked, config, ()))


def reads_config(device: DeviceSpec) -> bool:
    """Whether an OpenSSH configuration is asked.

    Raises:
        InputError: there is one, and no `ssh` to read it.
    """
    if device.ssh_config == NO_CONFIG:
        return False
    if shutil.which("ssh") is not None:
        return True
    own = Path(device.ssh_config or "~/.ssh/config").expanduser()
    if device.ssh_config or own.is_file():
        raise InputError(
            f"device {device.name}: the program `ssh` is missing, which reads {own}: install it (on Debian, "
            f'openssh-client), or set ssh_config = "{NO_CONFIG}" in the device\'s file'
        )
    return False


def _plain(asked: _Asked) -> Hop:
    return Hop(
        alias=asked.alias,
        host=asked.alias,
        port=asked.port or SSH_PORT,
        user=asked.user or getpass.getuser(),
        identity_files=(asked.identity,) if asked.identity else (),
        identities_only=bool(asked.identity),
        agent=os.environ.get("SSH_AUTH_SOCK", ""),
    )


def _identity(device: DeviceSpec) -> str:
    if not device.identity_file:
        return ""
    path = Path(device.identity_file).expanduser()
    if not path.is_file():
        raise InputError(f"device {device.name}: identity_file: no such file: {path}")
    return str(path)


def _hops(asked: _Asked, config: str, towards: tuple[str, ...]) -> list[Hop]:
    """The jump hosts of a host and the host. As in OpenSSH, the first of a chain may have jump hosts of its own."""
    settings = _settings(asked, config)
    hop = _hop(asked, settings)
    jumps = [j for j in _first(settings, "proxyjump").split(",") if j and j != NO_CONFIG]
    if not jumps:
        return [hop]
    towards = (*towards, asked.alias)
    if len(towards) > _MOST_JUMPS:
        raise InputError(f"ssh configuration: ProxyJump goes in a circle, or too far: {' <- '.join(towards)}")
    first, *others = (_parse_jump(_expand(jump, hop, asked.alias), asked.alias) for jump in jumps)
    return [*_hops(first, config, towards), *(_hop(j, _settings(j, config)) for j in others), hop]


def _parse_jump(text: str, alias: str) -> _Asked:
    found = _JUMP.fullmatch(text)
    if found is None:
        raise InputError(f"ssh configuration: host {alias}: ProxyJump: expected [user@]host[:port], got {text!r}")
    return _Asked(alias=found["v6"] or found["host"], user=found["user"] or "", port=int(found["port"] or 0))


def _settings(asked: _Asked, config: str) -> dict[str, list[str]]:
    """What `ssh -G` prints, by lower-case keyword."""
    options = [("-F", config), ("-l", asked.user), ("-p", str(asked.port or ""))]
    chosen = [part for option in options if option[1] for part in option]
    argv = ["ssh", "-G", "-T", *chosen, "--", asked.alias]
    try:
        result = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"ssh configuration: host {asked.alias}: `{shlex.join(argv)}` does not end") from error
    except ValueError as error:
        # A zero byte in a name, or an answer that is no text.
        raise InputError(f"ssh configuration: host {asked.alias!r}: {error}") from error
    if result.returncode != 0:
        said = "; ".join(result.stderr.split("\n")).strip("; \r")
        raise InputError(f"ssh configuration: host {asked.alias}: {said or 'ssh -G failed'}")
    settings: dict[str, list[str]] = {}
    for line in result.stdout.splitlines():
        key, _, value = line.partition(" ")
        settings.setdefault(key.lower(), []).append(value)
    return settings


def _hop(asked: _Asked, settings: Mapping[str, list[str]]) -> Hop:
    bare = Hop(
        alias=asked.alias,
        host=_first(settings, "hostname") or asked.alias,
        port=int(_first(settings, "port") or SSH_PORT),
        user=_first(settings, "user") or getpass.getuser(),
    )
    files = [asked.identity] if asked.identity else settings.get("identityfile", [])
    known = _first(settings, "userknownhostsfile").split() + _first(settings, "globalknownhostsfile").split()
    known_as = bare.host if bare.port == SSH_PORT else f"[{bare.host}]:{bare.port}"
    return Hop(
        alias=bare.alias,
        host=bare.host,
        port=bare.port,
        user=bare.user,
        identity_files=tuple(_path(f, bare) for f in files if f != NO_CONFIG),
        identities_only=bool(asked.identity) or _first(settings, "identitiesonly") == "yes",
        agent=_agent(_first(settings, "identityagent"), bare),
        proxy_command=_proxy_command(settings, bare),
        known_as=_first(settings, "hostkeyalias") or known_as,
        known_hosts=tuple(_path(f, bare) for f in known),
    )


def _agent(value: str, hop: Hop) -> str:
    if value == NO_CONFIG:
        return ""
    if value in {"", "SSH_AUTH_SOCK"}:
        return os.environ.get("SSH_AUTH_SOCK", "")
    return os.environ.get(value[1:], "") if value.startswith("$") else _path(value, hop)


def _proxy_command(settings: Mapping[str, list[str]], hop: Hop) -> tuple[str, ...]:
    """As arguments: no shell is started, so a command that needs one is refused."""
    text = _first(settings, "proxycommand")
    if not text or text == NO_CONFIG:
        return ()
    where = f"ssh configuration: host {hop.alias}: ProxyCommand {text!r}"
    if _NEEDS_SHELL.search(text) or _first(settings, "proxyusefdpass") == "yes":
        raise InputError(f"{where}: needs a shell or passes a file descriptor, which edgeprune does not; use ProxyJump")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    words = words[1:] if words[:1] == ["exec"] else words
    return tuple(_expand(os.path.expanduser(word), hop, hop.alias) for word in words)  # noqa: PTH111


def _path(text: str, hop: Hop) -> str:
    return str(Path(_expand(text, hop, hop.alias)).expanduser())


def _expand(text: str, hop: Hop, alias: str) -> str:
    """The tokens and environment variables of ssh_config(5)."""
    host = os.uname().nodename
    tokens = {
        "%": "%", "d": str(Path.home()), "h": hop.host, "i": str(os.getuid()), "l": host,
        "L": host.split(".")[0], "n": alias, "p": str(hop.port), "r": hop.user, "u": getpass.getuser(),
    }  # fmt: skip

    def value(found: re.Match[str]) -> str:
        name = found["token"] or found["variable"]
        known = tokens.get(name) if found["token"] else os.environ.get(name)
        if known is None:
            raise InputError(f"ssh configuration: host {alias}: {text!r}: cannot expand {found[0]}")
        return known

    return re.sub(r"%(?P<token>.)|\$\{(?P<variable>\w+)\}", value, text)


def _first(settings: Mapping[str, list[str]], key: str) -> str:
    return settings.get(key, [""])[0]
