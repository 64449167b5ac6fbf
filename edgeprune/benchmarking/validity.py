"""Whether a block may be counted: what the kernel says about the time in which it was measured.

A block is never judged by its latencies (that would throw the slow ones away), only by the evidence beside them.
One busy neighbour leaves p50 unchanged and moves p99 tenfold, while the involuntary context switches go from 6 to
189 (docs/architecture.md, fact 5).
"""

from __future__ import annotations

from edgeprune.records.measurement import Block
from edgeprune.units import NS_PER_S

# A pinned process on a quiet core is switched out 0 to 10 times a second (timers, kernel threads). With one busy
# neighbour the scheduler takes turns every few milliseconds: 50 to 250 times a second. The rate stands between. But a
# process that wakes often and does next to nothing switches as often (2 cores, 2026-11: 200 times a second, share of
# the core 0.996, p99 as without): switches count only where the core's time went with them.
MOST_INVOLUNTARY_SWITCHES_PER_S = 20.0
# Granted to every block however short: start and end of a 0.1 s block alone can cost this many.
GRANTED_INVOLUNTARY_SWITCHES = 5
LEAST_LOST_SHARE = 0.02
# One thread that only computes has its core nearly all the time: 0.985 to 1.000 in quiet blocks of 0.15 s (2 cores,
# 2026-11). A neighbour of equal priority leaves 0.56 to 0.58; one that came for 16 ms left 0.904, and p99 went tenfold.
# With several threads the idle part of a parallel loop looks the same as a disturbance, so it is not asked there.
LEAST_CPU_SHARE = 0.95
# Time that the hypervisor gave to another guest. Clouds show a few tenths of a percent when quiet.
MOST_STEAL_SHARE = 0.02
# Time that other processes used on the pinned cores.
MOST_OTHER_SHARE = 0.05
# /proc/stat counts in ticks of 10 ms, and reading it at both ends of a block errs by up to one tick each.
TICKS_PER_S = 100.0
LEAST_TICKS = 3
# After the warm-up nothing should be read from disk; a fault costs milliseconds and means that memory is short.
MOST_MAJOR_FAULTS = 0
# The fixed probe repeats within 4 % on a quiet core (1.22 to 1.32 ms there); with a busy sibling, a throttled clock or
# a host that is short of cores it took 1.7 times as long while /proc/stat said nothing.
MOST_PROBE_RATIO = 1.25
# The governor's own wandering stays under this; throttling takes whole steps of the clock.
LEAST_CLOCK_RATIO = 0.9
MOST_THROTTLE_EVENTS = 0


class Watch:
    """Judges the blocks of one device, each beside the fastest that its own core was seen so far.

    Args:
        waits: whether the process waits between its runs; see `disturbance`.
    """

    def __init__(self, *, waits: bool = False) -> None:
        self._waits = waits
        self._fastest_probe_ns: dict[tuple[int, ...], int | None] = {}

    def see(self, block: Block) -> None:
        """Have the block's own probes count from now on."""
        if len(block.cpus) == 1:
            # Of several cores nobody knows on which one the probe ran, and they need not be alike.
            known = self._fastest_probe_ns.get(block.cpus)
            found = [p for p in (known, block.probe_before_ns, block.probe_after_ns) if p]
            self._fastest_probe_ns[block.cpus] = min(found, default=None)

    def disturbance(self, block: Block) -> str | None:
        """Why the block must not be counted; its own probes count from now on."""
        self.see(block)
        return disturbance(block, self._fastest_probe_ns.get(block.cpus), waits=self._waits)

    def slowed(self, block: Block, most_ratio: float) -> str | None:
        """Whether the block's core was slower than the fastest that was seen of it by more than a factor."""
        return _probe(block, self._fastest_probe_ns.get(block.cpus), most_ratio) if len(block.cpus) == 1 else None


