"""One training: all that a process needs to run it, here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from edgeprune.data.parts import Tensors
from edgeprune.protocols import Validate
from edgeprune.recovery.settings import Checkpoint, FitSettings


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A training to do.

    Attributes:
        model: changed in place.
        inputs: [examples, ...], preprocessed.
        labels: [examples, ...], or a tuple of such.
        stage: name for the events.
        subject: what is trained, for the events.
        validate: chooses the best epoch; None keeps the last one.
        may_keep_start: whether the weights before the first epoch can be the best.
        after_step: called after each step of the optimizer.
        soft_labels: the teacher's outputs for all examples, where they are the same in every epoch.
    """

    model: nn.Module
    inputs: Tensor
    labels: Tensors
    settings: FitSettings
    stage: str
    subject: str
    validate: Validate | None
    after_step: Callable[[], None] | None
    checkpoint: Checkpoint | None
    soft_labels: Tensor | None = None
    may_keep_start: bool = False

    @property
    def batches_per_epoch(self) -> int:
        """Steps of the optimizer an epoch."""
        return batches_per_epoch(len(self.inputs), self.settings.batch_size)


def batches_per_epoch(examples: int, batch_size: int) -> int:
    """A last batch of one example is left out: batch norm cannot learn from it."""
    whole, rest = divmod(examples, batch_size)
    return whole + (1 if rest > 1 or whole == 0 else 0)
