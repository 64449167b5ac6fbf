"""The Python API: what the commands do, with the same records that they print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeprune.errors import InputError
from edgeprune.events import Noted, NullReporter, Reporter
from edgeprune.records.rung import Limits, Plan
from edgeprune.records.verdict import Judgement
from edgeprune.steps.inputs import Target
from edgeprune.steps.inputs import load_profile as _load_profile
from edgeprune.steps.inputs import load_target as _load_target
from edgeprune.units import bytes_from_mb

if TYPE_CHECKING:
    from edgeprune.records.comparison import Calibration, CompareResult
    from edgeprune.records.fleet import FleetResult
    from edgeprune.records.paced import PacedResult
    from edgeprune.records.provisioning import Provision
    from edgeprune.records.result import BenchResult, BuildResult
    from edgeprune.schema.device import DeviceSpec
    from edgeprune.schema.profile import DeviceProfile, MeasurementPolicy
    from edgeprune.steps.outcome import BuildInputs

load_profile = _load_profile
load_target = _load_target


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPolicy:
    """How `bench` measures and what it holds the artifact to.

    Attributes:
        threads: None takes those of the artifact's manifest, or 1.
        processes: fresh processes that the runs are spread over, at least 3.
        runs: timed runs over all processes, at least 300.
        p50_ms, p99_ms: limits to judge by; None for none.
        memory_mb: limit of the peak resident memory, which the artifact is also run under where the device can.
        memory_of: whose memory that is: `process`, or `model` (less the runtime's peak without one).
        confidence: of the bounds and of the verdict.
        percentiles: to report, each in (0, 100).
    """

    threads: int | None = None
    processes: int = 5
    runs: int = 1000
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory_mb: float | None = None
    memory_of: Literal["process", "model"] = "process"
    confidence: float = 0.95
    percentiles: tuple[float, ...] = (50.0, 90.0, 99.0, 99.9)

    def __post_init__(self) -> None:
        for name in ("p50_ms", "p99_ms", "memory_mb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name}: expected a number > 0, got {value}")

    @property
    def measurement(self) -> MeasurementPolicy:
        """The same as a profile would say it.

        Raises:
            InputError: a value out of its range.
        """
        from pydantic import ValidationError

        from edgeprune.schema.profile import MeasurementPolicy

        try:
            return MeasurementPolicy(
                processes=self.processes,
                min_runs=self.runs,
                confidence=self.confidence,
                percentiles=self.percentiles,
            )
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(f"bench: {key}: {first['msg']}, got {first['input']}") from error

    @property
    def limits(self) -> Limits:
        """What the artifact is held to."""
        memory_bytes = None if self.memory_mb is None else bytes_from_mb(self.memory_mb)
        return Limits(p50_ms=self.p50_ms, p99_ms=self.p99_ms, memory_bytes=memory_bytes, memory_of=self.memory_of)


def build(
    target: str | Path | Target,
    profile: str | Path | DeviceProfile | None = None,
    *,
    device: str = "local",
    output: str | Path = "runs",
    reporter: Reporter | None = None,
) -> BuildResult:
    """Build a target for a profile on a device.

    Args:
        target: folder with `target.toml`, or a loaded target.
        profile: name, path or a loaded profile; by default the device's own; for `local`, the first that the
            target names.
        device: an enrolled device's name, or `local`.
        output: where run folders lie.
        reporter: hears what happens; None for silence.

    Raises:
        InputError: a file or its content cannot be used.
        PlanError: no rung's shape fits the budget; `facts` has the best that was measured.
        BuildError: training or compilation failed for the dense model; a failed candidate is a value in the result.
        DeployError: the device could not be reached or could not take the files.
        MeasurementError: the dense model could not be measured.
    """
    from edgeprune.steps.outcome import kept_result

    inputs, told = _inputs(target, profile, device, output), reporter or NullReporter()
    kept = kept_result(inputs)
    if kept is not None:
        told.emit(Noted(message=f"nothing changed since the last build in {inputs.folder}"))
        return kept
    _usable(device)
    from edgeprune.loop import run_build

    return run_build(inputs, told)


def plan(
    target: str | Path | Target,
    profile: str | Path | DeviceProfile | None = None,
    *,
    device: str = "local",
    output: str | Path = "runs",
    reporter: Reporter | None = None,
) -> Plan:
    """Measure the ladder's shapes on the device, train nothing. Arguments and errors are those of `build`.

    The run folder then has `plan.json` and `plan.html`, a page with what the plan rests on.
    """
    _usable(device)
    from edgeprune.loop import run_plan

    return run_plan(_inputs(target, profile, device, output), reporter or NullReporter())


def explain(
    target: str | Path | Target,
    profile: str | Path | DeviceProfile | None = None,
    *,
    device: str = "local",
    output: str | Path = "runs",
) -> tuple[str, ...]:
    """What changed since the last finished build of the same target, profile and device, a line each."""
    from edgeprune.steps.outcome import explain_changes

    return explain_changes(_inputs(target, profile, device, output))


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

    spec = _usable(device)
    subject = bench_subject(Path(artifact), policy.threads)
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

    specs, subject = choose_devices(devices), bench_subject(Path(artifact), policy.threads)
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
    spec, told = _usable(device), reporter or NullReporter()
    subject = bench_subject(Path(artifact), policy.threads)
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
        policy: threads and confidence; limits are refused, and `runs` are those of `processes` processes.
        reporter: hears what happens; None for silence.

    Raises:
        InputError: too few rounds, limits, or no such artifact.
        DeployError, MeasurementError: as for `build`.
    """
    from edgeprune.steps.benching import bench_subject
    from edgeprune.steps.comparing import compare_artifacts

    if policy.limits != Limits(memory_of=policy.memory_of):
        raise InputError("compare: a comparison judges no limit; leave the limits out, or measure each on its own")
    spec, told = _usable(device), reporter or NullReporter()
    subjects = (bench_subject(Path(first), policy.threads), bench_subject(Path(second), policy.threads))
    return compare_artifacts(subjects, spec, policy.measurement, told, rounds=rounds)


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
        _usable(device),
        policy.measurement,
        reporter or NullReporter(),
        artifact=Path(artifact) if artifact else None,
        campaigns=campaigns,
        rounds=rounds,
    )


