"""How much longer `edgeprune bench` takes on many devices than on one.

    python tools/bench_fleet.py
    python tools/bench_fleet.py --devices 16 --sleep-ms 100 --most 1.3

The devices are entries of one sshd on loopback, each with its own session, work folder and lease, and the work is a
sleep, so that they do not share a processor as they would not if they were boxes. One device and all of them are
measured in turn, ABBA, each time the whole of it: connect, send the agent and the files, lease, time, give back. What
they do share here is the processor time of starting sshd sessions and Python with numpy on the "devices": that is what
the ratio over 1 is, and the sleep must be long against it. Exit code 1 where the ratio is over --most.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from sleepers import Sleepers

from edgeprune import api
from edgeprune.benchmarking.validity import Watch
from edgeprune.deployment.inventory import save_device
from edgeprune.records.fleet import FleetResult
from edgeprune.records.verdict import Verdict
from edgeprune.units import NS_PER_S


def main() -> int:
    """Measure, print, and say by the exit code whether it is at most what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=16)
    parser.add_argument("--sleep-ms", type=float, default=100.0, help="a run of the model (default 100)")
    parser.add_argument("--processes", type=int, default=5, help="fresh processes a device (default 5)")
    parser.add_argument("--runs", type=int, default=1000, help="over all of them (default 1000)")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of one and all (default 2)")
    parser.add_argument("--most", type=float, default=1.3, help="the ratio that is allowed (default 1.3)")
    options = parser.parse_args()
    policy = api.BenchPolicy(processes=options.processes, runs=options.runs)
    # A process that sleeps does not have its core: it would never count as undisturbed.
    undisturbed = mock.patch.object(Watch, "disturbance", return_value=None)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as home, Sleepers() as lab, undisturbed:
        os.environ["EDGEPRUNE_HOME"] = home
        names = [f"edge{i:02}" for i in range(options.devices)]
        for name in names:
            save_device(lab.device(name, sleep_s=options.sleep_ms / 1e3))
        ratios = _in_turn(lab.model(), names, policy, options.rounds)
    ratio = statistics.median(ratios)
    print(f"ratio median {ratio:.3f} (at most {options.most:g} asked); pairs: {' '.join(f'{r:.3f}' for r in ratios)}")
    return 0 if ratio <= options.most else 1


def _in_turn(model: Path, names: list[str], policy: api.BenchPolicy, rounds: int) -> list[float]:
    ratios = []
    for number in range(rounds):
        pair = [names[:1], names]
        seconds = {len(chosen): _seconds(model, chosen, policy) for chosen in (pair if number % 2 == 0 else pair[::-1])}
        ratios.append(seconds[len(names)] / seconds[1])
    return ratios


def _seconds(model: Path, names: list[str], policy: api.BenchPolicy) -> float:
    start, start_cpu = time.perf_counter(), time.process_time()
    result = api.bench_fleet(model, devices=names, policy=policy)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    if result.verdict is not Verdict.PASS:
        raise RuntimeError(result.judgement.reason)
    print(
        f"{len(names):3} device(s): {seconds:6.1f} s, {cpu:.1f} s of them processor time of the client; "
        f"all were being measured at once for {_together_s(result):.1f} s",
        flush=True,
    )
    return seconds


def _together_s(result: FleetResult) -> float:
    """From the last device's first timed run to the first device's last one; negative where they never met."""
    found = [d.result.measurement.blocks for d in result.devices if d.result is not None]
    starts = [blocks[0].started_unix_s for blocks in found]
    ends = [blocks[-1].started_unix_s + blocks[-1].wall_ns / NS_PER_S for blocks in found]
    return min(ends) - max(starts)


if __name__ == "__main__":
    sys.exit(main())
