"""Measuring artifacts: one alone, on several devices, at a rate, against another, against itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.api.devices import usable
from edgeprune.api.policy import BenchPolicy
from edgeprune.errors import InputError
from edgeprune.events import NullReporter, Reporter
from edgeprune.records.rung import Limits

if TYPE_CHECKING:
    from edgeprune.records.comparison import Calibration, CompareResult
    from edgeprune.records.fleet import FleetResult
    from edgeprune.records.paced import PacedResult
    from edgeprune.records.result import BenchResult


def bench(
    artifact: str | Path,
    *,
    device: str = "local",
    policy: BenchPolicy = BenchPolicy(),
    reporter: Reporter | None = None,
) -> BenchResult:
    """Measure an artifact on a device.

    Args:
        artifact: a folder with `manifest.json`, or an `.onnx`, `.tflite` or `.xml` file.
        device: an enrolled device's name, or `local`.
        policy: how to measure, and limits to judge by.
        reporter: hears what happens; None for silence.

    Raises:
        InputError: no such artifact, or its files were changed.
        DeployError, MeasurementError: as for `build`.
    """
    from edgeprune.steps.benching import bench_artifact, bench_subject

    spec = usable(device)
    subject = bench_subject(Path(artifact), policy.threads, policy.cpus)
    return bench_artifact(subject, spec, policy.measurement, policy.limits, reporter or NullReporter())


def bench_fleet(
    artifact: str | Path,
    *,
    devices: Sequence[str],
    share: float | None = None,
    policy: BenchPolicy = BenchPolicy(),
    reporter: Reporter | None = None,
) -> FleetResult:
    """Measure an artifact on several devices at the same time, and judge them together.

    Args:
        artifact: as for `bench`.
        devices: names; `all` for every enrolled one, `profile:NAME` for those of a profile.
        share: of all such devices that must meet the limits, such as 0.9; None asks it of every device named.
        policy: how to measure, and limits that each device is held to; its confidence is the fleet's.
        reporter: hears what happens, one device at a time; None for silence.

    Returns:
        A device that could not be measured is in it with its error, and is no PASS.

    Raises:
        InputError: no such artifact or device, or a share without a limit.
    """
    from edgeprune.steps import fleet
    from edgeprune.steps.benching import bench_subject
    from edgeprune.steps.fleet_devices import choose_devices

    specs, subject = choose_devices(devices), bench_subject(Path(artifact), policy.threads, policy.cpus)
    if not {50.0, 99.0} <= set(policy.percentiles):
        policy = replace(policy, percentiles=tuple(sorted({50.0, 99.0, *policy.percentiles})))
    told = reporter or NullReporter()
    return fleet.bench_fleet(subject, specs, policy.measurement, policy.limits, told, share=share)


def bench_paced(
    artifact: str | Path,
    *,
    rate_hz: float | None = None,
    sustain_s: float | None = None,
    device: str = "local",
    policy: BenchPolicy = BenchPolicy(),
    reporter: Reporter | None = None,
) -> PacedResult:
    """Measure an artifact at a fixed rate, over a long time, or both.

    Args:
        artifact: as for `bench`.
        rate_hz: frames a second; latency counts from the scheduled arrival. None runs flat out.
        sustain_s: run one process for so long and look for a trend; None spreads `policy.runs` over
            `policy.processes` fresh processes.
        device: as for `bench`.
        policy: how to measure; limits to judge by only without `sustain_s`.
        reporter: hears what happens; None for silence.

    Raises:
        InputError: neither a rate nor a time, or limits for a sustained run: one process certifies nothing.
        DeployError, MeasurementError: as for `build`.
    """
    from edgeprune.steps.benching import bench_subject
    from edgeprune.steps.pacing import pace_artifact, sustain_artifact

    if rate_hz is not None and rate_hz <= 0:
        raise InputError(f"rate: expected a number > 0, got {rate_hz:g}")
    spec, told = usable(device), reporter or NullReporter()
    subject = bench_subject(Path(artifact), policy.threads, policy.cpus)
    if sustain_s is not None:
        if policy.limits != Limits(memory_of=policy.memory_of):
            raise InputError("sustain: one long process certifies no limit; leave the limits out, or measure without")
        return sustain_artifact(subject, spec, policy.measurement, told, seconds=sustain_s, rate_hz=rate_hz)
    if rate_hz is None:
        raise InputError("expected a rate, a time to sustain it, or both")
    return pace_artifact(subject, spec, policy.measurement, policy.limits, told, rate_hz=rate_hz)


def compare(
    first: str | Path,
    second: str | Path,
    *,
    device: str = "local",
    rounds: int = 10,
    policy: BenchPolicy = BenchPolicy(),
    reporter: Reporter | None = None,
) -> CompareResult:
    """Measure two artifacts in turn on one device; the ratios are the first over the second.

    Args:
        first: as `bench` takes it.
        second: as `bench` takes it.
        device: as for `bench`.
        rounds: at least five: fresh processes of each.
        policy: threads, cores and confidence; limits are refused, and `runs` are those of `processes` processes.
        reporter: hears what happens; None for silence.

    Raises:
        InputError: too few rounds, limits, or no such artifact.
        DeployError, MeasurementError: as for `build`.
    """
    from edgeprune.steps.benching import bench_subject
    from edgeprune.steps.comparing import compare_artifacts

    if policy.limits != Limits(memory_of=policy.memory_of):
        raise InputError("compare: a comparison judges no limit; leave the limits out, or measure each on its own")
    spec, told = usable(device), reporter or NullReporter()
    one, other = (bench_subject(Path(path), policy.threads, policy.cpus) for path in (first, second))
    return compare_artifacts((one, other), spec, policy.measurement, told, rounds=rounds)


def calibrate(
    device: str = "local",
    *,
    artifact: str | Path | None = None,
    campaigns: int = 20,
    rounds: int = 10,
    policy: BenchPolicy = BenchPolicy(),
    reporter: Reporter | None = None,
) -> Calibration:
    """Compare an artifact with itself, and keep what differences the device can resolve.

    Args:
        device: as for `bench`.
        artifact: as `bench` takes it; None for a small model that is compiled here.
        campaigns: comparisons, at least three.
        rounds: of each.
        policy: confidence and runs.
        reporter: hears what happens; None for silence.

    Raises:
        InputError: too few campaigns or rounds, or no such artifact.
        NotInstalledError: this host can compile for no runtime of the device.
        DeployError, MeasurementError: as for `build`.
    """
    from edgeprune.steps import calibrating

    return calibrating.calibrate(
        usable(device),
        policy.measurement,
        reporter or NullReporter(),
        artifact=Path(artifact) if artifact else None,
        campaigns=campaigns,
        rounds=rounds,
    )
