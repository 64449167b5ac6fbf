"""Judging a run again from what it stored, against its budget and against a release; checking and signing evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.cpu_list import format_cpus
from edgeprune.errors import InputError
from edgeprune.files import write_atomically
from edgeprune.gating.judge import judge
from edgeprune.gating.signing import SUFFIX, Signer, check_signature, sign
from edgeprune.records.measurement import DeviceFacts, Measurement
from edgeprune.records.verdict import Judgement, Release, Verdict
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.calibrations import smallest_resolvable
from edgeprune.steps.evidence import StoredEvidence, differs_from_stored, read_evidence
from edgeprune.steps.inputs import code_digest

_PERCENTS = (50.0, 99.0)
"""Those that are held against a release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A release to hold a run against.

    Attributes:
        name: of the release.
        folder: the release's, with its evidence; or an `evidence.zip`.
        max_regression: as a share, in [0, 1).
    """

    name: str
    folder: Path
    max_regression: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Evidence that is intact, and what it says.

    Attributes:
        judgement: made anew from the raw samples; equal to the stored one.
        signer: who signed it; None where there is no signature.
        facts: what was judged: (name, value).
    """

    judgement: Judgement
    signer: Signer | None
    facts: tuple[tuple[str, str], ...]
    schema: int = 1

    @property
    def verdict(self) -> Verdict:
        """Of the judgement."""
        return self.judgement.verdict


def gate_run(
    run: Path, *, junit: Path | None, markdown: Path | None, comparison: Comparison | None = None
) -> Judgement:
    """Read the evidence, judge it, and write what was asked for.

    Raises:
        InputError: no evidence there, it was changed after it was written, or the release cannot be compared with.
    """
    stored = read_evidence(run)
    evidence, facts = stored.bundle.evidence, stored.facts
    if comparison is not None:
        release = read_evidence(comparison.folder)
        evidence = replace(evidence, release=_comparable(stored, release, comparison))
        facts = (*facts, ("compared with", f"release {comparison.name}, {release.manifest.rung.name}"))
    judgement = judge(evidence)
    if junit is not None:
        from edgeprune.reporting.junit import render_junit

        origin = stored.bundle.origin
        suite = f"edgeprune {origin.target}-{stored.bundle.profile.name}-{origin.device}"
        write_atomically(junit, render_junit(judgement, suite=suite).encode())
    if markdown is not None:
        from edgeprune.reporting.markdown import render_markdown

        write_atomically(markdown, render_markdown(judgement, title=stored.title, facts=facts).encode())
    return judgement


def verify(path: Path, allowed_signers: Path | None) -> Verified:
    """Check every byte, every part against the others, the signature, and the verdict against the raw samples.

    Raises:
        InputError: something is not as it was written; or no allowed signer signed it where one was asked for.
    """
    stored = read_evidence(path)
    different = differs_from_stored(stored.bundle)
    if different is not None:
        raise InputError(
            f"{stored.path}: the stored judgement is not the one that its samples give: {different} (judged by "
            f"edgeprune code {dict(stored.bundle.origin.versions).get('edgeprune code')}, this is {code_digest()})",
            path=str(stored.path),
        )
    signature = _signature_path(stored)
    signer = None
    if allowed_signers is not None or signature.exists():
        signer = check_signature(stored.content, signature, allowed_signers)
    return Verified(judgement=judge(stored.bundle.evidence), signer=signer, facts=stored.facts)


def sign_evidence(path: Path, key: Path) -> tuple[Path, Signer]:
    """Sign evidence that is intact; returns the signature's file and its signer.

    Raises:
        InputError: the evidence is not intact, or the key cannot sign.
    """
    stored = read_evidence(path)
    target = _signature_path(stored)
    write_atomically(target, sign(stored.content, key))
    return target, check_signature(stored.content, target, None)


def _signature_path(stored: StoredEvidence) -> Path:
    return stored.path.with_name(stored.path.name + SUFFIX)


