"""What a build is a function of, what an equal build ended with, and how its outcome is written.

Light on purpose: building again when nothing changed loads no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.errors import BuildError, InputError
from edgeprune.files import write_atomically
from edgeprune.gating.judge import ACCURACY_GATES
from edgeprune.gating.signing import SUFFIX
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.control import CONTROLS
from edgeprune.records.result import BuildResult, Candidate
from edgeprune.records.rung import Plan
from edgeprune.records.verdict import Evidence, Judgement, Verdict
from edgeprune.registry import suggest
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.evidence import EVIDENCE, REPORT, write_evidence
from edgeprune.steps.inputs import Target, tool_versions
from edgeprune.steps.model_card import CARD_FILES, write_cards
from edgeprune.store.inputs_file import Inputs, changes_since, forget_inputs, read_inputs
from edgeprune.store.run_folder import digest, step_name

SUMMARY = "summary.json"
PLAN = "plan.json"
PLAN_PAGE = "plan.html"
ARTIFACT = "artifact"
PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """All that a build is a function of, and where its run folder lies.

    Attributes:
        controls: that are asked for beside the result; they change nothing about it.
        workers: processes that train together; like the number of threads no part of the identity.
    """

    target: Target
    profile: DeviceProfile
    device: DeviceSpec
    output: Path
    controls: tuple[str, ...] = ()
    workers: int = 1

    @property
    def folder(self) -> Path:
        """The run folder: one a target, profile and device, so that what is kept is found again."""
        return self.output / f"{self.target.spec.name}-{self.profile.name}-{self.device.name}"

    def identity(self) -> Inputs:
        """Name and digest of every input; equal ones give the same result."""
        return (
            *((f"target {name}", sha) for name, sha in self.target.identity),
            ("profile", digest(self.profile.model_dump(mode="json"))),
            ("device", digest(self.device.model_dump(mode="json"))),
            *((f"version of {name}", version) for name, version in tool_versions()),
        )


def check_controls(names: Sequence[str]) -> tuple[str, ...]:
    """The controls that are asked for, each once.

    Raises:
        InputError: there is none of that name.
    """
    for name in names:
        if name not in CONTROLS:
            raise InputError(f"unknown control {name!r}{suggest(name, CONTROLS)}")
    return tuple(name for name in CONTROLS if name in names)


def kept_result(inputs: BuildInputs) -> BuildResult | None:
    """The result of an equal build that ended with PASS or FAIL; None when there is work to do."""
    path = inputs.folder / SUMMARY
    if not path.is_file() or changes_since(read_inputs(inputs.folder), inputs.identity()):
        return None
    result = _kept_summary(path)
    if result is None or result.verdict not in {Verdict.PASS, Verdict.FAIL}:
        return None
    if not {c.name for c in result.controls} >= set(inputs.controls):
        return None
    wanted = [REPORT, EVIDENCE, ARTIFACT] if result.chosen else [REPORT]
    if not all((inputs.folder / name).exists() for name in wanted):
        return None
    # The folder may have been moved since.
    return replace(result, folder=str(inputs.folder.resolve()))


def forget_outcome(root: Path) -> Path | None:
    """Clear away what an earlier build ended with, before a new one begins: an old PASS must not outlive a new FAIL.

    An outcome with evidence is kept aside in `previous/`, in place of the one before it; but one without an artifact
    does not replace one that has one. Returns that folder where an outcome was put there.

    The finished steps stay, except measurements that ended undecided: those are taken again, and kept aside as
    `measure-undecided-N`, because a release that was tried often enough passes by luck. A disturbed one says nothing
    about the candidate, and was dropped when it was judged.
    """
    result = _kept_summary(root / SUMMARY)
    # First of all: without it nobody takes the folder for a finished build.
    forget_inputs(root)
    for candidate in result.candidates if result else ():
        if candidate.judgement is not None and _measuring_may_decide(candidate.judgement):
            measured = root / step_name("measure", candidate.rung.name)
            if measured.is_dir():
                measured.rename(measured.with_name(f"measure-undecided-{undecided_campaigns(measured) + 1}"))
    kept_aside = _keep_aside(root)
    for name in (*_OUTCOME, PLAN, PLAN_PAGE):
        (root / name).unlink(missing_ok=True)
    for card in CARD_FILES:
        for stale in root.glob(f"candidates/*/{card}"):
            stale.unlink()
    return kept_aside


def _measuring_may_decide(judgement: Judgement) -> bool:
    """Whether samples were too few or disturbed; too few examples of a class stay too few."""
    open_gates = {g.gate for g in judgement.gates if g.verdict in {Verdict.INVALID, Verdict.INCONCLUSIVE}}
    return judgement.verdict is Verdict.INVALID or (
        judgement.verdict is Verdict.INCONCLUSIVE and bool(open_gates - ACCURACY_GATES)
    )


_OUTCOME = (EVIDENCE, EVIDENCE + SUFFIX, REPORT, SUMMARY)


def _keep_aside(root: Path) -> Path | None:
    """Move an outcome into `previous/`. Killed on the way, it goes on with what is left when it is called again."""
    previous, moving = root / PREVIOUS, root / f"{PREVIOUS}.part"
    artifact = (root / ARTIFACT).exists()
    worth = (root / EVIDENCE).exists() and (artifact or not (previous / ARTIFACT).exists())
    if not worth and not moving.exists():
        return None
    moving.mkdir(exist_ok=True)
    for name in (*_OUTCOME, ARTIFACT):
        if (root / name).exists():
            (root / name).rename(moving / name)
    shutil.rmtree(previous, ignore_errors=True)
    moving.rename(previous)
    return previous


def undecided_campaigns(measured: Path) -> int:
    """How many measurements of this candidate ended undecided before."""
    return len(list(measured.parent.glob("measure-undecided-*")))


def explain_changes(inputs: BuildInputs) -> tuple[str, ...]:
    """What differs from the last finished build of the same target, profile and device; empty when nothing does."""
    if not (inputs.folder / SUMMARY).is_file():
        return ("no finished build in " + str(inputs.folder),)
    return changes_since(read_inputs(inputs.folder), inputs.identity())


def write_outcome(inputs: BuildInputs, result: BuildResult, evidence: Evidence | None) -> None:
    """Evidence, artifact, report and, last, the summary, into a folder where `forget_outcome` was called."""
    from edgeprune.reporting.html import render_html

    root = inputs.folder
    if evidence is not None:
        write_evidence(root, result, evidence, inputs.profile, inputs.target.spec)
    write_cards(root, result, inputs.target.spec)
    if result.chosen is not None:
        _publish_artifact(root, result.chosen)
    write_atomically(root / REPORT, render_html(result).encode())
    write_atomically(root / SUMMARY, to_json(result, indent=1))


def write_plan(inputs: BuildInputs, plan: Plan) -> Path:
    """The plan and a page about it, beside what a build left in the folder; returns the page's path."""
    return _write_plan(inputs, plan, PLAN_PAGE)


