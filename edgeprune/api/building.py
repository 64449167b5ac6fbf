"""From a target to an artifact that meets a budget, or to the plan for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.api.devices import usable
from edgeprune.events import Noted, NullReporter, Reporter
from edgeprune.records.rung import Plan
from edgeprune.steps.inputs import Target, load_profile, load_target

if TYPE_CHECKING:
    from edgeprune.records.result import BuildResult
    from edgeprune.schema.profile import DeviceProfile
    from edgeprune.steps.outcome import BuildInputs


def build(
    target: str | Path | Target,
    profile: str | Path | DeviceProfile | None = None,
    *,
    device: str = "local",
    output: str | Path = "runs",
    workers: int = 1,
    reporter: Reporter | None = None,
    controls: Sequence[str] = (),
) -> BuildResult:
    """Build a target for a profile on a device.

    Args:
        target: folder with `target.toml`, or a loaded target.
        profile: name, path or a loaded profile; by default the device's own; for `local`, the first that the
            target names.
        device: an enrolled device's name, or `local`.
        output: where run folders lie.
        workers: processes that train together, each on its share of every batch. The program that calls this must be
            importable: new processes import it, so its own work stands under `if __name__ == "__main__"`.
        reporter: hears what happens; None for silence.
        controls: models of the result's size to show beside it: `random`, `scratch`, or both.

    Raises:
        InputError: a file or its content cannot be used.
        PlanError: no rung's shape fits the budget; `facts` has the best that was measured.
        BuildError: training or compilation failed for the dense model; a failed candidate is a value in the result.
        DeployError: the device could not be reached or could not take the files.
        MeasurementError: the dense model could not be measured.
    """
    from edgeprune.steps.outcome import check_controls, kept_result

    inputs = _inputs(target, profile, device, output)
    inputs = replace(inputs, workers=workers, controls=check_controls(controls))
    told = reporter or NullReporter()
    kept = kept_result(inputs)
    if kept is not None:
        told.emit(Noted(message=f"nothing changed since the last build in {inputs.folder}"))
        return kept
    usable(device)
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
    usable(device)
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
