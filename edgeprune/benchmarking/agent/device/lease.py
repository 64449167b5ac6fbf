"""The right to measure on this device: held by one client at a time, whoever and wherever it is, and given in turn.

One file holds the state, read and replaced under a file lock; all times are the device's own, since its start, and a
restart voids everything. A lease lives while its holder gives a sign (`renew`, or a block that begins or ends) within
its time to live, or while a block of its is being timed: no command runs on the device only to keep a lease.
A client that waits is a process here with a ticket; the ticket dies with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import stat
import time
from typing import Any, Dict, Iterator, List, Optional, Set

from .evidence import read
from .reply import AgentError, Replies

_STATE = "lease.json"
_LOCK = "lease.lock"
_WAIT_STEP_S = 0.25
_EVERYBODY = 0o666

State = Dict[str, Any]


def shared_folder(chosen: str) -> str:
    """The folder of the lease, which all users of the device can write in; made where it is missing.

    Args:
        chosen: by the device's file; empty for a place that every user finds: /run/lock, or else /tmp.

    Raises:
        AgentError: io, where there is something else under that name.
    """
    path = os.path.expanduser(chosen) or os.path.join(_public_place(), "edgeprune")
    if chosen:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        # Not what the umask says; and not sticky, so that anybody's state can be replaced.
        os.chmod(path, 0o777)  # noqa: S103 - all users of the device measure in turn
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise AgentError("io", "%s is no folder: no lease can be kept there" % path)
    return path


def acquire(replies: Replies, chosen: str, holder: str, ttl_s: float, wait_s: float, uses: List[str]) -> None:
    """Wait in the queue for the lease, and tell its token.

    Args:
        replies: where to tell; `waiting` events say who is before us.
        chosen: see `shared_folder`.
        holder: who asks, for the others to read.
        ttl_s: the lease ends when there is no sign of its holder for so long.
        wait_s: give up after this long.
        uses: folders that must not be tidied away under it.

    Raises:
        AgentError: busy, naming the holder.
    """
    _stand_aside()
    folder = shared_folder(chosen)
    ticket = {"holder": holder, "pid": os.getpid(), "start": _start_of(os.getpid())}
    end = time.monotonic() + wait_s
    told = ""
    while True:
        with _state(folder) as state:
            if ticket not in state["queue"]:
                state["queue"].append(ticket)
            ahead = state["queue"].index(ticket)
            if state["lease"] is None and not ahead:
                replies.emit("leased", token=_grant(state, holder, ttl_s, uses), ttl_s=ttl_s)
                return
            before = state["lease"]["holder"] if state["lease"] else state["queue"][0]["holder"]
            if time.monotonic() > end:
                state["queue"].remove(ticket)
                raise AgentError("busy", "%s is measuring on this device since more than %g s" % (before, wait_s))
        if "%d %s" % (ahead, before) != told:
            told = "%d %s" % (ahead, before)
            replies.emit("waiting", holder=before, ahead=ahead)
        time.sleep(_WAIT_STEP_S)


def renew(replies: Replies, chosen: str, token: str) -> None:
    """Give a sign.

    Raises:
        AgentError: lease_lost, where it is another's, or nobody's.
    """
    with _state(shared_folder(chosen)) as state:
        _own(state, token)["beat"] = _now()
    replies.emit("renewed", token=token)


def release(replies: Replies, chosen: str, token: str) -> None:
    """Give the lease back; nothing happens where it is another's by now."""
    with _state(shared_folder(chosen)) as state:
        held = state["lease"] is not None and state["lease"]["token"] == token
        if held:
            state["lease"] = None
    replies.emit("released", token=token, held=held)


def status(replies: Replies, chosen: str) -> None:
    """Tell who holds the lease, for how long by now, and who waits."""
    with _state(shared_folder(chosen)) as state:
        lease, queue = state["lease"], state["queue"]
    held_s = _now() - lease["since"] if lease else 0.0
    waiting = [t["holder"] for t in queue]
    replies.emit("lease", holder=lease["holder"] if lease else "", held_s=held_s, waiting=waiting)


@contextlib.contextmanager
def block(chosen: str, token: str, deadline_s: float, uses: List[str]) -> Iterator[None]:
    """Time something under a lease: checked before, and kept alive by this process meanwhile.

    Args:
        chosen: see `shared_folder`.
        token: of the lease; empty for none, which checks nothing.
        deadline_s: after this long the process no longer counts as a sign of its client.
        uses: folders that must not be tidied away.

    Raises:
        AgentError: lease_lost.
    """
    if not token:
        yield
        return
    folder = shared_folder(chosen)
    with _state(folder) as state:
        lease = _own(state, token)
        process = os.getpid()
        work = {"pid": process, "start": _start_of(process), "until": _now() + deadline_s}
        lease.update(beat=_now(), work=work, uses=sorted({*lease["uses"], *map(os.path.realpath, uses)}))
    try:
        yield
    finally:
        with _state(folder) as state:
            if state["lease"] is not None and state["lease"]["token"] == token:
                state["lease"].update(beat=_now(), work=None)