def _comparable(run: StoredEvidence, release: StoredEvidence, comparison: Comparison) -> Release:
    """The release as the gate takes it.

    Raises:
        InputError: the two were not measured on the same device, for the same profile, beside the same dense model;
            or the margin is finer than what the device was calibrated to resolve.
    """
    ours, theirs = run.bundle.evidence, release.bundle.evidence
    measured = [m for m in (ours.measurement, ours.baseline, theirs.measurement, theirs.baseline) if m is not None]
    if len(measured) < 4 or theirs.measurement is None or theirs.baseline is None:  # noqa: PLR2004 - two campaigns
        raise InputError(
            f"release {comparison.name}: cannot compare: both campaigns must have measured the dense model in turn",
            release=comparison.name,
        )
    differences = (
        *_profile_differences(run.bundle.profile, release.bundle.profile),
        *_device_differences(measured[0].device, theirs.measurement.device),
        *_dense_differences(run, release, measured[1], theirs.baseline),
    )
    if differences:
        raise InputError(
            f"release {comparison.name}: cannot compare with {run.path}: {'; '.join(differences)}",
            release=comparison.name,
            differences=list(differences),
        )
    return Release(
        name=comparison.name,
        measurement=theirs.measurement,
        baseline=theirs.baseline,
        max_regression=comparison.max_regression,
        remark=_resolvable(run.bundle.origin.device, measured[0], comparison),
    )


def _resolvable(device: str, measurement: Measurement, comparison: Comparison) -> str:
    """What there is to remark on the margin; empty where the device is known to resolve it.

    Raises:
        InputError: it is known not to.
    """
    fingerprint, margin = measurement.device.fingerprint, comparison.max_regression
    place = {measurement.runtime}, {measurement.cpus}
    found = {p: smallest_resolvable(device, fingerprint, p, *place) for p in _PERCENTS}
    for percent, smallest in found.items():
        if smallest is not None and margin < smallest:
            raise InputError(
                f"max_regression: {margin:.2%} is finer than device {device} resolves: {smallest:.2%} at p{percent:g} "
                "by its calibration; allow more",
                max_regression=margin,
                smallest=smallest,
            )
    if None not in found.values():
        return ""
    return f"device {device} was not calibrated in this state: whether it resolves {margin:.2%} is not known"


def _profile_differences(ours: DeviceProfile, theirs: DeviceProfile) -> tuple[str, ...]:
    """In what says where and how the model runs. Budget and measurement say what it is held to and for how long."""
    return tuple(
        f"profile {name}: {getattr(theirs, name)} in the release, {getattr(ours, name)} here"
        for name in ("name", "hardware", "runtimes")
        if getattr(ours, name) != getattr(theirs, name)
    )


def _device_differences(ours: DeviceFacts, theirs: DeviceFacts) -> tuple[str, ...]:
    return tuple(
        f"device {name}: {_short(getattr(theirs, name))} in the release, {_short(getattr(ours, name))} here"
        for name in ours.differing(theirs)
    )


def _dense_differences(
    run: StoredEvidence, release: StoredEvidence, ours: Measurement, theirs: Measurement
) -> tuple[str, ...]:
    """Retrained weights are the same model to run; another shape, runtime, precision or placement is not."""
    here, there = run.bundle.origin.dense, release.bundle.origin.dense
    pairs = (
        ("runtime", ours.runtime, theirs.runtime),
        ("precision", ours.precision, theirs.precision),
        ("threads", ours.threads, theirs.threads),
        ("cores", _cores(ours), _cores(theirs)),
        ("parameters", here.parameters, there.parameters),
        ("multiply-accumulates", here.macs, there.macs),
    )
    return tuple(f"dense model's {n}: {then} in the release, {now} here" for n, now, then in pairs if now != then)


def _cores(measurement: Measurement) -> str:
    """Where it ran, whatever was asked for."""
    return " and ".join(sorted({format_cpus(block.cpus) for block in measurement.blocks}))


def _short(value: object, limit: int = 120) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
