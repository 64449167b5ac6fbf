"""Who we are to an SSH server: the keys of ssh-agent and of files, offered one after the other."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH
from paramiko.pkey import UnknownKeyType

from edgeprune.deployment.ssh_config import Hop
from edgeprune.deployment.ssh_endpoint import public_blob
from edgeprune.deployment.ssh_errors import Place
from edgeprune.errors import DeployError

_log = logging.getLogger(__name__)

_AGENT_TIMEOUT_S = 10.0


def log_in(transport: paramiko.Transport, hop: Hop, place: Place) -> None:
    """Offer one key after the other.

    Raises:
        DeployError: none was taken; it names each with the reason.
    """
    refusals: list[str] = []
    with contextlib.closing(_Agent(hop.agent)) as agent:
        for shown, load in _identities(hop, agent):
            try:
                more = transport.auth_publickey(hop.user, load())
            except TypeError:
                # The cryptography library's word for it.
                refusals.append(f"{shown}: it has a passphrase; `ssh-add` it")
            except (paramiko.AuthenticationException, UnknownKeyType, ValueError, OSError) as error:
                if not transport.is_active() or "timeout" in str(error).lower():
                    raise
                refusals.append(f"{shown}: {error}")
            else:
                if not more:
                    return
                refusals.append(f"{shown}: it is not enough, the server also asks for {', '.join(more)}")
    offered = "; ".join(refusals) or "no key: there is no identity file, and ssh-agent has none"
    raise DeployError(f"{place}: cannot connect: {hop.user} was refused with {offered}")


def _identities(hop: Hop, agent: _Agent) -> Iterator[tuple[str, Callable[[], paramiko.PKey]]]:
    """Each key's name in messages, and what loads it: the agent's where it has it, else the file's."""
    agents_own = {key.asbytes(): key for key in agent.get_keys()}
    for path in hop.identity_files:
        held = agents_own.pop(public_blob(path), None)
        if held is not None:
            yield f"{path} (from ssh-agent)", partial(_same, held)
        elif Path(path).is_file() and not path.endswith(".pub"):
            yield path, partial(paramiko.PKey.from_path, path)
    if not hop.identities_only:
        for key in agents_own.values():
            yield f"ssh-agent's {key.comment or key.get_name()}", partial(_same, key)


def _same(key: paramiko.PKey) -> paramiko.PKey:
    return key


class _Agent(AgentSSH):
    """ssh-agent at a socket of our choice; without keys where nobody listens there."""

    def __init__(self, path: str) -> None:
        super().__init__()
        if not path:
            return
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(_AGENT_TIMEOUT_S)
            sock.connect(path)
            self._connect(sock)  # type: ignore[attr-defined]  # the stubs lack it
        except (OSError, paramiko.SSHException) as error:
            _log.warning("ssh-agent at %s does not answer: %s", path, error)
            sock.close()

    def close(self) -> None:
        """Once the log-in is over."""
        self._close()  # type: ignore[attr-defined]  # the stubs lack it