def provision(
    device: str,
    runtimes: Sequence[str] = (),
    *,
    base_python: str = "",
    reporter: Reporter | None = None,
) -> Provision:
    """Give a device a Python environment with exactly these runtimes, from wheels that this host's pip fetches.

    Args:
        device: an enrolled device's name.
        runtimes: names; empty for those of the device's profile.
        base_python: the interpreter there to make it with; empty for that of the last time, or of the enrolment.
        reporter: hears what happens; None for silence.

    Raises:
        InputError: unknown device or runtime, or `local`.
        NotInstalledError: this host's Python has no pip.
        BuildError: this host's pip failed.
        DeployError: no Python there, no wheel for it, too little disk, or an import that fails there; the earlier
            environment is in place.
        MeasurementError: others measured there for too long.
    """
    from edgeprune.steps import provisioning

    return provisioning.provision(device, runtimes, reporter or NullReporter(), base_python=base_python)


def gate(
    run: str | Path,
    *,
    junit: str | Path | None = None,
    markdown: str | Path | None = None,
    baseline: str | Path | None = None,
    max_regression: float = 0.05,
    releases: str | Path = "releases",
) -> Judgement:
    """Judge a run again from its stored raw samples alone.

    Args:
        run: a run folder, or an `evidence.zip`.
        junit: also write a JUnit file there.
        markdown: also write a Markdown summary there.
        baseline: also hold p50 and p99 against this release: its name, `current`, or a path to its folder or evidence.
        max_regression: how much slower than the release is allowed, as a share: 0.05 is five percent.
        releases: where releases lie.

    Raises:
        InputError: there is no evidence there, it was changed, or the release cannot be compared with.
    """
    from edgeprune.steps.gates import Comparison, gate_run

    if not 0.0 <= max_regression < 1.0:
        raise InputError(f"max_regression: expected a share in [0, 1), got {max_regression}")
    comparison = None
    if baseline is not None:
        from edgeprune.steps.releases import find_release

        name, folder = find_release(str(baseline), Path(releases))
        comparison = Comparison(name=name, folder=folder, max_regression=max_regression)
    return gate_run(
        Path(run),
        junit=Path(junit) if junit else None,
        markdown=Path(markdown) if markdown else None,
        comparison=comparison,
    )


def _usable(device: str) -> DeviceSpec:
    """A device that did not fail its last check; asked before anything is read or compiled for it."""
    from edgeprune.deployment.inventory import load_device
    from edgeprune.steps.health import refuse_failing

    spec = load_device(device)
    refuse_failing(spec)
    return spec


def _inputs(
    target: str | Path | Target, profile: str | Path | DeviceProfile | None, device: str, output: str | Path
) -> BuildInputs:
    from edgeprune.deployment.inventory import LOCAL, load_device
    from edgeprune.steps.outcome import BuildInputs

    found = target if isinstance(target, Target) else load_target(target)
    spec = load_device(device)
    if isinstance(profile, str | Path):
        checked = load_profile(profile)
    elif profile is not None:
        checked = profile
    elif device == LOCAL:
        checked = found.profile(found.spec.profiles[0])
    else:
        checked = load_profile(spec.profile)
    return BuildInputs(target=found, profile=checked, device=spec, output=Path(output))
