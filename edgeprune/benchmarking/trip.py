"""One file with many artifacts and what to do with each: the agent's `profile` takes it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.records.artifact import Artifact

JOBS = "jobs.json"
# A zip file's earliest time: the same artifacts give the same file, which is then sent once.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileJob:
    """An artifact to be timed.

    Attributes:
        folder: where its files are on this host.
        input_shape: with the batch of 1 in front.
        follows: whether it is loaded at the same time as the one before it, so that both run soon after one another.
    """

    folder: Path
    artifact: Artifact
    input_shape: tuple[int, ...]
    follows: bool = False


def write_trip(path: Path, jobs: Sequence[ProfileJob]) -> None:
    """Write the zip file; the agent numbers the artifacts in the order of the jobs."""
    listed = [
        {"file": f"{number}/{job.artifact.files[0].name}", "precision": job.artifact.precision.arithmetic.value}
        | {"shape": list(job.input_shape), "follows": job.follows}
        for number, job in enumerate(jobs)
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(JOBS, _TIMESTAMP), json.dumps(listed))
        for number, job in enumerate(jobs):
            for file in job.artifact.files:
                content = (job.folder / file.name).read_bytes()
                archive.writestr(zipfile.ZipInfo(f"{number}/{file.name}", _TIMESTAMP), content)
