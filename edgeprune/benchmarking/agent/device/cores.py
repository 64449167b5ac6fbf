"""What the kernel tells of the cores that this process may use; which are alike is for the host to say."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .evidence import number, read

_MOST = 4096


def usable() -> Tuple[List[int], List[int]]:
    """The hardware threads that this process has, and those besides that it gets by asking for them.

    The latter are kept from all others, by `isolcpus` or a service's CPUAffinity. Both are empty where a process may
    not choose at all.
    """
    given = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(_MOST))
        found = os.sched_getaffinity(0)
        os.sched_setaffinity(0, given)
    except OSError:
        return [], []
    return sorted(given), sorted(found - given)


def cores_here(given: Sequence[int], apart: Sequence[int], root: str = "/") -> List[Dict[str, Any]]:
    """Every field of `records.cores.Core`, one entry a physical core.

    Args:
        given: the hardware threads that this process has.
        apart: those that it gets by asking.
        root: of the file system, so that a test can bring its own.
    """
    parts = _parts(read(os.path.join(root, "proc/cpuinfo")))
    found: Dict[Any, Dict[str, Any]] = {}
    for cpu in sorted([*given, *apart]):
        system = os.path.join(root, "sys/devices/system/cpu/cpu%d" % cpu)
        siblings = read(os.path.join(system, "topology/thread_siblings_list")).strip()
        core = found.setdefault(siblings or cpu, {"cpus": [], "apart": []})
        core["apart" if cpu in apart else "cpus"].append(cpu)
        max_khz = number(os.path.join(system, "cpufreq/cpuinfo_max_freq"))
        core["max_mhz"] = None if max_khz is None else max_khz / 1e3
        core["capacity"] = number(os.path.join(system, "cpu_capacity"))
        core["part"] = parts.get(cpu, "")
    return list(found.values())


def _parts(cpuinfo: str) -> Dict[int, str]:
    """ARM's part number of every core in /proc/cpuinfo; none on x86, where all cores there are of one name."""
    found: Dict[int, str] = {}
    cpu: Optional[int] = None
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        key, value = key.strip().lower(), value.strip()
        if key == "processor" and value.isdigit():
            cpu = int(value)
        elif key == "cpu part" and cpu is not None:
            found[cpu] = value
    return found