def write_refused_plan(inputs: BuildInputs, plan: Plan) -> Path:
    """The plan and its report, into a folder where `forget_outcome` was called; returns the report's path."""
    return _write_plan(inputs, plan, REPORT)


def _write_plan(inputs: BuildInputs, plan: Plan, page: str) -> Path:
    from edgeprune.reporting.plan_html import render_plan_html

    html = render_plan_html(plan, inputs.target.spec.name, inputs.profile.name, inputs.device.name)
    write_atomically(inputs.folder / PLAN, to_json(plan, indent=1))
    write_atomically(inputs.folder / page, html.encode())
    return inputs.folder / page


def _kept_summary(path: Path) -> BuildResult | None:
    """None where there is none, or it is damaged or of another version: then the build is done again."""
    try:
        return from_json(BuildResult, path.read_bytes())
    except (FileNotFoundError, BuildError):
        return None


def _publish_artifact(root: Path, chosen: Candidate) -> None:
    """`artifact/` is what ships: the chosen candidate's files and manifest, appearing by one rename."""
    source = root / step_name("compile", chosen.rung.name)
    partial = root / ".partial" / ARTIFACT
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns("record.json", "step.json"))
    for name in CARD_FILES:
        shutil.copyfile(root / chosen.folder / name, partial / name)
    partial.rename(root / ARTIFACT)
