from __future__ import annotations

from dataclasses import replace

import pytest
from records_for_tests import make_block

from edgeprune.benchmarking.validity import Watch, disturbance

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
    found = reason(wall_ms, involuntary_switches=switches, cpu_ns=int(0.97 * wall_ms * MS))
    assert (found is not None) is disturbed


def test_more_cores_may_have_more_switches() -> None:
    assert reason(involuntary_switches=40, cpu_ns=960 * MS) is not None
    assert reason(involuntary_switches=40, other_ticks=5, cpus=(0, 1)) is None
    assert reason(involuntary_switches=50, other_ticks=5, cpus=(0, 1)) is not None


def test_switches_that_took_no_time_do_not_disturb() -> None:
    assert reason(involuntary_switches=500) is None
    assert reason(involuntary_switches=500, other_ticks=1, cpus=(0, 1)) is None


def test_a_busy_neighbour_is_named_with_its_numbers() -> None:
    found = reason(1200, involuntary_switches=189, cpu_ns=600 * MS, other_ticks=60)
    assert found == (
        "189 involuntary context switches in 1.20 s (limit 29); the process had its core 50% of the time (limit 95%); "
        "0.60 s of the pinned cores used by other processes, 50% (limit 5%)"
    )


def test_cpu_share_is_asked_of_one_thread_only() -> None:
    assert reason(cpu_ns=940 * MS) is not None
    assert reason(cpu_ns=950 * MS) is None
    assert reason(cpu_ns=500 * MS, cpus=(0, 1)) is None
    assert reason(cpu_ns=500 * MS, cpus=()) is None


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


def test_a_slowed_core_shows_in_the_probe() -> None:
    assert reason(probe_before_ns=1_250_000, probe_after_ns=1_310_000) is None
    found = reason(probe_before_ns=2_156_000, probe_after_ns=1_275_000)
    assert found == (
        "the core was slowed: a fixed probe took 2.16 ms before and 1.27 ms after, 1.69x its best (limit 1.25x)"
    )
    assert reason(probe_before_ns=2_156_000, probe_after_ns=1_275_000, cpus=(0, 1)) is None
    assert reason(probe_before_ns=2_156_000) is None


def test_a_core_that_is_slow_throughout_shows_beside_other_blocks() -> None:
    slow = block(probe_before_ns=2_000_000, probe_after_ns=2_000_000)
    assert disturbance(slow) is None  # type: ignore[arg-type]
    assert "slowed" in str(disturbance(slow, 1_250_000))  # type: ignore[arg-type]
    assert disturbance(slow, 1_600_000) is None  # type: ignore[arg-type]


def test_throttling_and_a_falling_clock_disturb() -> None:
    assert reason(throttle_events=0, clock_mhz_before=1500.0, clock_mhz_after=1350.0) is None
    assert reason(throttle_events=2) == "the pinned cores were throttled 2 time(s) (limit 0)"
    assert reason(clock_mhz_before=1500.0, clock_mhz_after=1000.0) == "the clock fell from 1500 to 1000 MHz (limit 90%)"
    assert reason(clock_mhz_before=1500.0) is None


def test_a_process_that_waits_may_give_its_core_away_and_let_the_clock_fall() -> None:
    waiting = make_block(cpu_ns=1, clock_mhz_before=3000.0, clock_mhz_after=800.0)
    assert disturbance(waiting) is not None
    assert disturbance(waiting, waits=True) is None
    # A probe that is slow because the clock fell is the governor's doing; one at the same clock is not.
    slow = replace(waiting, probe_before_ns=1_000_000, probe_after_ns=2_000_000)
    assert disturbance(slow, waits=True) is None
    assert "the core was slowed" in str(disturbance(replace(slow, clock_mhz_after=3000.0), waits=True))
    assert "throttled 2" in str(disturbance(replace(waiting, throttle_events=2), waits=True))


def test_switches_of_a_process_that_waits_count_where_others_had_the_core() -> None:
    second = {"wall_ns": 1_000_000_000, "cpu_ns": 1, "involuntary_switches": 500}
    assert disturbance(make_block(**second), waits=True) is None
    assert "500 involuntary" in str(disturbance(make_block(**second, other_ticks=4), waits=True))


def test_a_watch_holds_each_block_against_the_fastest_core_so_far() -> None:
    watch = Watch()
    fast, slow = (make_block(probe_before_ns=ns, probe_after_ns=ns) for ns in (1_000_000, 1_500_000))
    assert watch.disturbance(slow) is None
    assert watch.disturbance(fast) is None
    assert "1.50x its best" in str(watch.disturbance(slow))


def test_a_watch_does_not_hold_a_slow_kind_of_core_against_a_fast_one() -> None:
    watch = Watch()
    little, big = (
        make_block(cpus=cpus, probe_before_ns=ns, probe_after_ns=ns)
        for cpus, ns in (((0,), 2_500_000), ((4,), 900_000))
    )
    assert watch.disturbance(big) is None
    assert watch.disturbance(little) is None
    slowed = replace(little, probe_after_ns=4_000_000)
    assert "1.60x its best" in str(watch.disturbance(slowed))


def test_a_watch_does_not_hold_one_core_against_a_block_on_several() -> None:
    watch = Watch()
    many = make_block(cpus=(0, 1), probe_before_ns=1_000_000, probe_after_ns=1_000_000)
    assert watch.disturbance(many) is None
    assert watch.disturbance(make_block(probe_before_ns=1_500_000, probe_after_ns=1_500_000)) is None
