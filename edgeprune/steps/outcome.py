"""What a build is a function of, what an equal build ended with, and how its outcome is written.

Light on purpose: building again when nothing changed loads no torch.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgeprune.gating.evidence import write_evidence
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.result import BuildResult, Candidate
from edgeprune.records.verdict import Evidence, Verdict
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.gates import EVIDENCE
from edgeprune.steps.inputs import Target, tool_versions
from edgeprune.store.inputs_file import Inputs, changes_since, read_inputs
from edgeprune.store.run_folder import digest, step_name, write_atomically

SUMMARY = "summary.json"
REPORT = "report.html"


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """All that a build is a function of, and where its run folder lies."""

    target: Target
    profile: DeviceProfile
    device: DeviceSpec
    output: Path

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


def kept_result(inputs: BuildInputs) -> BuildResult | None:
    """The result of an equal build that ended with PASS or FAIL; None when there is work to do."""
    path = inputs.folder / SUMMARY
    if not path.is_file() or changes_since(read_inputs(inputs.folder), inputs.identity()):
        return None
    result = from_json(BuildResult, path.read_bytes())
    return result if result.verdict in {Verdict.PASS, Verdict.FAIL} else None


def forget_undecided(folder: Path) -> None:
    """Drop measurements that ended INCONCLUSIVE or INVALID, so that building again measures again."""
    path = folder / SUMMARY
    if not path.is_file():
        return
    for candidate in from_json(BuildResult, path.read_bytes()).candidates:
        judgement = candidate.judgement
        if judgement is not None and judgement.verdict in {Verdict.INVALID, Verdict.INCONCLUSIVE}:
            shutil.rmtree(folder / step_name("measure", candidate.rung.name), ignore_errors=True)


def explain_changes(inputs: BuildInputs) -> tuple[str, ...]:
    """What differs from the last finished build of the same target, profile and device; empty when nothing does."""
    if not (inputs.folder / SUMMARY).is_file():
        return ("no finished build in " + str(inputs.folder),)
    return changes_since(read_inputs(inputs.folder), inputs.identity())


def write_outcome(root: Path, result: BuildResult, evidence: Evidence | None) -> None:
    """Evidence, artifact, report and, last, the summary."""
    from edgeprune.reporting.html import render_html

    if evidence is not None:
        write_evidence(root / EVIDENCE, evidence)
    if result.chosen is not None:
        _publish_artifact(root, result.chosen)
    write_atomically(root / REPORT, render_html(result).encode())
    write_atomically(root / SUMMARY, to_json(result, indent=1))


def _publish_artifact(root: Path, chosen: Candidate) -> None:
    """`artifact/` is what ships: the chosen candidate's files and manifest, appearing by one rename."""
    source = root / step_name("compile", chosen.rung.name)
    partial = root / ".partial" / "artifact"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns("record.json", "step.json"))
    final = root / "artifact"
    if final.exists():
        stale = root / ".partial" / "stale-artifact"
        shutil.rmtree(stale, ignore_errors=True)
        final.rename(stale)
    partial.rename(final)
