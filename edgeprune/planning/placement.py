"""How many threads a model runs with and on which cores, by the percentile that the budget limits.

The cores of a phone's or a board's processor are of two or three kinds. Which are best is no matter of course: the fast
ones may be throttled, or share their cache with all others; so each kind is measured. On a device whose cores are all
alike there is nothing to choose, and the agent takes the last ones, because core 0 gets most interrupts
(`benchmarking/agent/device/bench.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgeprune.cpu_list import on_cores, parse_cpus
from edgeprune.planning.feasibility import ShapeFigures, tightness
from edgeprune.records.cores import Core, core_kinds
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
    """Every thread count of a profile, on each of its sets of cores, else on each kind of core of the device.

    As many physical cores as threads, the last of a set or kind. Where no kind has so many, the fastest kinds together;
    where all together have not, the last hardware threads.

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
    """One set of cores for each kind that has so many; an empty one where that is the last cores of all anyway."""
    kinds = core_kinds(topology)
    found = [cpus for kind in kinds if (cpus := _spread(kind, threads))]
    if not found:
        fastest = [core for kind in kinds for core in reversed(kind)]
        found = [tuple(sorted(core.cpus[-1] for core in fastest[:threads]))] if len(fastest) >= threads else [()]
    everything = sorted(cpu for core in topology for cpu in core.cpus)
    return [()] if found == [tuple(everything[-threads:])] else found


def _spread(cores: Sequence[Core], threads: int) -> tuple[int, ...]:
    """One hardware thread of each of the last so many cores; empty where there are fewer."""
    last = sorted(core.cpus[-1] for core in cores)[-threads:]
    return tuple(last) if len(last) == threads else ()


def _within(topology: Sequence[Core], cpus: Iterable[int]) -> list[Core]:
    allowed = frozenset(cpus)
    kept = ((core, tuple(c for c in core.cpus if c in allowed)) for core in topology)
    return [replace(core, cpus=some) for core, some in kept if some]


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
