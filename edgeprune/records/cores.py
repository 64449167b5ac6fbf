"""The cores of a device, and which of them are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.cpu_list import format_cpus

_ALIKE = 0.9
"""Cores of one design that reach so much of the fastest one's speed are one kind: on x86 a few favoured cores of many
equal ones may run a few percent faster, while those of two kinds are 15 % apart and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """One physical core, as the kernel tells of it; what it does not tell is None or empty.

    Attributes:
        cpus: its hardware threads that a process has, by number.
        apart: those that a process gets only by asking for them.
        capacity: `cpu_capacity`: of the fastest core of the device it is 1024.
        max_mhz: the highest clock.
        part: which design it is: ARM's part number.
    """

    cpus: tuple[int, ...]
    apart: tuple[int, ...] = ()
    capacity: int | None = None
    max_mhz: float | None = None
    part: str = ""


def core_kinds(cores: Sequence[Core]) -> tuple[tuple[Core, ...], ...]:
    """Cores of one design and about one speed together; the fastest kind first, its cores by number.

    Speed is the capacity where the kernel tells it of all and they differ, else the highest clock, likewise. Cores that
    are all kept apart are of no kind.
    """
    cores = [core for core in cores if core.cpus]
    speeds = _speeds(cores)
    kinds: list[list[Core]] = []
    for core in sorted(cores, key=lambda c: (-speeds[c], c.cpus)):
        like = [k for k in kinds if k[0].part == core.part and speeds[core] >= _ALIKE * speeds[k[0]]]
        if like:
            like[-1].append(core)
        else:
            kinds.append([core])
    return tuple(tuple(sorted(kind, key=lambda c: c.cpus)) for kind in kinds)


def describe_kinds(cores: Sequence[Core]) -> str:
    """`2 kinds: 4-7 (capacity 1024), 0-3 (capacity 446)`; one kind has its cores alone."""
    kinds = core_kinds(cores)
    found = []
    for kind in kinds:
        told = [f"part {kind[0].part}"] if kind[0].part else []
        told += [f"capacity {max(capacities)}"] if (capacities := [c.capacity for c in kind if c.capacity]) else []
        told += [f"{max(clocks):.0f} MHz"] if (clocks := [c.max_mhz for c in kind if c.max_mhz]) else []
        cpus = format_cpus(cpu for core in kind for cpu in core.cpus)
        found.append(f"{cpus} ({', '.join(told)})" if told else cpus)
    return f"{len(kinds)} kind{'s' * (len(kinds) != 1)}: {', '.join(found)}"


def _speeds(cores: Sequence[Core]) -> dict[Core, float]:
    capacities = {c: float(c.capacity) for c in cores if c.capacity}
    clocks_mhz = {c: c.max_mhz for c in cores if c.max_mhz}
    # Device trees without capacities show the same one for every core.
    tells = (told for told in (capacities, clocks_mhz) if len(told) == len(cores) and len(set(told.values())) > 1)
    return next(tells, dict.fromkeys(cores, 1.0))
