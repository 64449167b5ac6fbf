"""Reads from /proc and getrusage what tells whether a timed run was disturbed, and how much memory it took."""

from __future__ import annotations

import glob
import os
import resource
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

# /proc/stat counts in these; records use 1/100 s.
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_NS_PER_CENTISECOND = 10000000
_PROBE_TRIES = 8
_PROBE_STEPS = 15000


class Snapshot(NamedTuple):
    """Counters of this process, and of its cores, at one moment. Core times are in 1/100 s."""

    voluntary_switches: int
    involuntary_switches: int
    minor_faults: int
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
        usage.ru_minflt,
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


def surroundings(cpus: List[int], root: str = "/") -> Dict[str, Any]:
    """Load, clock, temperature and throttling now; None for what the device does not tell.

    Args:
        cpus: the pinned cores.
        root: of the file system, so that a test can bring its own.
    """
    system = os.path.join(root, "sys/devices/system")
    cores = [os.path.join(system, "cpu/cpu%d" % c) for c in cpus]
    clocks_khz = [number(os.path.join(c, "cpufreq/scaling_cur_freq")) for c in cores]
    zones = glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone*/temp"))
    throttles = [number(p) for c in cores for p in sorted(glob.glob(os.path.join(c, "thermal_throttle/*_count")))]
    load = read(os.path.join(root, "proc/loadavg")).split()
    clock_khz = _extreme(min, clocks_khz)
    temperature = _extreme(max, [number(z) for z in zones])
    counted = [t for t in throttles if t is not None]
    return {
        "load_average": float(load[0]) if load else None,
        "clock_mhz": None if clock_khz is None else clock_khz / 1e3,
        "temperature_c": None if temperature is None else temperature / 1e3,
        "throttle_events": sum(counted) if counted else None,
        "clock_source": read(os.path.join(system, "clocksource/clocksource0/current_clocksource")).strip(),
    }


def change_of_surroundings(before: Dict[str, Any], after: Dict[str, Any]) -> Dict[str, Any]:
    """Two `surroundings` under the names of `records.measurement.Block`."""
    fields = {"load_average": before["load_average"], "clock_source": after["clock_source"]}
    for name in ("clock_mhz", "temperature_c"):
        fields[name + "_before"], fields[name + "_after"] = before[name], after[name]
    counts = before["throttle_events"], after["throttle_events"]
    fields["throttle_events"] = None if None in counts else max(0, counts[1] - counts[0])
    return fields


def micro_probe_ns() -> int:
    """How long a fixed piece of integer work takes on this core, in ns: the best of several tries.

    It is about 5 to 10 ms in all on a desktop core and touches next to no memory. The best try leaves out what merely
    interrupted one of them; a slower clock or a busy sibling of the core slows all of them.
    """
    best = 0
    for _ in range(_PROBE_TRIES):
        start = time.perf_counter_ns()
        value = 1
        for _ in range(_PROBE_STEPS):
            value = (value * 1103515245 + 12345) & 0x7FFFFFFF
        taken = time.perf_counter_ns() - start
        best = min(best, taken) if best else taken
    return best


def number(path: str) -> Optional[int]:
    """The whole number in a file; None where there is none. Some thermal zones cannot be read while asleep."""
    try:
        return int(read(path))
    except ValueError:
        return None


def _extreme(of: Callable[[List[int]], int], found: List[Optional[int]]) -> Optional[int]:
    known = [f for f in found if f is not None]
    return of(known) if known else None


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
