from __future__ import annotations

import io
import json
import time

import pytest

from edgeprune.benchmarking.agent.device import paced
from edgeprune.benchmarking.agent.device.reply import Replies

MS = 1_000_000


class Clock:
    """A world in which only sleeping and running take time."""

    def __init__(self, *durations_ms: float) -> None:
        self.now = 0
        self.durations = [round(d * MS) for d in durations_ms]
        self.runs = 0

    def clock(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def run_one(self) -> int:
        took = self.durations[min(self.runs, len(self.durations) - 1)]
        self.now += took
        self.runs += 1
        return took


def _run(world: Clock, rate_hz: float, frames: int) -> tuple[list[float], int, float]:
    latencies, served, wall = paced.run_open_loop(world.run_one, rate_hz, frames, world.clock, world.sleep)
    return [latency / MS for latency in latencies], served, wall / MS


def test_a_stall_is_charged_to_every_frame_that_it_delays() -> None:
    # 100 frames a second, 2 ms each; the third stalls for 35 ms. Those after it wait: 27 + ... until caught up.
    latencies, served, wall = _run(Clock(2, 2, 35, 2), 100, 10)
    assert latencies == [2, 2, 35, 27, 19, 11, 3, 2, 2, 2]
    assert (served, wall) == (10, 100)


def test_a_model_slower_than_the_rate_falls_behind_for_ever() -> None:
    latencies, served, wall = _run(Clock(15), 100, 5)
    assert latencies == [15, 20, 25, 30, 35]
    assert (served, wall) == (5, 75)


def test_hopeless_frames_are_given_up_and_their_waiting_counts() -> None:
    latencies, served, wall = _run(Clock(4000), 1, 5)
    # The last arrival is at 4 s: at 9 s it is over. Frames begun at 0, 4 and 8 s end at 4, 8 and 12 s.
    assert served == 3
    assert latencies == [4000, 7000, 10_000, 9000, 8000]
    assert wall == 12_000


def test_summary_is_nearest_rank() -> None:
    found = paced.summary(0.0, 60.0, [*range(100, 0, -1)])
    assert (found["p50_ns"], found["p99_ns"], found["max_ns"], found["runs"]) == (50, 99, 100, 100)
    assert paced.summary(0.0, 1.0, [7])["p99_ns"] == 7


@pytest.mark.parametrize(("count", "every", "kept"), [(1, 1, 1), (20_000, 1, 20_000), (20_001, 2, 10_001)])
def test_very_many_samples_are_thinned(count: int, every: int, kept: int) -> None:
    stream = io.StringIO()
    paced.tell(Replies(stream), range(count))
    sent = [s for line in stream.getvalue().splitlines() for s in json.loads(line)["samples_ns"]]
    assert paced.keep_every(count) == every
    assert sent == list(range(0, count, every))
    assert len(sent) == kept


def test_flat_out_fills_its_stretches() -> None:
    def run_one() -> int:
        time.sleep(0.004)
        return 4 * MS

    fields = paced.Pacing(0.0, 0.3, 0.05).run(Replies(io.StringIO()), run_one)
    assert len(fields["buckets"]) == 6
    assert fields["served"] == sum(b["runs"] for b in fields["buckets"])
    assert 0.3 <= fields["duration_ns"] / 1e9 < 0.4


def test_buckets_go_by_arrival() -> None:
    fields = paced.Pacing(100.0, 0.3, 0.1).run(Replies(io.StringIO()), lambda: 0)
    assert [b["runs"] for b in fields["buckets"]] == [10, 10, 10]
    assert fields["frames"] == fields["served"] == 30
