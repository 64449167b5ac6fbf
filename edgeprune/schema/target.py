"""`targets/<name>/target.toml`: what to build: model, data, training, accuracy floors, profiles."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from edgeprune.schema.base import FileModel
from edgeprune.schema.profile import Name, Positive

Factory = Annotated[str, Field(pattern=r"^[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*$")]
Share = Annotated[float, Field(gt=0, lt=1)]
SliceName = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]
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


class Training(FileModel):
    """How the dense model is trained; recovery derives from it."""

    loss: Annotated[str, Field(pattern=r"^([a-z_]+|[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*)$")] = "cross_entropy"
    """`focal`, a loss of `torch.nn.functional` that takes outputs and labels alone, or `file.py:function` of both."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Of the focal loss: the larger, the less the examples count that the model is sure of."""
    class_weights: Literal["balanced"] | tuple[Positive, ...] = ()
    """Of `cross_entropy` and `focal`: one a class; `balanced` lets all classes of the training split count alike."""
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
    """For the dense model; not used when `model.weights` is given."""
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
    """Cuts to the final width."""
    schedule: Literal["one_shot", "linear", "geometric", "cubic", "steps"] = "linear"
    """Of the pruning ratio over the rounds: all at once (in one round), in equal steps, the same fraction of what
    remains each time, most of it early (AGP, Zhu and Gupta 2017), or by `steps`."""
    steps: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[float, Field(gt=0, le=1)]], ...] = ()
    """For the schedule `steps`: (epoch of recovery, share of the rung's pruning ratio that is out from then on),
    ascending, to a share of 1; the rounds follow from it."""
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
    distillation_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the teacher's soft labels in the loss. They are made where the loss is of logits: of classes, of each
    example or each pixel, or of yes and no (`binary_cross_entropy_with_logits`). Elsewhere it is 0."""
    temperature: Positive = 4.0
    """Of the soft labels."""
    features: tuple[FeaturePair, ...] = ()
    """Layers whose outputs are compared as well: `layer`, or `layer:layer of the teacher` where names differ."""
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


class Pruning(FileModel):
    """What may be cut, and in which steps."""

    criterion: str = "l2"
    """Which channels go first: a file of `edgeprune/pruning/criteria` that scores channels."""
    weight_criterion: str = "lamp"
    """Which single weights go first in mask rungs: a file of `edgeprune/pruning/criteria` that scores weights."""
    scoring_samples: Annotated[int, Field(ge=16)] = 1024
    """Examples that criteria and `reconstruct` look at, taken from the training split, at a fixed seed."""
    reconstruct: bool = False
    """Whether the weights that are left are refitted after each cut, so that layers give what they gave before."""
    ratios: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.25, 0.375, 0.5, 0.625, 0.75)
    """No group loses more than the largest of these shares; sensitivity is probed at the first, middle and last."""
    selection: Literal["planner", "uniform", "global", "sensitivity"] = "planner"
    """Who chooses the widths of structured rungs: the planner, by what each costs and loses; or, to compare, a rule, at
    the least share of channels that meets the limits and with all blocks: the same share of every group, the lowest
    scores of all groups, or what makes every group lose the same."""
    sparsities: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.5, 0.7, 0.9)
    """Shares of weights to zero, one unstructured rung each, where the device's kernels can use it."""
    mask_scope: Literal["global", "layer"] = "global"
    """Whether an unstructured mask rung ranks the weights of all layers together, or zeros the same share of each."""
    layer_sparsities: dict[str, Share] = Field(default_factory=dict)
    """Shares of zeros that single layers have in unstructured mask rungs, by name; `*` is a wildcard, and the first
    name that matches counts. The other layers have the rung's share."""
    classifier: bool = False
    """Whether masks may zero weights of the layers that make the model's output. Their channels are never cut."""
    ignored: tuple[str, ...] = ()
    """Layers that must keep their width and all their weights, by name; `*` is a wildcard."""
    embeddings: bool = False
    """Whether the features of embeddings may be cut, and with them the stream that all layers of a transformer read."""
    blocks: bool = True
    """Whether whole residual blocks and transformer layers may be removed."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.ratios) != sorted(set(self.ratios)):
            raise ValueError("ratios in ascending order, each once")
        if list(self.sparsities) != sorted(set(self.sparsities)):
            raise ValueError("sparsities in ascending order, each once")
        return self


Quantizer = Literal[
    "min_max",
    "percentile",
    "entropy",
    "squared_error",
    "bias_correction",
    "equalization",
    "smoothing",
    "mixed_precision",
    "weights8",
    "dynamic8",
    "weights4",
    "weights16",
    "qat",
]


FixedQuantizer = Literal[
    "min_max", "percentile", "entropy", "squared_error", "bias_correction", "equalization", "smoothing", "qat"
]
_RANGES = frozenset({"min_max", "percentile", "entropy", "squared_error"})


class Quantization(FileModel):
    """INT8, and what is tried where its default loses too much."""

    calibration_samples: Annotated[int, Field(ge=16)] = 256
    """Taken from the training split, at a fixed seed."""
    fixed: tuple[FixedQuantizer, ...] = ()
    """How INT8 artifacts are quantized, all of these together, in the place of each quantizer's default; at most one
    way to take ranges. Nothing else is tried then."""
    variants: tuple[Quantizer, ...] = (
        "min_max",
        "percentile",
        "entropy",
        "squared_error",
        "bias_correction",
        "equalization",
        "smoothing",
        "mixed_precision",
        "weights8",
        "dynamic8",
        "weights4",
        "weights16",
        "qat",
    )
    """What is tried where the default INT8 artifact misses an accuracy floor or drops too far; empty for nothing."""
    tolerated_drop_points: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Percentage points under its float model that the default INT8 artifact may lose before others are tried."""
    tolerated_worsening: Annotated[float, Field(ge=0)] | None = None
    """The same for a metric that is no share, in its own unit; by default a quarter of what lies between the float
    model and the floor that `[accuracy]` sets."""
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    """Percent of an activation's values that its range holds, for the variant of that name."""
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Alpha of SmoothQuant: how much of what is hard to quantize moves from activations into weights."""
    max_float_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Of the layers with weights: so many stay in float32, at most, in mixed precision."""
    qat_epochs: Annotated[int, Field(ge=1)] = 2
    """Of training with INT8 rounding in the forward pass, for the variant `qat` and for `order`."""
    qat_learning_rate: Positive | None = None
    """Peak; by default a tenth of the recovery's."""
    order: Literal["prune_first", "quantize_first"] = "prune_first"
    """`quantize_first`, for comparison: for INT8 rungs rounding is trained before the first cut, and goes on during
    recovery."""

    @model_validator(mode="after")
    def _fixed_is_one_way(self) -> Self:
        if len(set(self.fixed)) < len(self.fixed) or len(_RANGES.intersection(self.fixed)) > 1:
            raise ValueError(f"fixed with each word once, and at most one of {', '.join(sorted(_RANGES))}")
        if self.fixed and "variants" in self.model_fields_set:
            raise ValueError("fixed or variants, not both: with fixed nothing else is tried")
        return self


