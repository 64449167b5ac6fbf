"""What the user's known_hosts files say of a host, as `ssh-keygen -F` reads them: hashed names and patterns too."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.deployment.host_keys import HostKey, parse_host_key
from edgeprune.errors import InputError

_TIMEOUT_S = 30.0
_REVOKED, _AUTHORITY = "@revoked", "@cert-authority"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKeys:
    """The keys that a host may show, and those that it must not; `file` has the first of the former."""

    keys: tuple[HostKey, ...] = ()
    revoked: tuple[HostKey, ...] = ()
    file: str = ""


def known_keys(name: str, files: Sequence[str]) -> KnownKeys:
    """Look a host up: `name` is `host`, or `[host]:port` where that is not 22. Host certificates are not used.

    Raises:
        InputError: `ssh-keygen` is missing, or a file has a line that cannot be read.
    """
    keys: list[HostKey] = []
    revoked: list[HostKey] = []
    first = ""
    for file in files:
        for line in _lines(name, file):
            marker = line.split(" ", 1)[0] if line.startswith("@") else ""
            key = parse_host_key(line.removeprefix(marker).lstrip().partition(" ")[2], where=file)
            if marker == _REVOKED:
                revoked.append(key)
            elif marker != _AUTHORITY:
                first = first or file
                keys.append(key)
    return KnownKeys(keys=tuple(k for k in keys if k not in revoked), revoked=tuple(revoked), file=first)


def _lines(name: str, file: str) -> list[str]:
    if not Path(file).is_file():
        return []
    argv = ["ssh-keygen", "-F", name, "-f", file]
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{file}: cannot be read by ssh-keygen (package openssh-client): {error}") from error
    return [line for line in result.stdout.splitlines() if line and not line.startswith("#")]
