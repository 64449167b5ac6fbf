"""How a command is started over SSH, so that its process group is known and a missing program is told apart.

SSH carries one string, which the login shell there splits: `shlex.join` quotes every argument for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_GROUP = b"edgeprune-group "
_MISSING = b"edgeprune-missing"

# sshd starts each command in a session of its own, so field 5 of stat, the process group, holds the command and
# its children. `exec` keeps the process, and with it the exit status, the command's own.
_SCRIPT = """
command -v "$1" >/dev/null 2>&1 || { echo edgeprune-missing; exit 127; }
read -r pid name state parent group rest </proc/$$/stat
echo "edgeprune-group $group"
exec "$@"
"""


def wrap(argv: Sequence[str]) -> str:
    """The one string that starts `argv` on the device."""
    # `exec`: a login shell that stayed in between would turn a killed command into exit code 137.
    return "exec " + shlex.join(["sh", "-c", _SCRIPT, "edgeprune", *argv])


def kill_command(group: int) -> str:
    """The one string that kills a process group on the device."""
    return shlex.join(["sh", "-c", f"kill -s KILL -- -{group}"])


class Preamble:
    """Takes the first line of a wrapped command's stdout apart.

    What a login shell's start-up files print before it is dropped.

    Attributes:
        group: the process group; None until it is known.
        missing: whether the program was not found.
        noise: what came so far without the line; all of the output, where the shell never started the command.
    """

    def __init__(self) -> None:
        self.group: int | None = None
        self.missing = False
        self.noise = b""

    def strip(self, data: bytes) -> bytes:
        """The command's own output in what has arrived."""
        if self.group is not None or self.missing:
            return data
        self.noise += data
        lines = self.noise.split(b"\n")
        for index, line in enumerate(lines[:-1]):
            if line.startswith(_GROUP):
                self.group = int(line.removeprefix(_GROUP))
                return b"\n".join(lines[index + 1 :])
            self.missing = self.missing or line == _MISSING
        return b""
