from __future__ import annotations

import pytest
from records_for_tests import make_block

from edgeprune.benchmarking.validity import disturbance

MS = 1_000_000


def block(wall_ms: int = 1000, **changes: object) -> object:
    return make_block((MS,), **{"wall_ns": wall_ms * MS, "cpu_ns": int(0.99 * wall_ms * MS), **changes})


def reason(wall_ms: int = 1000, **changes: object) -> str | None:
    return disturbance(block(wall_ms, **changes))  # type: ignore[arg-type]


def test_a_quiet_block_counts() -> None:
    assert reason() is None


@pytest.mark.parametrize(
    ("wall_ms", "switches", "disturbed"),
    [(1000, 10, False), (1000, 25, False), (1000, 26, True), (100, 7, False), (100, 12, True), (4000, 50, False)],
)
def test_involuntary_switches_by_rate(wall_ms: int, switches: int, disturbed: bool) -> None:  # noqa: FBT001
    assert (reason(wall_ms, involuntary_switches=switches) is not None) is disturbed


def test_more_cores_may_have_more_switches() -> None:
    assert reason(involuntary_switches=40) is not None
    assert reason(involuntary_switches=40, cpus=(0, 1)) is None


def test_a_busy_neighbour_is_named_with_its_numbers() -> None:
    found = reason(1200, involuntary_switches=189, cpu_ns=600 * MS, other_ticks=60)
    assert found == (
        "189 involuntary context switches in 1.20 s (limit 29); the process had its core 50% of the time (limit 85%); "
        "0.60 s of the pinned cores used by other processes, 50% (limit 5%)"
    )


def test_cpu_share_is_asked_of_one_thread_only() -> None:
    assert reason(cpu_ns=840 * MS) is not None
    assert reason(cpu_ns=850 * MS) is None
    assert reason(cpu_ns=840 * MS, cpus=(0, 1)) is None
    assert reason(cpu_ns=840 * MS, cpus=()) is None


@pytest.mark.parametrize("field", ["steal_ticks", "other_ticks"])
def test_ticks_do_not_disturb_short_blocks(field: str) -> None:
    assert reason(100, **{field: 2}) is None
    assert reason(100, **{field: 3}) is not None


@pytest.mark.parametrize(("field", "allowed"), [("steal_ticks", 20), ("other_ticks", 50)])
def test_ticks_of_long_blocks_are_judged_by_their_share(field: str, allowed: int) -> None:
    assert reason(10_000, **{field: allowed}) is None
    assert reason(10_000, **{field: allowed + 1}) is not None
    assert reason(10_000, **{field: allowed + 1}, cpus=(0, 1)) is None


def test_a_page_read_from_disk_disturbs() -> None:
    assert reason(major_faults=1) == "1 page(s) read from disk during the timed runs (limit 0)"


def test_a_block_without_length_does_not_divide_by_zero() -> None:
    found = reason(0, steal_ticks=5)
    assert found is not None
    assert "stolen" in found
