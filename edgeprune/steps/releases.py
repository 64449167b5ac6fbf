"""From a run that passed to a release: what ships, beside the evidence that it may."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import InputError
from edgeprune.gating.judge import judge
from edgeprune.gating.signing import SUFFIX
from edgeprune.records.verdict import Verdict
from edgeprune.statistics import quantile
from edgeprune.steps.evidence import EVIDENCE, StoredEvidence, read_evidence
from edgeprune.steps.model_card import write_card
from edgeprune.store.artifacts import read_manifest
from edgeprune.store.releases import CURRENT, ReleaseEntry, ReleaseFolder
from edgeprune.units import ms_from_ns

ARTIFACT = "artifact"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSummary:
    """A release, for people and programs to look at.

    Attributes:
        before: what a rollback goes back to, where it is current.
        model: name of the rung.
        p50_ms, p99_ms: nearest rank over the raw samples of its campaign.
    """

    name: str
    current: bool
    before: str | None
    folder: str
    target: str
    profile: str
    device: str
    model: str
    p50_ms: float
    p99_ms: float
    artifact_digest: str


def promote(run: Path, name: str, folder: Path) -> ReleaseSummary:
    """Make a release of a run that passed, and make it current.

    Raises:
        InputError: the run did not pass, its artifact is not the one that was measured, or the name is taken.
    """
    stored = read_evidence(run)
    root = stored.path.parent
    verdict = judge(stored.bundle.evidence).verdict
    if verdict is not Verdict.PASS:
        raise InputError(f"{run}: the verdict is {verdict}; only a run that passed becomes a release", verdict=verdict)
    found = read_manifest(root / ARTIFACT)
    if (root / ARTIFACT / "manifest.json").read_bytes() != stored.bundle.manifest:
        raise InputError(f"{root / ARTIFACT}: is not the artifact that {stored.path} is the evidence of")

    def fill(release: Path) -> None:
        (release / ARTIFACT).mkdir()
        # Only what the manifest names: nothing that somebody left beside it ships.
        for file in ("manifest.json", *(f.name for f in found.artifact.files)):
            shutil.copyfile(root / ARTIFACT / file, release / ARTIFACT / file)
        if stored.bundle.card is not None:
            # From the evidence, not from the folder: this one cannot have been changed.
            write_card(release / ARTIFACT, stored.bundle.card)
        (release / EVIDENCE).write_bytes(stored.content)
        signature = stored.path.with_name(stored.path.name + SUFFIX)
        if signature.is_file():
            shutil.copyfile(signature, release / signature.name)
        if read_manifest(release / ARTIFACT) != found:
            raise InputError(f"{root / ARTIFACT}: changed while it was copied")

    def is_same(release: Path) -> bool:
        return (release / EVIDENCE).is_file() and (release / EVIDENCE).read_bytes() == stored.content

    return _summary(ReleaseFolder(folder).promote(name, fill, is_same))


def rollback(folder: Path) -> ReleaseSummary:
    """Make the release before the current one current."""
    return _summary(ReleaseFolder(folder).rollback())


def list_releases(folder: Path) -> tuple[ReleaseSummary, ...]:
    """Every release of a folder, each with its evidence checked."""
    return tuple(_summary(entry) for entry in ReleaseFolder(folder).releases())


def find_release(name_or_path: str, folder: Path) -> tuple[str, Path]:
    """Name and place of a release's evidence: a release's name, `current`, or a path to a run or an evidence file.

    Raises:
        InputError: there is no such release.
    """
    path = Path(name_or_path)
    if path.name != name_or_path or path.suffix == ".zip":
        return name_or_path, path
    entry = ReleaseFolder(folder).find(name_or_path)
    name = f"{entry.name} ({CURRENT})" if name_or_path == CURRENT else entry.name
    return name, entry.folder


def _summary(entry: ReleaseEntry) -> ReleaseSummary:
    stored: StoredEvidence = read_evidence(entry.folder)
    manifest, origin = stored.manifest, stored.bundle.origin
    measurement = stored.bundle.evidence.measurement
    if measurement is None:
        raise InputError(f"{entry.folder}: its evidence has no measurement")
    p50_ms, p99_ms = (ms_from_ns(quantile(measurement.samples_ns, q)) for q in (0.5, 0.99))
    return ReleaseSummary(
        name=entry.name,
        current=entry.current,
        before=entry.before,
        folder=str(entry.folder),
        target=origin.target,
        profile=stored.bundle.profile.name,
        device=origin.device,
        model=manifest.rung.name,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        artifact_digest=manifest.artifact.digest,
    )
