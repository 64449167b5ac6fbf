"""The facts of the device, without importing numpy or a runtime."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from typing import Any, Dict, List, Optional

from . import limits, sessions
from .cores import cores_here, usable
from .evidence import read
from .reply import AgentError, Replies


def probe(replies: Replies, work: str) -> None:
    """Tell every field of `records.measurement.DeviceFacts`.

    Args:
        replies: where to.
        work: the work folder; it need not exist yet.
    """
    cpu = cpu_facts(read("/proc/cpuinfo"))
    replies.emit(
        "facts",
        machine=platform.machine(),
        system=platform.system(),
        kernel=platform.release(),
        cpu_model=cpu["model"] or read("/proc/device-tree/model").strip("\0\n "),
        cpu_flags=cpu["flags"].split(),
        cores=len(os.sched_getaffinity(0)),
        topology=cores_here(*usable()),
        memory_bytes=_memory_bytes(),
        disk_free_bytes=shutil.disk_usage(_existing_parent(work)).free,
        python=platform.python_version(),
        numpy=version("numpy", "numpy"),
        runtimes=runtimes_here(sessions.names()),
        boot_id=read("/proc/sys/kernel/random/boot_id").strip(),
    )


def condition(replies: Replies) -> None:
    """Tell every field of `records.health.DeviceCondition`."""
    available = _meminfo("MemAvailable:")
    replies.emit("condition", memory_available_bytes=available, memory_limit=_memory_limit(), unix_s=time.time())


def _memory_limit() -> str:
    """How a limit could be imposed: one is made ready, and taken away again."""
    try:
        holder = limits.choose(limits.Limit(_memory_bytes(), limits.PROCESS))
    except AgentError:
        return ""
    holder.remove()
    return str(holder.how)


def cpu_facts(cpuinfo: str) -> Dict[str, str]:
    """Model and flags from /proc/cpuinfo, whose keys differ between x86 and ARM; empty where it has none."""
    first: Dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            first.setdefault(key.strip().lower(), value.strip())
    part = "ARM implementer %s part %s" % (first.get("cpu implementer"), first.get("cpu part"))
    model = first.get("model name") or first.get("hardware") or (part if "cpu part" in first else "")
    return {"model": model, "flags": first.get("flags") or first.get("features") or ""}


def _memory_bytes() -> int:
    return _meminfo("MemTotal:") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _meminfo(key: str) -> Optional[int]:
    """A line of /proc/meminfo in bytes; None where it is not there."""
    for line in read("/proc/meminfo").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None


def _existing_parent(path: str) -> str:
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def runtimes_here(names: List[str]) -> List[List[str]]:
    """(name, version) of those runtimes that are there."""
    found = []
    for name in names:
        versions = (version(m, d) for m, d in sessions.module(name).LIBRARIES)
        first = next((v for v in versions if v), "")
        if first:
            found.append([name, first])
    return found


def version(module: str, distribution: str) -> str:
    """A library's version; empty where it is missing."""
    if importlib.util.find_spec(module) is None:
        return ""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        # A vendor's build under another distribution name: only the module itself can tell.
        return _version_by_import(module)


def _version_by_import(module: str) -> str:
    try:
        library: Any = importlib.import_module(module)
    except ImportError:
        return ""
    return str(getattr(library, "__version__", "unknown"))
