from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_for_tests import make_block

from edgeprune.benchmarking.sampling import (
    Ending,
    Patience,
    Schedule,
    plan_schedule,
    sample_until_certain,
)
from edgeprune.records.measurement import Block
from edgeprune.records.verdict import Verdict
from edgeprune.schema.profile import MeasurementPolicy

MS = 1_000_000


class Clock:
    """Time that passes only while a block is measured or somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    def patience(self, *, time_limit_s: float = 1e9, max_retries: int = 3) -> Patience:
        return Patience(time_limit_s=time_limit_s, max_retries=max_retries, clock=self, sleep=self.sleep)


class Bench:
    """Measures blocks that say when they were taken; the attempts named are disturbed."""

    def __init__(self, clock: Clock, disturbed: frozenset[int] = frozenset()) -> None:
        self.clock = clock
        self.disturbed = disturbed
        self.taken: list[tuple[str, int]] = []

    def series(self, name: str) -> Callable[[int], Block]:
        def measure(attempt: int) -> Block:
            self.taken.append((name, attempt))
            self.clock.now_s += 1.0
            return make_block((1,), major_faults=int(attempt in self.disturbed), load_ns=attempt)

        return measure


def is_disturbed(block: Block) -> str | None:
    return "a reason" if block.major_faults else None


class Assess:
    """Says what it is told to, look by look, and remembers what it was shown."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = list(verdicts)
        self.shown: list[tuple[int, float]] = []

    def __call__(self, blocks: Mapping[str, tuple[Block, ...]], confidence: float) -> Verdict:
        self.shown.append((len(next(iter(blocks.values()))), confidence))
        return self.verdicts.pop(0) if self.verdicts else Verdict.INCONCLUSIVE


def schedule() -> Schedule:
    return plan_schedule(MeasurementPolicy(processes=3, min_runs=600), 1 * MS)


def test_schedule_by_hand() -> None:
    planned = plan_schedule(MeasurementPolicy(processes=3, min_runs=600, looks=3, confidence=0.95), 5 * MS)
    assert [look.processes_total for look in planned.looks] == [3, 6, 12]
    assert {look.runs_per_process for look in planned.looks} == {200}
    assert planned.confidence_per_look == pytest.approx(1 - 0.05 / 3)


@pytest.mark.parametrize(
    ("estimate_ns", "runs"),
    [(10 * MS, 200), (1 * MS, 250), (0.5 * MS, 500), (0.01 * MS, 1000), (0, 1000)],
)
def test_blocks_of_fast_models_grow(estimate_ns: float, runs: int) -> None:
    assert plan_schedule(MeasurementPolicy(), estimate_ns).looks[0].runs_per_process == runs


def test_min_runs_are_kept_over_the_cap() -> None:
    policy = MeasurementPolicy(processes=3, min_runs=6000)
    assert plan_schedule(policy, 10 * MS).looks[0].runs_per_process == 2000


@given(st.integers(3, 50), st.integers(300, 10_000), st.integers(1, 6), st.floats(0, 1e9), st.floats(0.51, 0.999))
@settings(max_examples=50, deadline=None)
def test_schedule_keeps_the_policy(
    processes: int, min_runs: int, looks: int, estimate_ns: float, confidence: float
) -> None:
    policy = MeasurementPolicy(processes=processes, min_runs=min_runs, looks=looks, confidence=confidence)
    planned = plan_schedule(policy, estimate_ns)
    first = planned.looks[0]
    assert first.processes_total * first.runs_per_process >= min_runs
    assert looks * (1 - planned.confidence_per_look) == pytest.approx(1 - confidence)


def test_stops_at_the_first_certain_look() -> None:
    clock = Clock()
    bench, assess = Bench(clock), Assess(Verdict.INCONCLUSIVE, Verdict.PASS)
    got = sample_until_certain(schedule(), {"a": bench.series("a")}, assess, is_disturbed, clock.patience())
    assert (got.verdict, got.looks, got.ending) == (Verdict.PASS, 2, Ending.CERTAIN)
    assert [count for count, _ in assess.shown] == [3, 6]
    assert {confidence for _, confidence in assess.shown} == {schedule().confidence_per_look}
    assert len(got.of("a").blocks) == 6


def test_uses_up_all_looks() -> None:
    clock = Clock()
    bench, assess = Bench(clock), Assess()
    got = sample_until_certain(schedule(), {"a": bench.series("a")}, assess, is_disturbed, clock.patience())
    assert (got.verdict, got.looks, got.ending) == (Verdict.INCONCLUSIVE, 3, Ending.LOOKS)
    assert [count for count, _ in assess.shown] == [3, 6, 12]