class PartFloor(FileModel):
    """What must be kept on a part of the data."""

    max_drop_points: Annotated[float, Field(ge=0, le=100)] | None = None
    """Percentage points of accuracy under the dense model on the same examples, at most."""
    min_accuracy: Share | None = None
    """Accuracy, at least, in [0, 1]."""

    @property
    def is_set(self) -> bool:
        """Whether anything must be kept."""
        return self.max_drop_points is not None or self.min_accuracy is not None


class SliceFloor(PartFloor):
    """What must be kept on a slice that the data factory names."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if not self.is_set:
            raise ValueError("max_drop_points, min_accuracy, or both")
        return self


class RobustnessSet(PartFloor):
    """Corrupted validation images: the dense model and the artifact are compared on them, through the compiled files.

    Each corruption is drawn at the target's seed, and none is trained on. 0 leaves one out. The floors are optional,
    and hold for each corruption by itself.
    """

    examples: Annotated[int, Field(ge=0)] = 256
    """Drawn from the validation split, at the target's seed; 0 for no robustness set."""
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.08
    """Standard deviation of normal noise, as a share of the range from the smallest to the largest raw value."""
    blur_px: Annotated[float, Field(ge=0)] = 0.75
    """Standard deviation of a Gaussian blur, in pixels."""
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Added to every pixel, and in another set taken away, as a share of that range."""
    shift_px: Annotated[int, Field(ge=0)] = 1
    """Pixels that an image is moved, up, down, left or right; its edge is repeated."""


class AccuracyFloors(FileModel):
    """What the compiled artifact must keep, on the validation split.

    The recall of a class, and accuracy on a slice or under a corruption, FAIL only where they are under their floor
    beyond chance (exact binomial bound, 95 % over all parts); under it within chance is INCONCLUSIVE.
    """

    max_drop_points: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Percentage points of accuracy, or of another metric in [0, 1], under the dense model, at most."""
    max_worsening: Annotated[float, Field(ge=0)] | None = None
    """How much worse than the dense model's, at most, for a metric that is no share: in the metric's own unit."""
    worst_value: float | None = None
    """The value of any metric but accuracy, at the worst: the least, or the most where lower is better."""
    min_accuracy: Share | None = None
    """Accuracy, at least, in [0, 1]."""
    max_class_drop_points: Annotated[float, Field(ge=0, le=100)] | None = None
    """Percentage points of each class's recall under the dense model's recall of that class, at most."""
    min_class_recall: Share | None = None
    """Recall of the worst class, at least, in [0, 1]."""
    slices: dict[SliceName, SliceFloor] = Field(default_factory=dict)
    """By name of the slice, as the data factory names it."""
    robustness: RobustnessSet = RobustnessSet()


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
            if self.pruning.reconstruct:
                raise ValueError("pruning.reconstruct or recovery.rewind of the weights, not both")
        if self.recovery.rewind != "none" and self.recovery.epochs is None and self.training.epochs == 0:
            raise ValueError("recovery.epochs beside recovery.rewind: training.epochs is 0, and nothing of it is left")
        return self
