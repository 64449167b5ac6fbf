"""`evidence.json`: all that a judgement rests on, so that it can be judged again without the device."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import BuildError, InputError
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.verdict import Evidence
from edgeprune.schema.base import read_text

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFile:
    """What stands in the file.

    Attributes:
        schema: version of the format.
        sha256: over the evidence as compact JSON: a number that was changed by hand or by a bad disk is noticed. It
            is no signature: who wants to forge can compute it too.
    """

    schema: int
    sha256: str
    evidence: Evidence


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write the file, by atomic rename: a reader sees the old one, the new one, never half of one."""
    content = to_json(EvidenceFile(schema=SCHEMA, sha256=_digest(evidence), evidence=evidence), indent=1)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_evidence(path: Path) -> Evidence:
    """Read the file.

    Raises:
        InputError: missing, cut short, edited, or of another version; the message names the file.
    """
    text = read_text(path)
    try:
        content = from_json(EvidenceFile, text)
    except BuildError as error:
        raise InputError(
            f"{path}: expected evidence as edgeprune writes it, the file is damaged: {error.message}",
            path=str(path),
        ) from error
    if content.schema != SCHEMA:
        raise InputError(f"{path}: schema: expected {SCHEMA}, got {content.schema}", path=str(path))
    if content.sha256 != _digest(content.evidence):
        raise InputError(
            f"{path}: sha256: the evidence was changed after it was written; measure again", path=str(path)
        )
    return content.evidence


def _digest(evidence: Evidence) -> str:
    return hashlib.sha256(to_json(evidence)).hexdigest()
