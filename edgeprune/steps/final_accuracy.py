"""Accuracy when all choices are made: on the test split, and on training data to stand beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeprune.data.splits import DataSplits, Split
from edgeprune.errors import BuildError
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Artifact
from edgeprune.records.result import Candidate
from edgeprune.records.rung import Rung
from edgeprune.steps.assessing import Assessor
from edgeprune.steps.workbench import Workbench
from edgeprune.store.readings import ReadingLog
from edgeprune.store.run_folder import digest, step_name


@dataclass(frozen=True)
class FinalAccuracy:
    """Takes it, and keeps count of how often the test split is read."""

    bench: Workbench
    readings: ReadingLog

    def of(self, candidate: Candidate) -> Candidate:
        """The candidate with its accuracy on training examples and on the test split.

        Raises:
            BuildError: it has no artifact.
        """
        rung, artifact = candidate.rung, candidate.artifact
        if artifact is None:
            raise BuildError(f"{rung.name} has no artifact to test")
        train = self._taken("train", rung, rung.name, artifact)
        return replace(candidate, train=train, test=self.test(rung, rung.name, artifact))

    def test(self, rung: Rung, subject: str, artifact: Artifact) -> Accuracy:
        """On the test split, of an artifact that was compiled as `subject`."""
        self.bench.note(f"reading the test split for {subject}: all choices are made")
        return self._taken("test", rung, subject, artifact)

    def _taken(self, name: str, rung: Rung, subject: str, artifact: Artifact) -> Accuracy:
        bench = self.bench

        def take(_: Path) -> Accuracy:
            if name == "test":
                self.readings.note(subject, artifact.digest)
            split = bench.data.test if name == "test" else training_examples(bench.data, bench.target.spec.seed)
            folder = bench.run.path(step_name("compile", subject))
            return Assessor(bench).accuracy(rung, artifact, folder, split, name)

        key = digest(artifact.digest, bench.data_key, bench.host.facts.fingerprint)
        stage = "test" if name == "test" else "fit"
        return bench.step(stage, subject, key, Accuracy, take, lambda a: f"{name} {a.metric} {a.told}")


def training_examples(data: DataSplits, seed: int) -> Split:
    """Training examples, drawn by the seed: as many as there are for validation, which are enough to compare with."""
    count = min(len(data.train), len(data.validation))
    return data.train.taken(np.sort(np.random.default_rng(seed).permutation(len(data.train))[:count]))
