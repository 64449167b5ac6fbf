"""Sections of `target.toml`: how the dense model is trained, and how accuracy is won back after a cut."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from edgeprune.schema.base import Factory, FileModel, Share
from edgeprune.schema.profile import Positive

FeaturePair = Annotated[str, Field(pattern=r"^[^:\s]+(:[^:\s]+)?$")]


class Training(FileModel):
    """How the dense model is trained; recovery derives from it."""

    loss: Annotated[str, Field(pattern=r"^([a-z_]+|[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*)$")] = "cross_entropy"
    """`focal`, a loss of `torch.nn.functional` that takes outputs and labels alone, or `file.py:function` of both."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Of the focal loss: the larger, the less the examples count that the model is sure of."""
    class_weights: Literal["balanced"] | tuple[Positive, ...] = ()
    """Of `cross_entropy` and `focal`: one a class; `balanced` lets all classes of the training split count alike.
    Of masks each pixel counts, but those of -100."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """For the dense model and for recovery."""
    learning_rate: Positive = 0.1
    """Peak of the schedule."""
    schedule: Literal["cosine", "linear", "constant", "steps"] = "cosine"
    """Of the learning rate, after a rise over the first twentieth of the steps; recovery has it in each round."""
    milestones: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.5, 0.75)
    """For the schedule `steps`: shares of the training at which the rate falls."""
    decay: Share = 0.1
    """For the schedule `steps`: what the rate is multiplied by at each milestone."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Of weights of two dimensions and more, not of biases and norms."""
    epochs: Annotated[int, Field(ge=0)] = 30
    """For the dense model, which is not trained where `model.weights` is given. A control from scratch has as many;
    so has each round of recovery that `recovery.rewind` takes back, less the share before `rewind_to`, unless
    `recovery.epochs` is given. So say how many the weights took."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Examples a training step, of all workers together; the artifact itself has a batch of 1."""
    clip_norm: Annotated[float, Field(ge=0)] = 5.0
    """The gradient's norm is cut to this; 0 for no limit."""
    patience_epochs: Annotated[int, Field(ge=1)] | None = None
    """A training, or a round of recovery, ends after so many epochs in a row that validate no better."""
    augment: Factory | None = None
    """`file.py:function` of (inputs, generator), on a preprocessed batch; returns the augmented batch."""

    @model_validator(mode="after")
    def _milestones_ascend(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones in ascending order, each once")
        return self


RECOVERY_EPOCHS: Final = 3
"""Over all rounds, where the target does not say and nothing is rewound."""


class Recovery(FileModel):
    """How accuracy is won back after each cut."""

    rounds: Annotated[int, Field(ge=1)] = 2
    """Cuts to the final width; the schedules `one_shot` and `steps` have their own number."""
    schedule: Literal["one_shot", "linear", "geometric", "cubic", "steps"] = "linear"
    """Of the pruning ratio over the rounds: all at once (in one round), in equal steps, the same fraction of what
    remains each time, most of it early (AGP, Zhu and Gupta 2017), or by `steps`."""
    steps: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[float, Field(gt=0, le=1)]], ...] = ()
    """For the schedule `steps`: (epoch of recovery, share of the rung's pruning ratio that is out from then on),
    ascending, to a share of 1. A step is a cut, then a recovery of its own until the next one, with the whole schedule
    of the learning rate; its weights that validate best are cut next. Nothing is out before the first step."""
    epochs: Annotated[int, Field(ge=0)] | None = None
    """Fine-tuning epochs over all rounds together; the last round gets what does not divide. By default 3; with
    `rewind`, and no `steps`, each round has what was left of the dense model's training at that step."""
    learning_rate: Positive | None = None
    """Peak in each round; by default a tenth of `training.learning_rate`, all of it with `rewind`."""
    rewind: Literal["none", "weights", "learning_rate"] = "none"
    """What each round goes back to after its cut (lottery tickets): nothing; the weights of an early step of the dense
    model's training, and its learning rate; or its learning rate alone. The rate's schedule goes on from that step
    (Renda et al. 2020)."""
    rewind_to: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """That early step, as a share of the dense model's training; 0 for its beginning."""
    teacher: Literal["dense", "teacher"] = "dense"
    """Who teaches: the dense model, or the one of `[teacher]`."""
    distillation_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the teacher's soft labels in the loss; without, 0.5 where each example has one class, else 0. They can
    be made where the loss is of logits: of classes, of each example or each pixel, or of yes and no
    (`binary_cross_entropy_with_logits`)."""
    temperature: Positive = 4.0
    """Of the soft labels."""
    features: tuple[FeaturePair, ...] = ()
    """Layers whose outputs are compared as well: `layer`, or `layer:layer of the teacher` where names differ. A
    residual block that holds one is never removed."""
    feature_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of each layer's mean square difference, as a share of the teacher's mean square, beside the rest of the loss."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.schedule == "steps") != bool(self.steps):
            raise ValueError('`steps` where `schedule` is "steps", and there alone')
        epochs, shares = [epoch for epoch, _ in self.steps], [share for _, share in self.steps]
        ascending = epochs == sorted(set(epochs)) and shares == sorted(set(shares))
        total = RECOVERY_EPOCHS if self.epochs is None else self.epochs
        if self.steps and not (ascending and shares[-1] == 1 and epochs[-1] <= total):
            raise ValueError(f"steps ascending, within {total} epochs, to a share of 1")
        if self.rewind != "none" and self.learning_rate is not None:
            raise ValueError("learning_rate or rewind, not both: rewinding takes that of the training")
        return self
