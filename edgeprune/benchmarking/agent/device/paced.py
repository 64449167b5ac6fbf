"""Runs at a fixed rate, or for a fixed time, in place of a fixed number of runs.

At a rate the schedule is open-loop: frame i arrives at i / rate, whether or not the one before is done, and waits in
order. Its latency counts from its arrival, so a stall is charged to every frame that it delays. A loop that starts its
clock when it gets round to a frame would charge one (coordinated omission: Gil Tene, "How NOT to Measure Latency").
"""

from __future__ import annotations

import array
import time
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

from .reply import Replies

NS_PER_S = 1000000000
# Frames that still wait this long after the last arrival are given up; what they waited is their latency so far.
GIVE_UP_NS = 5 * NS_PER_S
# The first arrival lies ahead, so that no frame is late from the start.
_LEAD_NS = 20000000
_MOST_KEPT = 20000
_CHUNK = 200


class Pacing(NamedTuple):
    """How to run.

    Attributes:
        rate_hz: frames per second; 0 for one run straight after the other.
        seconds: for how long frames arrive.
        bucket_s: latencies are summed up for each such stretch.
    """

    rate_hz: float
    seconds: float
    bucket_s: float

    def run(self, replies: Replies, time_one: Callable[[], int]) -> Dict[str, Any]:
        """Run, tell the samples, and return the fields of `records.paced.PacedBlock`."""
        if self.rate_hz:
            return self._paced(replies, time_one)
        return self._flat_out(replies, time_one)

    def _paced(self, replies: Replies, time_one: Callable[[], int]) -> Dict[str, Any]:
        frames = max(1, round(self.rate_hz * self.seconds))
        latencies, served, wall_ns = run_open_loop(time_one, self.rate_hz, frames)
        per_bucket: Dict[int, List[int]] = {}
        for index, latency in enumerate(latencies):
            per_bucket.setdefault(int(index / self.rate_hz / self.bucket_s), []).append(latency)
        buckets = []
        for number in sorted(per_bucket):
            start_s = number * self.bucket_s
            length_s = min(self.bucket_s, self.seconds - start_s)
            buckets.append(summary(start_s, length_s, per_bucket[number]))
            tell(replies, per_bucket[number])
        missed = sum(latency > NS_PER_S / self.rate_hz for latency in latencies)
        return {"frames": frames, "served": served, "missed": missed, "duration_ns": wall_ns, "buckets": buckets}

    def _flat_out(self, replies: Replies, time_one: Callable[[], int]) -> Dict[str, Any]:
        start = begin = time.perf_counter_ns()
        end = begin + round(self.seconds * NS_PER_S)
        buckets: List[Dict[str, Any]] = []
        runs = 0
        while start < end:
            # From the first start, so that an overlong run shortens the stretch after it, and no stretch is lost.
            passed = int((start - begin) / NS_PER_S / self.bucket_s)
            bucket_end = min(begin + round((passed + 1) * self.bucket_s * NS_PER_S), end)
            latencies = array.array("q")
            while time.perf_counter_ns() < bucket_end or not latencies:
                latencies.append(time_one())
            runs += len(latencies)
            seconds = (time.perf_counter_ns() - start) / NS_PER_S
            buckets.append(summary((start - begin) / NS_PER_S, seconds, latencies))
            tell(replies, latencies)
            start = time.perf_counter_ns()
        duration_ns = time.perf_counter_ns() - begin
        return {"frames": runs, "served": runs, "missed": 0, "duration_ns": duration_ns, "buckets": buckets}


def run_open_loop(
    run_one: Callable[[], Any],
    rate_hz: float,
    frames: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Tuple[List[int], int, int]:
    """Serve frames in the order of their arrival.

    Returns:
        The latency of every frame from its arrival, in ns; how many were served (the others were given up, and have
        the time that they had waited); and the time from the first arrival to the end, in ns, at
        least a period for each frame.
    """
    begin = clock() + _LEAD_NS
    arrivals = [begin + round(index * NS_PER_S / rate_hz) for index in range(frames)]
    give_up = arrivals[-1] + GIVE_UP_NS
    latencies: List[int] = []
    for arrival in arrivals:
        early_ns = arrival - clock()
        if early_ns > 0:
            sleep(early_ns / NS_PER_S)
        elif clock() > give_up:
            break
        run_one()
        latencies.append(clock() - arrival)
    end = clock()
    served = len(latencies)
    latencies += [end - arrival for arrival in arrivals[served:]]
    # The last frame has a whole period too: a rate that is kept is not beaten.
    return latencies, served, max(end - begin, round(frames * NS_PER_S / rate_hz))


def summary(start_s: float, seconds: float, latencies: Sequence[int]) -> Dict[str, Any]:
    """The fields of `records.paced.Bucket`: nearest-rank percentiles over all latencies of the stretch."""
    ordered, count = sorted(latencies), len(latencies)
    return {
        "start_s": start_s,
        "seconds": seconds,
        "runs": count,
        "p50_ns": ordered[-(-50 * count // 100) - 1],
        "p99_ns": ordered[-(-99 * count // 100) - 1],
        "max_ns": ordered[-1],
        "kept_every": keep_every(count),
    }


def keep_every(count: int) -> int:
    """Of a stretch with very many runs every k-th is sent: half an hour of a quick model would be 18 million."""
    return -(-count // _MOST_KEPT)


def tell(replies: Replies, latencies: Sequence[int]) -> None:
    """Send the kept samples of one stretch."""
    kept = list(latencies[:: keep_every(len(latencies))])
    for first in range(0, len(kept), _CHUNK):
        replies.emit("samples", samples_ns=kept[first : first + _CHUNK])
