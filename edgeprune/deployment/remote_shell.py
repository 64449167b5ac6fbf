"""How a command is started, so that it ends with its client and a missing program is told apart.

SSH carries one string, which the login shell there splits: `shlex.join` quotes every argument for it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

_GROUP = b"edgeprune-group "
_MISSING = b"edgeprune-missing"
# Beyond the client's own deadline: the device's is for the client that is gone without a word.
_DEVICE_GRACE_S = 10

# Two sleepers in the command's process group, with no parent that could mistake them for its own children. Nothing
# is ever sent to stdin: when it ends, the command has ended or the client has left, and the group is killed. A link
# that went silent does not end it: then the deadline does. Both only sleep, so they disturb no measurement.
_GUARD = """
exec 3<&0
( { read -r nothing <&3; kill -s KILL -- "-$group"; } >/dev/null 2>&1 &
  { sleep "$deadline" 3<&-; kill -s KILL -- "-$group"; } </dev/null >/dev/null 2>&1 & )
exec </dev/null 3<&-
"""

# sshd starts each command in a session of its own, so field 5 of stat, the process group, holds the command and
# its children. `exec` keeps the process, and with it the exit status, the command's own.
_SCRIPT = f"""
deadline=$1
shift
command -v "$1" >/dev/null 2>&1 || {{ echo edgeprune-missing; exit 127; }}
read -r pid name state parent group rest </proc/$$/stat
{_GUARD}
echo "edgeprune-group $group"
exec "$@"
"""

_LOCAL_SCRIPT = f"""
deadline=$1 group=$$
shift
{_GUARD}
exec "$@"
"""


def wrap(argv: Sequence[str], timeout_s: float) -> str:
    """The one string that starts `argv` on the device; its process group is killed when stdin ends."""
    # `exec`: a login shell that stayed in between would turn a killed command into exit code 137.
    return "exec " + shlex.join(["sh", "-c", _SCRIPT, "edgeprune", _deadline(timeout_s), *argv])


def wrap_local(argv: Sequence[str], timeout_s: float) -> list[str]:
    """The same for a process that leads a group of its own on this host."""
    return ["sh", "-c", _LOCAL_SCRIPT, "edgeprune", _deadline(timeout_s), *argv]


def _deadline(timeout_s: float) -> str:
    """Whole seconds: not every `sleep` knows fractions."""
    return str(math.ceil(timeout_s) + _DEVICE_GRACE_S)


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
