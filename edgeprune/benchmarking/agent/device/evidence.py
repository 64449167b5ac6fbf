"""Reads from /proc and getrusage what tells whether a timed run was disturbed, and how much memory it took."""

from __future__ import annotations

import os
import resource
import time
from typing import Dict, List, NamedTuple, Tuple

# /proc/stat counts in these; records use 1/100 s.
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_NS_PER_CENTISECOND = 10000000


class Snapshot(NamedTuple):
    """Counters of this process, and of its cores, at one moment. Core times are in 1/100 s."""

    voluntary_switches: int
    involuntary_switches: int
    major_faults: int
    cpu_ns: int
    wall_ns: int
    steal_ticks: int
    busy_ticks: int


def snapshot(cpus: List[int]) -> Snapshot:
    """Read all counters now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    busy, steal = core_ticks(read("/proc/stat"), cpus)
    return Snapshot(
        usage.ru_nvcsw,
        usage.ru_nivcsw,
        usage.ru_majflt,
        time.process_time_ns(),
        time.perf_counter_ns(),
        steal,
        busy,
    )


def difference(before: Snapshot, after: Snapshot) -> Dict[str, int]:
    """What happened between two snapshots, under the names of `records.measurement.Block`."""
    change = Snapshot(*(after[i] - before[i] for i in range(len(after))))
    fields = {n: max(0, v) for n, v in change._asdict().items() if n != "busy_ticks"}
    own_ticks = change.cpu_ns // _NS_PER_CENTISECOND
    fields["other_ticks"] = max(0, change.busy_ticks - own_ticks)
    return fields


def core_ticks(stat: str, cpus: List[int]) -> Tuple[int, int]:
    """(busy, steal) of these cores, summed, in 1/100 s, from the text of /proc/stat; 0 for what is not told.

    Source: proc(5): user nice system idle iowait irq softirq steal; guest time is in user already.
    """
    wanted = {"cpu%d" % c for c in cpus}
    busy = steal = 0
    for line in stat.splitlines():
        name, _, rest = line.partition(" ")
        if name not in wanted:
            continue
        ticks = [int(t) for t in rest.split()[:8]]
        ticks += [0] * (8 - len(ticks))
        busy += sum(ticks[0:3]) + ticks[5] + ticks[6]
        steal += ticks[7]
    return busy * 100 // _TICKS_PER_S, steal * 100 // _TICKS_PER_S


def peak_memory_bytes() -> int:
    """The process's largest resident memory so far.

    VmHWM starts afresh at exec; ru_maxrss, which may hold the parent's, is the fallback where /proc has no VmHWM.
    """
    for line in read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read(path: str) -> str:
    """The text of a file of /proc or /sys; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