def in_use(chosen: str) -> Set[str]:
    """The folders, as real paths, that a live lease uses."""
    with _state(shared_folder(chosen)) as state:
        return set(state["lease"]["uses"]) if state["lease"] else set()


def _grant(state: State, holder: str, ttl_s: float, uses: List[str]) -> str:
    state["queue"].pop(0)
    state["number"] += 1
    # The number only grows; what follows it keeps the tokens of two starts of the device apart.
    token = "%d-%s" % (state["number"], os.urandom(4).hex())
    state["lease"] = {
        "token": token,
        "holder": holder,
        "since": _now(),
        "beat": _now(),
        "ttl": ttl_s,
        "uses": sorted(map(os.path.realpath, uses)),
        "work": None,
    }
    return token


def _own(state: State, token: str) -> Dict[str, Any]:
    lease: Optional[Dict[str, Any]] = state["lease"]
    if lease is None or lease["token"] != token:
        now = "%s holds it now" % lease["holder"] if lease else "nobody holds it now"
        raise AgentError("lease_lost", "the lease of this device was lost, its time had passed: %s" % now)
    return lease


@contextlib.contextmanager
def _state(folder: str) -> Iterator[State]:
    """The state without what is dead, to be looked at and changed while nobody else does."""
    lock = _open_for_all(os.path.join(folder, _LOCK), os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = os.path.join(folder, _STATE)
        before = read(path)
        state = _parsed(before)
        _bury_the_dead(state)
        try:
            yield state
        finally:
            after = json.dumps(state, sort_keys=True)
            if after != before:
                _replace(path, after)
    finally:
        os.close(lock)


def _parsed(text: str) -> State:
    """What the file says; nothing where it is of an earlier start of the device, or no such file."""
    boot = read("/proc/sys/kernel/random/boot_id").strip()
    try:
        state = json.loads(text)
        known = state["boot"] == boot and isinstance(state["queue"], list) and isinstance(state["number"], int)
    except (ValueError, KeyError, TypeError):
        known = False
    return state if known else {"boot": boot, "number": 0, "lease": None, "queue": []}


def _bury_the_dead(state: State) -> None:
    state["queue"] = [t for t in state["queue"] if _runs(t["pid"], t["start"])]
    lease = state["lease"]
    if lease is None or _now() < lease["beat"] + lease["ttl"]:
        return
    work = lease["work"]
    if work is not None and _runs(work["pid"], work["start"]):
        if _now() < work["until"]:
            return
        if not _kill_group(work["pid"]):
            # Another user's. It holds the processor: to measure beside it would be wrong.
            client = lease["holder"].split(", left over by ")[-1]
            lease["holder"] = "process %d, left over by %s" % (work["pid"], client)
            return
    state["lease"] = None


def _kill_group(pid: int) -> bool:
    """End what a client left that is long gone; False where we may not."""
    try:
        group = os.getpgid(pid)
        if group != os.getpgid(0):
            os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


def _runs(pid: int, start: str) -> bool:
    return bool(start) and _start_of(pid) == start


def _start_of(pid: int) -> str:
    """When a process started: with its id it names a process for good. Empty for a dead one, or a zombie.

    Source: proc(5), field 22 of stat; the name, field 2, may hold anything.
    """
    fields = read("/proc/%d/stat" % pid).rpartition(")")[2].split()
    return fields[19] if fields and fields[0] not in "ZX" else ""


def _now() -> float:
    """Seconds since the device started: no clock that is set changes them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _stand_aside() -> None:
    """A waiting process wakes four times a second: at the lowest priority, on the core that is measured last."""
    os.nice(19)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def _public_place() -> str:
    """What it is must not depend on who asks: only on the folder's mode."""
    with contextlib.suppress(OSError):
        if os.stat("/run/lock").st_mode & stat.S_IWOTH:
            return "/run/lock"
    return "/tmp"  # noqa: S108 - no secret; links are not followed


def _open_for_all(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _EVERYBODY)
    if os.fstat(descriptor).st_uid == os.getuid():
        os.fchmod(descriptor, _EVERYBODY)
    return descriptor


def _replace(path: str, text: str) -> None:
    partial = "%s.%d" % (path, os.getpid())
    with os.fdopen(_open_for_all(partial, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(partial, path)
