"""Sets of cores as Linux writes them: `0-3,8`."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MOST = 4096
"""More numbers than any kernel has: `0-999999999` is a slip, and must not fill the memory."""


def parse_cpus(text: str) -> tuple[int, ...]:
    """The numbers of a list, ascending, each once.

    Raises:
        ValueError: it is none; says what is expected.
    """
    found: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part.strip())
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if first > last or last >= _MOST:
            raise ValueError(f"{text!r} is no list of cores: expected numbers and ranges under {_MOST}, such as 0-3,8")
        found |= set(range(first, last + 1))
    return tuple(sorted(found))


def format_cpus(cpus: Iterable[int]) -> str:
    """What `parse_cpus` reads, as short as it can be; empty for no cores."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges)


def on_cores(threads: int, cpus: Iterable[int]) -> str:
    """For people: `2 thread(s) on core(s) 4-5`; without the cores where none were asked for."""
    cores = format_cpus(cpus)
    return f"{threads} thread(s) on core(s) {cores}" if cores else f"{threads} thread(s)"


def checked_cpus(text: str) -> str:
    """The text itself, if `parse_cpus` takes it."""
    parse_cpus(text)
    return text
