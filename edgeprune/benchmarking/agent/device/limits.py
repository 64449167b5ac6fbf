"""Runs a repetition under a memory limit: in a cgroup of its own where one was delegated to us, else by RLIMIT_DATA.

A cgroup limits what is resident. It is made only where systemd's rules allow it: below a group that belongs to this
user, or, for root, one that is marked as delegated (https://systemd.io/CGROUP_DELEGATION).

RLIMIT_DATA limits private writable memory that is reserved, resident or not (getrlimit(2); anonymous mappings count
since Linux 4.7). A Python process reserves far more than it ever touches, so the limit is put on the growth: once the
runtime is imported, the process may reserve as much again as lies between its resident memory and the limit.
"""

from __future__ import annotations

import os
import resource
import signal
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from .evidence import read
from .memory import kilobytes
from .reply import AgentError, Replies

PROCESS, MODEL = "process", "model"
_ANONYMOUS_COUNTS_SINCE = (4, 7)
_NOT_ABOUT_MEMORY = ("busy", "not_installed", "no_limit", "cores")
_V1 = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.usage_in_bytes")
_V2 = ("memory.max", "memory.swap.max", "memory.current")


class Rlimit:
    """The fallback: needs no right at all."""

    how = "RLIMIT_DATA"

    def __init__(self, limit_bytes: int, of: str) -> None:
        self._limit_bytes = limit_bytes
        self._of = of

    def join(self) -> None:
        """Nothing yet: what the interpreter reserves at its start says nothing."""

    def runtime_ready(self) -> None:
        """Limit what may be reserved from now on.

        Raises:
            AgentError: memory, where the runtime alone is over the limit.
        """
        resident = kilobytes("/proc/self/status", "VmRSS:") or 0
        headroom = self._limit_bytes - (resident if self._of == PROCESS else 0)
        if headroom <= 0:
            raise AgentError("memory", "the runtime alone has %d bytes resident" % resident)
        reserved = kilobytes("/proc/self/status", "VmData:") or 0
        resource.setrlimit(resource.RLIMIT_DATA, (reserved + headroom,) * 2)

    def remove(self) -> None:
        """It ends with the process."""


class Cgroup:
    """A memory cgroup made for one repetition."""

    def __init__(self, folder: str, version: int, limit_bytes: int, of: str) -> None:
        self.how = "cgroup v%d" % version
        self._folder = folder
        self._files = _V2 if version == 2 else _V1  # noqa: PLR2004
        self._limit_bytes = limit_bytes
        self._of = of

    def join(self) -> None:
        """Move this process in; a limit of the whole process holds from here on."""
        self._write("cgroup.procs", str(os.getpid()))
        if self._of == PROCESS:
            self._impose(self._limit_bytes)

    def runtime_ready(self) -> None:
        """A limit of the model's own share is counted from what the runtime uses."""
        if self._of == MODEL:
            self._impose(self._limit_bytes + int(read(os.path.join(self._folder, self._files[2])) or 0))

    def remove(self) -> None:
        """Nobody is in it any more."""
        os.rmdir(self._folder)

    def _impose(self, limit_bytes: int) -> None:
        limit, with_swap, _ = self._files
        self._write(limit, str(limit_bytes))
        # Without swap: a model that lives on swap does not fit. The file is missing where the kernel counts no swap.
        if os.path.exists(os.path.join(self._folder, with_swap)):
            self._write(with_swap, "0" if self._files is _V2 else str(limit_bytes))

    def _write(self, name: str, text: str) -> None:
        with open(os.path.join(self._folder, name), "w", encoding="ascii") as stream:
            stream.write(text)


class Limit(NamedTuple):
    """What to impose. `of` is `process` or `model`: the latter is counted from the runtime without a model."""

    limit_bytes: int
    of: str


def run_limited(replies: Replies, limit: Limit, work: Callable[[Any], None]) -> None:
    """Call `work(holder)` in a child process under the limit.

    The work must call `holder.runtime_ready()` between importing the runtime and loading the artifact.

    Raises:
        AgentError: memory, where the child did not live through it; no_limit, where this device cannot limit.
    """
    holder = choose(limit)
    replies.emit("limited", how=holder.how, limit_bytes=limit.limit_bytes, of=limit.of)
    child = os.fork()
    if child == 0:
        os._exit(_child(replies, holder, work))
    try:
        _, status = os.waitpid(child, 0)
    finally:
        holder.remove()
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        raise AgentError("memory", "ended by %s under the limit (%s)" % (name, holder.how))
    if os.WEXITSTATUS(status) != 0:
        # The child has told why.
        raise SystemExit(1)


def _child(replies: Replies, holder: Any, work: Callable[[Any], None]) -> int:
    """What failed is told from here, where it is known."""
    try:
        holder.join()
        work(holder)
    except AgentError as error:
        # A runtime words "no memory left" in its own way, as a file that it refuses, say.
        kind = error.kind if error.kind in _NOT_ABOUT_MEMORY else "memory"
        replies.emit("error", kind=kind, message="%s (under the limit, %s)" % (error.message, holder.how))
        return 1
    except BaseException as error:
        message = "%s: %s (under the limit, %s)" % (type(error).__name__, error, holder.how)
        replies.emit("error", kind="memory", message=message)
        return 1
    return 0


def choose(limit: Limit) -> Any:
    """The best way to limit here.

    Raises:
        AgentError: no_limit.
    """
    cgroup = make_cgroup(limit)
    if cgroup is not None:
        return cgroup
    release = os.uname().release.split(".")
    if tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in release[:2]) < _ANONYMOUS_COUNTS_SINCE:
        raise AgentError("no_limit", "no cgroup is delegated to us and kernel %s is too old" % os.uname().release)
    return Rlimit(limit.limit_bytes, limit.of)


def make_cgroup(limit: Limit, root: str = "/sys/fs/cgroup", membership: str = "") -> Optional[Cgroup]:
    """A new memory cgroup below one that was delegated to us; None where there is none.

    Args:
        limit: to impose later.
        root: where cgroups are mounted.
        membership: the text of /proc/self/cgroup; empty to read it.
    """
    for version, parent in candidates(root, membership or read("/proc/self/cgroup")):
        if not delegated(parent):
            continue
        folder = os.path.join(parent, "edgeprune-%d" % os.getpid())
        try:
            os.mkdir(folder)
        except OSError:
            continue
        if os.path.exists(os.path.join(folder, (_V2 if version == 2 else _V1)[0])):  # noqa: PLR2004
            return Cgroup(folder, version, limit.limit_bytes, limit.of)
        os.rmdir(folder)
    return None


def candidates(root: str, membership: str) -> List[Tuple[int, str]]:
    """(cgroup version, folder) below which a memory cgroup could be made.

    In version 2 a group with processes of its own has no children with controllers: the parent is asked as well.
    """
    groups: Dict[str, str] = {}
    for line in membership.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        groups.update((name, path.strip("/")) for name in controllers.split(","))
    found = []
    if groups.get("", ""):
        own = os.path.join(root, groups[""])
        found += [(2, own), (2, os.path.dirname(own))]
    if groups.get("memory", ""):
        found.append((1, os.path.join(root, "memory", groups["memory"])))
    return found


def delegated(folder: str) -> bool:
    """Whether we may make groups there: it is this user's own, or marked as delegated where the user is root."""
    try:
        owner = os.stat(folder).st_uid
    except OSError:
        return False
    if os.geteuid() != 0:
        return owner == os.geteuid() and os.access(folder, os.W_OK)
    for name in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except OSError:
            continue
    return False
