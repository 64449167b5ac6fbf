"""Accuracy and parity of an artifact, and whether the device agrees with the host that took them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.data.splits import Split
from edgeprune.errors import BuildError
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Artifact, Parity
from edgeprune.records.rung import Precision, Rung
from edgeprune.steps.answers import answers_to_keep, save_answers
from edgeprune.steps.evaluating import agreement_of, noise_of, parity_of, torch_outputs
from edgeprune.steps.guarding import with_robustness
from edgeprune.steps.session import DeviceSession
from edgeprune.steps.task import standard_error
from edgeprune.steps.workbench import Workbench

if TYPE_CHECKING:
    from torch import nn

LEAST_AGREEMENT = 0.95
"""Share of the frozen samples with the same arg max on device and host; integer kernels may differ on a near tie."""

MOST_NOISE = 0.05
"""Where outputs are no class scores: how far they may differ, as a share of what they vary by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a compiled artifact gets right on the validation split, and how it agrees with torch there.

    Attributes:
        error: standard error of what the metric differs by from the torch model's, example by example.
    """

    accuracy: Accuracy
    parity: Parity
    error: float


@dataclass(frozen=True)
class Assessor:
    """Runs artifacts on the build's data."""

    bench: Workbench

    def evaluate(self, rung: Rung, model: nn.Module, artifact: Artifact, folder: Path, kept: Path) -> Evaluation:
        """Accuracy on the validation split, its slices and its corrupted images, and parity with the torch model.

        The artifact is in `folder`; each example's answer is written to `kept`, for the report.
        """
        inputs, evaluator, split = self.bench.validation_inputs, self.evaluator(rung), self.bench.data.validation
        place = evaluator.place(folder, artifact)
        outputs = evaluator.infer(rung, place, inputs)
        reference = torch_outputs(model, inputs)
        task = self.bench.task
        accuracy = task.accuracy_of(outputs, split, "validation")
        accuracy = with_robustness(
            accuracy, task, split, self.bench.target, lambda worse: evaluator.infer(rung, place, worse)
        )
        save_answers(kept, answers_to_keep(task, outputs, split))
        parity = parity_of(outputs, reference, rung.precision, classifies=task.classifies)
        values, floating = (task.values(found, split.labels) for found in (outputs, reference))
        return Evaluation(accuracy=accuracy, parity=parity, error=standard_error(values - floating))

    def evaluator(self, rung: Rung) -> DeviceSession:
        """Where accuracy is taken: on this host; for bf16 and fp16, whose kernels it may lack, on the device."""
        return self.bench.device if rung.precision in {Precision.BF16, Precision.FP16} else self.bench.host

    def agree_there(self, rung: Rung, artifact: Artifact, folder: Path) -> None:
        """See that the device computes what this host computed when it took the accuracy.

        Raises:
            BuildError: it does not; the accuracy would be that of another model.
        """
        if self.bench.device_spec.connection == self.bench.host.spec.connection:
            return
        samples = self.bench.frozen_samples
        here, there = (s.infer(rung, s.place(folder, artifact), samples) for s in (self.bench.host, self.bench.device))
        if self.bench.task.classifies:
            agreement = agreement_of(there, here)
            alike = agreement >= LEAST_AGREEMENT
            found = f"agree on {agreement:.0%} of {len(samples)} samples, expected at least {LEAST_AGREEMENT:.0%}"
        else:
            noise = noise_of(there, here)
            alike = noise <= MOST_NOISE
            found = f"differ by {noise:.1%} of what the outputs vary by, expected at most {MOST_NOISE:.0%}"
        if not alike:
            raise BuildError(
                f"{rung.name}: device {self.bench.device_spec.name} and this host {found}; "
                "is its runtime of another version?"
            )

    def accuracy(self, rung: Rung, artifact: Artifact, folder: Path, split: Split, name: str) -> Accuracy:
        """Accuracy on any split; on the test split only when nothing is chosen any more."""
        evaluator = self.evaluator(rung)
        outputs = evaluator.infer(rung, evaluator.place(folder, artifact), self.bench.prepared(split))
        return self.bench.task.accuracy_of(outputs, split, name)