def disturbance(block: Block, fastest_probe_ns: int | None = None, *, waits: bool = False) -> str | None:
    """Why the block must not be counted, with the numbers; None when it may.

    Args:
        block: with its evidence.
        fastest_probe_ns: of the blocks taken before on the same device: a core that is slow from the first to the last
            run of a block shows only beside others.
        waits: whether the process waits between its runs, as at a fixed rate. It then gives its core away by itself,
            so its share of it says nothing, and an idle core's clock falls without anybody disturbing it.
    """
    wall_s = block.wall_ns / NS_PER_S
    cores = max(1, len(block.cpus))
    found = (
        _switches(block, wall_s * cores, alone=len(block.cpus) == 1 and not waits),
        _cpu_share(block) if len(block.cpus) == 1 and not waits else None,
        _ticks("stolen by the hypervisor", block.steal_ticks, wall_s * cores, MOST_STEAL_SHARE),
        _ticks("used by other processes", block.other_ticks, wall_s * cores, MOST_OTHER_SHARE),
        _major_faults(block),
        _probe(block, fastest_probe_ns) if len(block.cpus) == 1 and not (waits and _clock_fell(block)) else None,
        _throttled(block),
        _clock(block) if not waits else None,
    )
    return "; ".join(reason for reason in found if reason is not None) or None


def _switches(block: Block, core_s: float, *, alone: bool) -> str | None:
    limit = GRANTED_INVOLUNTARY_SWITCHES + MOST_INVOLUNTARY_SWITCHES_PER_S * core_s
    if block.involuntary_switches <= limit or _lost_share(block, core_s, alone=alone) < LEAST_LOST_SHARE:
        return None
    return f"{block.involuntary_switches} involuntary context switches in {core_s:.2f} s (limit {limit:.0f})"


def _lost_share(block: Block, core_s: float, *, alone: bool) -> float:
    """The part of the pinned cores' time that others had; as the ticks of /proc/stat tell it where nothing better does.

    One thread that only computes has lost what it did not get; several threads, or one that waits, have not.
    """
    if alone:
        return 1.0 - block.cpu_ns / max(1, block.wall_ns)
    return (block.other_ticks + block.steal_ticks) / TICKS_PER_S / core_s if core_s > 0 else 1.0


def _cpu_share(block: Block) -> str | None:
    share = block.cpu_ns / max(1, block.wall_ns)
    if share >= LEAST_CPU_SHARE:
        return None
    return f"the process had its core {share:.0%} of the time (limit {LEAST_CPU_SHARE:.0%})"


def _ticks(what: str, ticks: int, core_s: float, limit: float) -> str | None:
    used_s = ticks / TICKS_PER_S
    if ticks < LEAST_TICKS or used_s <= limit * core_s:
        return None
    share = used_s / core_s if core_s > 0 else 1.0
    return f"{used_s:.2f} s of the pinned cores {what}, {share:.0%} (limit {limit:.0%})"


def _major_faults(block: Block) -> str | None:
    if block.major_faults <= MOST_MAJOR_FAULTS:
        return None
    return f"{block.major_faults} page(s) read from disk during the timed runs (limit {MOST_MAJOR_FAULTS})"


def _probe(block: Block, fastest_ns: int | None, most_ratio: float = MOST_PROBE_RATIO) -> str | None:
    before, after = block.probe_before_ns, block.probe_after_ns
    if not before or not after:
        return None
    fastest = min(before, after, fastest_ns or before)
    slowest = max(before, after)
    if slowest <= most_ratio * fastest:
        return None
    return (
        f"the core was slowed: a fixed probe took {before / 1e6:.2f} ms before and {after / 1e6:.2f} ms after, "
        f"{slowest / fastest:.2f}x its best (limit {most_ratio:g}x)"
    )


def _throttled(block: Block) -> str | None:
    if (block.throttle_events or 0) <= MOST_THROTTLE_EVENTS:
        return None
    return f"the pinned cores were throttled {block.throttle_events} time(s) (limit {MOST_THROTTLE_EVENTS})"


def _clock(block: Block) -> str | None:
    if not _clock_fell(block):
        return None
    before, after = block.clock_mhz_before, block.clock_mhz_after
    return f"the clock fell from {before:.0f} to {after:.0f} MHz (limit {LEAST_CLOCK_RATIO:.0%})"


def _clock_fell(block: Block) -> bool:
    before, after = block.clock_mhz_before, block.clock_mhz_after
    return before is not None and after is not None and after < LEAST_CLOCK_RATIO * before
