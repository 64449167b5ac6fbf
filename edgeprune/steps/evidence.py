"""`evidence.zip` of a run: put together when a build ends, read and held against itself when somebody asks.

Light on purpose: no model, no runtime and no network is needed to judge again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeprune.benchmarking.validity import disturbance
from edgeprune.errors import BuildError, InputError
from edgeprune.files import write_atomically
from edgeprune.gating.archive import read_bytes
from edgeprune.gating.evidence import (
    SCHEMA,
    DenseModel,
    EvidenceBundle,
    Origin,
    pack_evidence,
    unpack_evidence,
)
from edgeprune.gating.judge import judge
from edgeprune.records.codec import from_json
from edgeprune.records.result import BuildResult
from edgeprune.records.verdict import Evidence, Judgement
from edgeprune.schema.profile import DeviceProfile
from edgeprune.schema.target import TargetSpec
from edgeprune.steps.budget import floors_from, floors_of_schema_1, limits_to_judge
from edgeprune.steps.model_card import card_of
from edgeprune.store.artifacts import MANIFEST, Manifest
from edgeprune.store.run_folder import step_name

EVIDENCE = "evidence.zip"
REPORT = "report.html"
EVENTS = "events.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvidence:
    """An `evidence.zip` that is whole.

    Attributes:
        content: the file's bytes, which a signature is over.
    """

    path: Path
    content: bytes
    bundle: EvidenceBundle

    @property
    def title(self) -> str:
        """What was judged, for people: `digits on pi-1: tflite-int8-t1`."""
        origin = self.bundle.origin
        return f"{origin.target} on {origin.device}: {self.manifest.rung.name}"

    @property
    def manifest(self) -> Manifest:
        """Of the artifact that was judged."""
        return from_json(Manifest, self.bundle.manifest)

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """(name, value) pairs to show beside a judgement."""
        bundle, artifact = self.bundle, self.manifest.artifact
        measured = bundle.evidence.measurement
        device = f"{bundle.origin.device} ({measured.device.cpu_model})" if measured else bundle.origin.device
        runs = f"{len(measured.samples_ns)} in {len(measured.blocks)} processes" if measured else "none"
        return (
            ("target", bundle.origin.target),
            ("model", f"{self.manifest.rung.name}, sha256 {artifact.digest[:12]}"),
            ("device", device),
            ("profile", bundle.profile.name),
            ("runs", runs),
        )


def write_evidence(
    root: Path, result: BuildResult, evidence: Evidence, profile: DeviceProfile, spec: TargetSpec
) -> None:
    """Write `evidence.zip` into a run folder, whole or not at all."""
    judged = next(c for c in result.candidates if c.measurement == evidence.measurement and c.judgement is not None)
    dense = result.dense
    if dense.artifact is None or dense.validation is None:
        raise BuildError("the dense model has no artifact or no accuracy")
    origin = Origin(
        schema=SCHEMA,
        target=result.target,
        device=result.device,
        seed=result.seed,
        versions=result.versions,
        floors=spec.accuracy,
        dense=DenseModel(
            rung=dense.rung,
            artifact_digest=dense.artifact.digest,
            parameters=dense.parameters,
            macs=dense.macs,
            validation=dense.validation,
            test=dense.test,
        ),
        parity=judged.parity,
        test=judged.test,
    )
    bundle = EvidenceBundle(
        evidence=evidence,
        judgement=judge(evidence),
        origin=origin,
        profile=profile,
        manifest=(root / step_name("compile", judged.rung.name) / MANIFEST).read_bytes(),
        card=card_of(result, judged, spec),
    )
    write_atomically(root / EVIDENCE, pack_evidence(bundle))


def read_evidence(run: Path) -> StoredEvidence:
    """Read the evidence of a run folder, or an `evidence.zip`, and hold its parts against one another.

    Raises:
        InputError: none there, a byte was changed, or its parts are not of one build.
    """
    path = run / EVIDENCE if run.is_dir() else run
    if not path.is_file():
        raise InputError(_why_missing(path))
    content = read_bytes(path)
    bundle = unpack_evidence(content, where=str(path))
    contradictions = tuple(contradictions_of(bundle))
    if contradictions:
        raise InputError(f"{path}: its parts are not of one build: {contradictions[0]}", path=str(path))
    return StoredEvidence(path=path, content=content, bundle=bundle)


def _why_missing(path: Path) -> str:
    """A build may have ended without a candidate to judge, or not have ended."""
    folder = path.parent
    if path.name != EVIDENCE or not (folder / EVENTS).is_file():
        return f"{path}: no such file; expected a run folder with {EVIDENCE}, as `edgeprune build` leaves it"
    if (folder / REPORT).is_file():
        why = f"(no plan fits the budget, or none could be made): see {folder / REPORT}"
        return f"{folder}: the last build here ended without a judged candidate {why}"
    return f"{folder}: the last build here did not come to its end; give the same `edgeprune build` again"


def contradictions_of(bundle: EvidenceBundle) -> Iterator[str]:
    """What does not follow from what it must follow from: limits from the profile, floors from the dense model..."""
    evidence, origin = bundle.evidence, bundle.origin
    try:
        manifest = from_json(Manifest, bundle.manifest)
    except BuildError as error:
        yield f"{MANIFEST}: {error.message}"
        return
    if (evidence.limits, evidence.speedups) != limits_to_judge(bundle.profile.budget):
        yield "the limits are not those of the profile's budget"
    follow = floors_of_schema_1 if origin.schema == 1 else floors_from
    if evidence.floors != follow(origin.floors, origin.dense.validation):
        yield "the accuracy floors do not follow from the target's and the dense model's accuracy"
    size = manifest.artifact.size_bytes
    if evidence.artifact_bytes != size:
        yield f"the size is {evidence.artifact_bytes} bytes, and the manifest's files are {size}"
    if bundle.card is not None and bundle.card.final.artifact != manifest.artifact:
        yield "the model card is not that of the artifact"
    if evidence.release is not None:
        yield "a release to compare with is given when judging, and never stored"
    yield from _foreign_measurements(bundle, manifest)


def _foreign_measurements(bundle: EvidenceBundle, manifest: Manifest) -> Iterator[str]:
    """What was measured, and is not the artifact or the dense model; and disturbed blocks that are counted."""
    evidence, origin = bundle.evidence, bundle.origin
    expected = ((evidence.measurement, manifest.artifact.digest, manifest.rung, "artifact"),)
    dense = ((evidence.baseline, origin.dense.artifact_digest, origin.dense.rung, "dense model"),)
    for measurement, artifact_digest, rung, name in (*expected, *dense):
        if measurement is None:
            continue
        if measurement.artifact_digest != artifact_digest:
            yield f"what was measured is not the {name}"
        if (measurement.runtime, measurement.precision, measurement.threads, measurement.cpus) != (
            rung.runtime, rung.precision, rung.threads, rung.cpus,
        ) or (rung.cpus and any(block.cpus != rung.cpus for block in measurement.blocks)):  # fmt: skip
            yield f"the {name} was not measured as {rung.name}"
        reasons = (disturbance(block) for block in measurement.blocks)
        yield from (f"a disturbed block of the {name} is counted: {r}" for r in reasons if r is not None)


def differs_from_stored(bundle: EvidenceBundle) -> str | None:
    """How the judgement that stands in the file differs from one made now; None where it does not."""
    stored, now = bundle.judgement, judge(bundle.evidence)
    if stored == now:
        return None
    lines = [
        f"{name}: {before} is stored, {after} follows from the samples"
        for name, before, after in _changed_gates(stored, now)
    ]
    return "; ".join(lines) or f"{stored.verdict} is stored, {now.verdict} follows from the samples"


def _changed_gates(stored: Judgement, now: Judgement) -> Iterator[tuple[str, str, str]]:
    before = {g.gate: g for g in stored.gates}
    after = {g.gate: g for g in now.gates}
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            shown = [
                "nothing" if g is None else f"{g.verdict} (measured {g.measured}, bound {g.bound}, limit {g.limit})"
                for g in (old, new)
            ]
            yield name, shown[0], shown[1]
