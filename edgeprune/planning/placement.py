"""How many threads a model runs with and on which cores, by the percentile that the budget limits.

The cores of a phone's or a board's processor are of two or three kinds. Which are best is no matter of course: the fast
ones may be throttled, or share their cache with all others; so each kind is measured. On a device whose cores are all
alike there is nothing to choose, and the agent takes the last ones, because core 0 gets most interrupts
(`benchmarking/agent/device/bench.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgeprune.cpu_list import format_cpus, on_cores, parse_cpus
from edgeprune.planning.feasibility import ShapeFigures, tightness
from edgeprune.records.cores import Core, core_kinds
from edgeprune.records.measurement import DeviceFacts
from edgeprune.records.rung import Limits, Rung
from edgeprune.schema.profile import DeviceProfile
from edgeprune.units import format_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """So many threads, on these cores; `cpus` as for `Rung`."""

    threads: int
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementChoice:
    """The shape at the best placement of each runtime and precision, and the other places with the reason."""

    kept: tuple[ShapeFigures, ...]
    left_out: tuple[tuple[Rung, str], ...]


def placements(profile: DeviceProfile, topology: Sequence[Core]) -> tuple[Placement, ...]:
    """Every thread count of a profile, on each of its sets of cores, else on those of the device that are worth a look.

    As many physical cores as threads: the fastest of all, and the last of each kind or set that has so many; where all
    together have not, the last hardware threads.

    Args:
        profile: thread counts, and sets of cores if it has any.
        topology: of the device.
    """
    found = []
    for threads in profile.threads:
        if profile.cpus:
            sets = [cpus for text in profile.cpus if len(cpus := parse_cpus(text)) >= threads]
            choices = [_spread(_within(topology, cpus), threads) or cpus[-threads:] for cpus in sets]
        else:
            choices = _on_kinds(topology, threads)
        found += [Placement(threads=threads, cpus=cpus) for cpus in dict.fromkeys(choices)]
    return tuple(found)


def _on_kinds(topology: Sequence[Core], threads: int) -> list[tuple[int, ...]]:
    """The fastest cores, and those of each kind that has so many; an empty set where that is the last cores of all."""
    kinds = core_kinds(topology)
    fastest = [core for kind in kinds for core in reversed(kind)]
    found = dict.fromkeys(cpus for cores in (fastest[:threads], *kinds) if (cpus := _spread(cores, threads)))
    everything = sorted(cpu for core in topology for cpu in core.cpus)
    return list(found) if found.keys() - {tuple(everything[-threads:])} else [()]


def _spread(cores: Sequence[Core], threads: int) -> tuple[int, ...]:
    """One hardware thread of each of the last so many cores; empty where there are fewer."""
    last = sorted(core.cpus[-1] for core in cores)[-threads:]
    return tuple(last) if len(last) == threads else ()


def _within(topology: Sequence[Core], cpus: Iterable[int]) -> list[Core]:
    wanted = frozenset(cpus)
    kept = ((core, tuple(c for c in sorted((*core.cpus, *core.apart)) if c in wanted)) for core in topology)
    return [replace(core, cpus=some) for core, some in kept if some]


def out_of_reach(place: Placement | Rung, facts: DeviceFacts) -> str | None:
    """Why nothing can run there so; None where it can."""
    if place.threads > facts.cores and not place.cpus:
        return f"{place.threads} threads, and the device lets us use {facts.cores} core(s)"
    if place.cpus and not facts.topology:
        return "the device does not let us choose cores"
    there = {cpu for core in facts.topology for cpu in (*core.cpus, *core.apart)}
    if missing := set(place.cpus) - there:
        return f"no core(s) {format_cpus(missing)} that the device lets us use: {format_cpus(there)}"
    return None


def reachable(profile: DeviceProfile, facts: DeviceFacts) -> tuple[Placement, ...]:
    """The `placements` that the device has."""
    return tuple(p for p in placements(profile, facts.topology) if out_of_reach(p, facts) is None)


def choose_placement(places: Sequence[ShapeFigures], limits: Limits) -> PlacementChoice:
    """Keep the thread count and cores that come nearest to no limit; of equal ones the first.

    Args:
        places: full widths, each measured long enough for the percentiles that the budget limits.
        limits: the budget. Without a limit of latency the lowest p50 counts.
    """
    best: dict[Rung, ShapeFigures] = {}
    for place in places:
        alike = place.rung.unplaced
        best[alike] = min(best.get(alike, place), place, key=lambda f: tightness(f, limits))
    left_out = []
    for place in places:
        kept = best[place.rung.unplaced]
        if kept is not place:
            percentile, value_ms, best_ms = _deciding(place, kept, limits)
            placed = on_cores(kept.rung.threads, kept.rung.cpus)
            reason = f"{percentile} {format_ms(value_ms)}, and {format_ms(best_ms)} with {placed}"
            left_out.append((place.rung, reason))
    return PlacementChoice(kept=tuple(best.values()), left_out=tuple(left_out))


def _deciding(place: ShapeFigures, kept: ShapeFigures, limits: Limits) -> tuple[str, float, float]:
    """The percentile by which a place is nearer to its limit, there and at the place that was kept."""
    by_p99 = limits.p99_ms is not None and (
        limits.p50_ms is None or place.p99_ms / limits.p99_ms >= place.p50_ms / limits.p50_ms
    )
    return ("p99", place.p99_ms, kept.p99_ms) if by_p99 else ("p50", place.p50_ms, kept.p50_ms)