def test_series_are_interleaved_in_alternating_order() -> None:
    clock = Clock()
    bench = Bench(clock)
    series = {"dense": bench.series("dense"), "small": bench.series("small")}
    got = sample_until_certain(schedule(), series, Assess(Verdict.FAIL), is_disturbed, clock.patience())
    assert [name for name, _ in bench.taken] == ["dense", "small", "small", "dense", "dense", "small"]
    assert [len(s.blocks) for s in got.series] == [3, 3]


def test_a_disturbed_round_is_measured_again_after_a_wait() -> None:
    clock = Clock()
    bench = Bench(clock, frozenset({1, 2}))
    got = sample_until_certain(
        schedule(), {"a": bench.series("a")}, Assess(Verdict.PASS), is_disturbed, clock.patience()
    )
    assert [b.load_ns for b in got.of("a").blocks] == [0, 3, 4]
    assert [d.reason for d in got.of("a").disturbed] == ["a reason", "a reason"]
    assert clock.slept_s == [0.5, 1.0]


def test_back_off_starts_anew_after_a_quiet_round_and_is_bounded() -> None:
    clock = Clock()
    bench = Bench(clock, frozenset({0, *range(2, 9)}))
    sample_until_certain(
        schedule(), {"a": bench.series("a")}, Assess(Verdict.PASS), is_disturbed, clock.patience(max_retries=20)
    )
    assert clock.slept_s == [0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_round_counts_only_if_every_series_is_quiet() -> None:
    clock = Clock()
    quiet, noisy = Bench(clock), Bench(clock, frozenset({1}))
    series = {"quiet": quiet.series("quiet"), "noisy": noisy.series("noisy")}
    got = sample_until_certain(schedule(), series, Assess(Verdict.PASS), is_disturbed, clock.patience())
    assert [b.load_ns for b in got.of("quiet").blocks] == [b.load_ns for b in got.of("noisy").blocks] == [0, 2, 3]
    assert got.of("noisy").disturbed[0].reason == "a reason"
    assert "noisy: a reason" in got.of("quiet").disturbed[0].reason


def test_gives_up_on_a_device_that_stays_disturbed() -> None:
    clock = Clock()
    bench = Bench(clock, frozenset(range(1, 100)))
    assess = Assess(Verdict.INVALID)
    got = sample_until_certain(
        schedule(), {"a": bench.series("a")}, assess, is_disturbed, clock.patience(max_retries=3)
    )
    assert got.ending is Ending.DISTURBED
    assert got.verdict is Verdict.INVALID
    assert got.looks == 0
    assert len(got.of("a").blocks) == 1
    assert len(got.of("a").disturbed) == 4


def test_a_device_that_becomes_disturbed_gets_no_verdict_from_what_slipped_through() -> None:
    clock = Clock()
    bench = Bench(clock, frozenset(range(4, 100)))
    assess = Assess(Verdict.INCONCLUSIVE, Verdict.PASS)
    got = sample_until_certain(
        schedule(), {"a": bench.series("a")}, assess, is_disturbed, clock.patience(max_retries=3)
    )
    assert (got.ending, got.verdict, got.looks) == (Ending.DISTURBED, Verdict.INVALID, 1)
    assert len(got.of("a").blocks) == 4


def test_nothing_valid_is_never_assessed() -> None:
    clock = Clock()
    bench = Bench(clock, frozenset(range(100)))
    assess = Assess(Verdict.PASS)
    got = sample_until_certain(
        schedule(), {"a": bench.series("a")}, assess, is_disturbed, clock.patience(max_retries=0)
    )
    assert (got.verdict, got.looks, assess.shown) == (Verdict.INVALID, 0, [])


def test_time_ends_sampling_and_what_was_measured_since_is_judged() -> None:
    clock = Clock()
    bench, assess = Bench(clock), Assess()
    got = sample_until_certain(
        schedule(), {"a": bench.series("a")}, assess, is_disturbed, clock.patience(time_limit_s=5.0)
    )
    assert got.ending is Ending.TIME
    assert [count for count, _ in assess.shown] == [3, 5]
    assert got.looks == 2


def test_time_that_ends_at_a_look_does_not_look_twice() -> None:
    clock = Clock()
    bench, assess = Bench(clock), Assess()
    got = sample_until_certain(
        schedule(), {"a": bench.series("a")}, assess, is_disturbed, clock.patience(time_limit_s=3.0)
    )
    assert (got.looks, got.ending) == (1, Ending.TIME)
