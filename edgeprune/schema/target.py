"""`targets/<name>/target.toml`: what to build: model, data, training, accuracy floors, profiles."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edgeprune.schema.base import Factory, FileModel
from edgeprune.schema.compression import Pruning, Quantization
from edgeprune.schema.floors import AccuracyFloors
from edgeprune.schema.profile import Name, Positive
from edgeprune.schema.training import Recovery, Training

FeaturePair = Annotated[str, Field(pattern=r"^[^:\s]+(:[^:\s]+)?$")]


class ModelSection(FileModel):
    """The model and its weights."""

    factory: Factory
    """`file.py:function` beside this file; called without arguments, returns a `torch.nn.Module`."""
    weights: str | None = None
    """A `.safetensors` file, or a `.pt` that loads with `weights_only=True`; relative to this file,
    `$NAME` is expanded. Absent: the model is trained with the recipe below."""


class TeacherSection(ModelSection):
    """Another model that the target's own learns from, such as a larger one; it is never shipped or cut."""

    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of its soft labels in the loss, while the dense model is trained."""
    temperature: Positive = 4.0
    """Of the soft labels."""
    features: tuple[FeaturePair, ...] = ()
    """Layers whose outputs are compared as well: `layer`, or `layer:layer of the teacher` where names differ."""
    feature_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of each layer's mean square difference, as a share of the teacher's mean square, beside the rest of the loss."""


class DataSection(FileModel):
    """The data factory and how its arrays become the model's input."""

    factory: Factory
    """`file.py:function` beside this file; called with `seed=`, returns an `edgeprune.DataSplits`."""
    files: tuple[str, ...] = ()
    """Files that the factory reads, for the identity of the data; relative to this file, `$NAME` is expanded."""
    help: str = ""
    """Shown when a file or variable is missing: how to get the data."""


class Preprocessing(FileModel):
    """What stands between a raw example and the model's input. It ships in the artifact's manifest.

    The input is `(raw * scale - mean) / std`, channels first; or the raw integers, where `dtype` says so.
    """

    dtype: Literal["float32", "int32", "int64"] = "float32"
    """Of the model's input. Integers, such as token ids, reach the model as they are."""
    layout: Literal["NHWC", "NCHW", "any"] = "any"
    """Of the raw arrays. `NHWC` is transposed to `NCHW`; `any` is left as it is."""
    scale: Positive = 1.0
    """Raw values are multiplied by this, such as 1/255."""
    mean: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0,)
    """One value, or one a channel."""
    std: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """One value, or one a channel."""

    @model_validator(mode="after")
    def _integers_are_left_alone(self) -> Self:
        changed = self.layout != "any" or (self.scale, self.mean, self.std) != (1.0, (0.0,), (1.0,))
        if self.dtype != "float32" and changed:
            raise ValueError(f"no layout, scale, mean or std beside dtype {self.dtype}: integers are left as they are")
        return self


class TaskSection(FileModel):
    """What the model's outputs are judged by. Absent: one class an example, judged by accuracy."""

    metric: Annotated[str, Field(pattern=r"^([a-z_0-9]+|[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*)$")] = "accuracy"
    """A file of `edgeprune/data/metrics`, or `file.py:function` of (outputs, labels), numpy arrays or tuples of such,
    that returns one number an example. Their mean is what is judged."""
    higher_is_better: bool | None = None
    """Of a metric of your own, for which it must be said; a named metric knows it."""

    @model_validator(mode="after")
    def _direction_is_said_once(self) -> Self:
        own = ".py:" in self.metric
        if own and self.higher_is_better is None:
            raise ValueError(f"higher_is_better = true or false, for {self.metric} does not tell")
        if not own and self.higher_is_better is not None:
            raise ValueError(f"no higher_is_better: the metric {self.metric!r} knows it")
        return self


class TargetSpec(FileModel):
    """What to build."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this file's format."""
    name: Name
    """Equal to the folder's name."""
    description: str = ""
    """One line for people."""
    profiles: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names or paths of the profiles that it ships to, paths relative to this file; the first one is the default."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of initial weights, order of the batches, augmentation, and what is drawn for calibration."""
    model: ModelSection
    teacher: TeacherSection | None = None
    data: DataSection
    preprocessing: Preprocessing = Preprocessing()
    task: TaskSection = TaskSection()
    training: Training = Training()
    recovery: Recovery = Recovery()
    pruning: Pruning = Pruning()
    quantization: Quantization = Quantization()
    accuracy: AccuracyFloors = AccuracyFloors()

    @model_validator(mode="after")
    def _teacher_teaches(self) -> Self:
        if self.recovery.teacher == "teacher" and self.teacher is None:
            raise ValueError('a section [teacher] beside recovery.teacher = "teacher"')
        trained = self.model.weights is None and self.training.epochs > 0
        if self.teacher is not None and not trained and self.recovery.teacher != "teacher":
            raise ValueError(
                'no section [teacher], or recovery.teacher = "teacher": the dense model is not trained here'
            )
        return self

    @model_validator(mode="after")
    def _can_rewind(self) -> Self:
        if self.recovery.rewind == "weights":
            if self.model.weights is not None or self.training.epochs == 0:
                raise ValueError('recovery.rewind "weights" only where the dense model is trained here')
            if self.pruning.refits_channels or self.pruning.refits_weights:
                raise ValueError("pruning.reconstruct (which obc implies) or recovery.rewind of the weights, not both")
        if self.recovery.rewind != "none" and self.recovery.epochs is None and self.training.epochs == 0:
            raise ValueError("recovery.epochs beside recovery.rewind: training.epochs is 0, and nothing of it is left")
        return self
