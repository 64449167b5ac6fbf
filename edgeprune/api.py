"""The Python API: what the commands do, with the same records that they print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import InputError
from edgeprune.events import Noted, NullReporter, Reporter
from edgeprune.records.rung import Limits, Plan
from edgeprune.records.verdict import Judgement
from edgeprune.steps.inputs import Target
from edgeprune.steps.inputs import load_profile as _load_profile
from edgeprune.steps.inputs import load_target as _load_target

if TYPE_CHECKING:
    from edgeprune.records.result import BenchResult, BuildResult
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
        confidence: of the bounds and of the verdict.
        percentiles: to report, each in (0, 100).
    """

    threads: int | None = None
    processes: int = 5
    runs: int = 1000
    p50_ms: float | None = None
    p99_ms: float | None = None
    confidence: float = 0.95
    percentiles: tuple[float, ...] = (50.0, 90.0, 99.0, 99.9)

    def __post_init__(self) -> None:
        for name in ("p50_ms", "p99_ms"):
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
        return Limits(p50_ms=self.p50_ms, p99_ms=self.p99_ms)


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
    """Measure the ladder's shapes on the device, train nothing. Arguments and errors are those of `build`."""
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
    from edgeprune.deployment.inventory import load_device
    from edgeprune.steps.benching import bench_artifact, bench_subject

    subject = bench_subject(Path(artifact), policy.threads)
    return bench_artifact(subject, load_device(device), policy.measurement, policy.limits, reporter or NullReporter())


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
