"""`evidence.zip`: all that a judgement rests on, so that anyone can judge again without the device or the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from edgeprune.errors import BuildError, InputError
from edgeprune.gating.archive import pack, unpack
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Parity
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.model_card import ModelCard
from edgeprune.records.rung import Rung
from edgeprune.records.verdict import Evidence, Judgement
from edgeprune.schema.floors import AccuracyFloors
from edgeprune.schema.profile import DeviceProfile

SCHEMA = 3
READABLE = (1, 2, 3)
"""2: floors of each class, of slices and of the robustness set. 3: the latter two by the target's own metric, too.
Evidence of 1 is judged by what it has."""

EVIDENCE = "evidence.json"
JUDGEMENT = "judgement.json"
MANIFEST = "manifest.json"
ORIGIN = "origin.json"
PROFILE = "profile.json"
MEMBERS = (EVIDENCE, JUDGEMENT, MANIFEST, ORIGIN, PROFILE)
CARD = "model_card.json"
"""Of the artifact that was judged; evidence of schema 1 has none."""

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseModel:
    """The baseline that floors and ratios refer to.

    Attributes:
        parameters, macs: of the model: two builds have the same dense model to run where these are equal.
        test: accuracy on the test split, where it was read.
    """

    rung: Rung
    artifact_digest: str
    parameters: int | None
    macs: int | None
    validation: Accuracy
    test: Accuracy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What was judged, and what it was made and measured with.

    Attributes:
        schema: version of the archive's format.
        device: the enrolled name; the facts of the device are in each measurement.
        versions: (name, version) of every library that has a say, and of edgeprune's own code.
        floors: as the target says them; the absolute ones in the evidence follow from them and the dense accuracy.
        test: accuracy of the artifact on the test split, where it was read.
    """

    schema: int
    target: str
    device: str
    seed: int
    versions: tuple[tuple[str, str], ...]
    floors: AccuracyFloors
    dense: DenseModel
    parity: Parity | None
    test: Accuracy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBundle:
    """The members of `evidence.zip`.

    Attributes:
        evidence: limits, floors, raw samples, what shows that each block is valid, and the confusion matrix.
        judgement: what the gates said when it was written.
        manifest: `manifest.json` of the artifact that was judged, byte for byte.
        card: its model card; None in evidence of schema 1.
    """

    evidence: Evidence
    judgement: Judgement
    origin: Origin
    profile: DeviceProfile
    manifest: bytes
    card: ModelCard | None = None


def pack_evidence(bundle: EvidenceBundle) -> bytes:
    """The content of `evidence.zip`."""
    card = {} if bundle.card is None else {CARD: to_json(bundle.card, indent=1)}
    return pack(
        {
            **card,
            EVIDENCE: to_json(bundle.evidence),
            JUDGEMENT: to_json(bundle.judgement, indent=1),
            MANIFEST: bundle.manifest,
            ORIGIN: to_json(bundle.origin, indent=1),
            PROFILE: bundle.profile.model_dump_json(by_alias=True, indent=1).encode(),
        }
    )


def unpack_evidence(content: bytes, *, where: str) -> EvidenceBundle:
    """What stands in an `evidence.zip`.

    Raises:
        InputError: a byte was changed, a member is missing, added or doubled, or it is of another version.
    """
    members = unpack(content, where=where)
    missing, unknown = sorted(set(MEMBERS) - members.keys()), sorted(members.keys() - {*MEMBERS, CARD})
    if missing or unknown:
        parts = [f"no {name}" for name in missing] + [f"a foreign {name}" for name in unknown]
        raise InputError(f"{where}: expected evidence as edgeprune writes it, found {', '.join(parts)}", path=where)
    origin = _record(Origin, members, ORIGIN, where)
    if origin.schema not in READABLE:
        expected = f"one of {', '.join(map(str, READABLE))}"
        raise InputError(f"{where}: schema: expected {expected}, got {origin.schema}", path=where)
    return EvidenceBundle(
        evidence=_record(Evidence, members, EVIDENCE, where),
        judgement=_record(Judgement, members, JUDGEMENT, where),
        origin=origin,
        profile=_record(DeviceProfile, members, PROFILE, where),
        manifest=members[MANIFEST],
        card=_record(ModelCard, members, CARD, where) if CARD in members else None,
    )


def _record(kind: type[Record], members: dict[str, bytes], name: str, where: str) -> Record:
    try:
        return from_json(kind, members[name])
    except BuildError as error:
        raise InputError(f"{where}: {name}: {error.message}; made by another version?", path=where) from error
