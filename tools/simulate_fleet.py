"""How often the verdict over a fleet is wrong: many synthetic fleets with a known share of good devices.

    python tools/simulate_fleet.py --fleets 20000

Each device of a fleet is drawn: good with the true share, else not; and then its own verdict, wrong as often as it may
be. At a true share equal to the one that is asked for both errors are largest. The first table is `--fleet-share`. The
second is the default, every device: all devices are good but so near the edge that each fails falsely as often as it
may, with and without the error split over them; and one device is not good.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeprune.gating.fleet import device_confidence, judge_fleet, sure_fail_confidence
from edgeprune.records.fleet import FleetDemand, FleetDevice
from edgeprune.records.verdict import Verdict

SIZES = (5, 16, 29, 46, 100)
TRUTHS = (0.7, 0.9, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Shares of the fleets of one row."""

    devices: int
    truth: float
    passed: float
    failed: float


def simulate_share(demand: FleetDemand, devices: int, truth: float, fleets: int, seed: int) -> Rates:
    """Fleets of which each device is good with the probability `truth`; the verdict only counts, so it is kept."""
    random = np.random.default_rng(seed)
    error = 1.0 - demand.device_confidence
    good = random.random((fleets, devices)) < truth
    wrong = random.random((fleets, devices)) < error
    passed = (good ^ wrong).sum(axis=1)
    found: Counter[Verdict] = Counter()
    for count, times in Counter(int(p) for p in passed).items():
        found[judge_fleet(_devices(count, devices - count), demand).verdict] += times
    return Rates(devices=devices, truth=truth, passed=found[Verdict.PASS] / fleets, failed=found[Verdict.FAIL] / fleets)


def simulate_every(demand: FleetDemand, devices: int, bad: int, fleets: int, seed: int) -> tuple[Rates, float]:
    """Fleets with so many devices that are not good; also the share of FAIL if the error were not split."""
    random = np.random.default_rng(seed)
    error, strict = 1.0 - demand.confidence, 1.0 - sure_fail_confidence(demand, devices)
    drawn = random.random((fleets, devices))
    # One draw decides both: what fails at the strict confidence fails at the other too.
    fails, surely = drawn < error, drawn < strict
    fails[:, :bad], surely[:, :bad] = drawn[:, :bad] >= error, drawn[:, :bad] >= error
    found: Counter[Verdict] = Counter()
    for key, times in Counter(zip(fails.sum(axis=1).tolist(), surely.sum(axis=1).tolist(), strict=True)).items():
        found[judge_fleet(_devices(devices - key[0], key[0], sure=key[1]), demand).verdict] += times
    rates = Rates(
        devices=devices,
        truth=1 - bad / devices,
        passed=found[Verdict.PASS] / fleets,
        failed=found[Verdict.FAIL] / fleets,
    )
    return rates, float(fails.any(axis=1).mean())


def _devices(passed: int, failed: int, *, sure: int = 0) -> list[FleetDevice]:
    verdicts = [Verdict.PASS] * passed + [Verdict.FAIL] * failed
    return [
        FleetDevice(device=f"edge{i}", profile="any", verdict=v, sure_fail=v is Verdict.FAIL and i - passed < sure)
        for i, v in enumerate(verdicts)
    ]


def rows(demand: FleetDemand, fleets: int, seed: int) -> Iterator[Rates]:
    """The share at several sizes of the fleet and truths."""
    for devices in SIZES:
        for truth in TRUTHS:
            yield simulate_share(demand, devices, truth, fleets, seed)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleets", type=int, default=20_000, help="for each row (default 20000)")
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    each = device_confidence(options.confidence, options.share)
    demand = FleetDemand(share=options.share, confidence=options.confidence, device_confidence=each, latency_limits=1)
    error = 1 - options.confidence
    print(f"{options.fleets} fleets a row; at least {options.share:.0%} of such devices; error at most {error:.3f}")
    print(f"{'devices':>8}{'truth':>8}{'PASS':>9}{'FAIL':>9}   false")
    for row in rows(demand, options.fleets, options.seed):
        false = [f"PASS {row.passed:.4f}"] if row.truth <= options.share else []
        false += [f"FAIL {row.failed:.4f}"] if row.truth >= options.share else []
        print(f"{row.devices:>8}{row.truth:>8.2f}{row.passed:>9.4f}{row.failed:>9.4f}   {', '.join(false)}")
    every = FleetDemand(
        share=None, confidence=options.confidence, device_confidence=options.confidence, latency_limits=1
    )
    print(f"\nevery device\n{'devices':>8}{'bad':>8}{'PASS':>9}{'FAIL':>9}{'not split':>11}   false")
    for devices in SIZES:
        for bad in (0, 1):
            row, unsplit = simulate_every(every, devices, bad, options.fleets, options.seed)
            false = [f"FAIL {row.failed:.4f}" if not bad else f"PASS {row.passed:.4f}"]
            print(f"{devices:>8}{bad:>8}{row.passed:>9.4f}{row.failed:>9.4f}{unsplit:>11.4f}   {false[0]}")


if __name__ == "__main__":
    main()
