"""A target's task: which metric judges its outputs, which loss trains them, and whether classes are told apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.metrics import METRICS
from edgeprune.data.parts import mapped, parts_of, sole
from edgeprune.data.slices import slice_members
from edgeprune.data.splits import VOID, DataSplits, Split
from edgeprune.errors import BuildError, InputError
from edgeprune.protocols import Arrays, Metric
from edgeprune.records.accuracy import Accuracy, PartScore, Score
from edgeprune.records.shares import Share
from edgeprune.steps.inputs import Target
from edgeprune.steps.metric_keys import check_metric_keys

if TYPE_CHECKING:
    from edgeprune.recovery.distillation import SoftLabels
    from edgeprune.recovery.losses import Loss


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """A function of the target's own Python file as a metric."""

    function: Callable[[Arrays, Arrays], object]
    higher_is_better: bool
    is_share: bool = False

    def values(self, outputs: Arrays, labels: Arrays) -> np.ndarray:
        """What the function says of each example."""
        return np.asarray(self.function(outputs, labels), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Task:
    """What a model's outputs are judged by.

    Attributes:
        name: of the metric, as the target's file has it.
        metric: the metric itself.
        class_names: where each example has one class; else empty.
        where: file and key that name the metric, for messages.
    """

    name: str
    metric: Metric
    class_names: tuple[str, ...]
    where: str

    @property
    def classifies(self) -> bool:
        """Whether each example has one class: outputs are [examples, classes] then, and there is a confusion matrix."""
        return bool(self.class_names)

    def values(self, outputs: Arrays, labels: Arrays) -> np.ndarray:
        """The metric of each example, [examples].

        Raises:
            InputError: the metric does not take these shapes, or gives something else than one number an example.
            BuildError: a value is NaN or infinite.
        """
        try:
            found = self.metric.values(outputs, labels)
        except InputError as error:
            raise InputError(f"{self.where}: {error.message}") from error
        examples = len(parts_of(labels)[0])
        if found.shape != (examples,):
            raise InputError(
                f"{self.where}: expected {self.name} to return one number an example, shape ({examples},), "
                f"got shape {found.shape}"
            )
        if not np.isfinite(found).all():
            raise BuildError(f"{self.name} is NaN or infinite for {int((~np.isfinite(found)).sum())} examples")
        return found

    def value(self, outputs: Arrays, labels: Arrays) -> float:
        """The metric's mean, in its own unit; errors are those of `values`."""
        return float(self.values(outputs, labels).mean())

    def quality(self, outputs: Arrays, labels: Arrays) -> float:
        """The mean, negative where lower is better: the higher, the better the model."""
        value = self.value(outputs, labels)
        return value if self.metric.higher_is_better else -value

    def accuracy_of(self, outputs: Arrays, split: Split, name: str) -> Accuracy:
        """Judge the outputs on a split, and on each slice that it names.

        Args:
            outputs: of all its examples, float32; a tuple where the model has several.
            split: whose labels to compare with.
            name: of the split, for the record.

        Raises:
            BuildError: the outputs have another shape than the classes ask for, or are not finite.
            InputError: see `values`.
        """
        check_finite(outputs, name)
        values = None if self.name == "accuracy" else self.values(outputs, split.labels)
        found = Accuracy(split=name, score=None if values is None else self.score_of(values))
        if self.classifies:
            confusion = _confusion(outputs, split, name, self.class_names)
            slices = _slice_shares(sole(outputs), split)
            return replace(found, confusion=confusion, class_names=self.class_names, slices=slices)
        return found if values is None else replace(found, slice_scores=self._slice_scores(values, split))

    def score_of(self, values: np.ndarray) -> Score:
        """What one or more values of the metric come to, [examples]."""
        examples = len(values)
        return Score(
            metric=self.name,
            value=float(values.mean()),
            error=standard_error(values),
            examples=examples,
            higher_is_better=self.metric.higher_is_better,
            is_share=self.metric.is_share,
        )

    def _slice_scores(self, values: np.ndarray, split: Split) -> tuple[PartScore, ...]:
        """Nothing of a slice without an example."""
        members = {name: slice_members(split.slices[name], len(split)) for name in sorted(split.slices)}
        return tuple(
            PartScore(name=name, score=self.score_of(values[mask])) for name, mask in members.items() if mask.any()
        )


def standard_error(values: np.ndarray) -> float:
    """Of the mean of one value an example, [examples]; 0 of a single one."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def classification(class_names: tuple[str, ...]) -> Task:
    """One class an example, judged by accuracy."""
    return Task("accuracy", METRICS.get("accuracy"), class_names, "task.metric")


def task_of(target: Target, data: DataSplits) -> Task:
    """The task that a target's file and data describe.

    Raises:
        InputError: there is no such metric, it does not go with the labels, or keys are set that mean nothing for it.
    """
    wanted, where = target.spec.task, f"{target.file}: task.metric"
    if ".py:" in wanted.metric:
        function = target.guarded(wanted.metric, key="task.metric")
        metric: Metric = OwnMetric(function, higher_is_better=bool(wanted.higher_is_better))
    else:
        if wanted.metric not in METRICS.names():
            raise InputError(f"{where}: {_unknown(wanted.metric)}")
        metric = METRICS.get(wanted.metric)
    if wanted.metric == "accuracy" and not data.classifies:
        others = ", ".join(n for n in METRICS.names() if n != "accuracy")
        kinds = mapped(lambda part: f"{part.dtype} {part.shape}", data.validation.labels)
        raise InputError(
            f"{where}: accuracy needs class_names and labels [examples] of integers, found {len(data.class_names)} "
            f"class names and labels {kinds}; set task.metric to a function of your own, or one of {others}"
        )
    check_metric_keys(target, data, metric)
    task = Task(wanted.metric, metric, data.class_names if data.classifies else (), where)
    _check_soft_labels(target, task)
    return task


def loss_of(target: Target, labels: Arrays) -> Loss:
    """The target's loss of (outputs, labels); a model's several outputs, and several labels, come as tuples.

    Args:
        target: names it.
        labels: of the training split, which class weights may rest on.

    Raises:
        InputError: there is no such loss or function, or class weights do not go with it or with the labels.
    """
    from edgeprune.recovery.losses import OwnLoss, resolve_loss

    training = target.spec.training
    weights = _class_weights(target, labels)
    if ".py:" in training.loss:
        if weights:
            raise InputError(f"{target.file}: training.class_weights: {training.loss} takes none; weigh in it")
        return OwnLoss(target.guarded(training.loss, key="training.loss"))
    return resolve_loss(training.loss, class_weights=weights, focal_gamma=training.focal_gamma)


def soft_labels_of(target: Target, task: Task) -> SoftLabels | None:
    """What a teacher's outputs are softened as; None where they are no logits: those learn from their labels alone.

    The loss tells: logits of classes, of each example or of each of its pixels, or a yes and no for each output. A
    loss of the target's own takes logits of classes where each example has one class.
    """
    from edgeprune.recovery.losses import BINARY, FOCAL

    loss = target.spec.training.loss
    if loss == BINARY:
        return "binary"
    return "classes" if task.classifies or loss in {"cross_entropy", FOCAL} else None


def _check_soft_labels(target: Target, task: Task) -> None:
    """Refuse a weight of soft labels where there are none; the default one is taken for 0 there."""
    spec = target.spec
    recovery, teacher = spec.recovery, spec.teacher
    asked = {
        "recovery.distillation_weight": recovery.distillation_weight,
        "teacher.weight": teacher is not None and "weight" in teacher.model_fields_set and teacher.weight,
    }
    for key, weight in asked.items():
        if weight and soft_labels_of(target, task) is None:
            raise InputError(
                f"{target.file}: {key}: expected 0 or nothing, got {weight}: soft labels are of classes, or of yes "
                f"and no, and the loss {spec.training.loss} is not known to take either; these outputs learn from "
                "their labels alone"
            )


def _class_weights(target: Target, labels: Arrays) -> tuple[float, ...]:
    from edgeprune.recovery.losses import balanced_class_weights

    wanted, where = target.spec.training.class_weights, f"{target.file}: training.class_weights"
    if not wanted:
        return ()
    if isinstance(labels, tuple) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{where}: expected one array of class indices as labels")
    counted = labels[labels != VOID]
    if counted.min(initial=0) < 0:
        raise InputError(f"{where}: expected class indices from 0 as labels, and {VOID} where none counts")
    if wanted == "balanced":
        return balanced_class_weights(counted)
    classes = counted.max(initial=-1) + 1
    if len(wanted) < classes:
        raise InputError(f"{where}: expected one a class, at least {classes}, got {len(wanted)}")
    return wanted


def check_finite(outputs: Arrays, name: str) -> None:
    """Refuse outputs that no metric means anything of.

    Raises:
        BuildError: NaN or infinity.
    """
    bad = sum(int((~np.isfinite(part)).sum()) for part in parts_of(outputs))
    if bad:
        raise BuildError(f"model output on {name}: NaN or infinity in {bad} values")


def _confusion(outputs: Arrays, split: Split, name: str, class_names: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    expected = (len(split), len(class_names))
    if isinstance(outputs, tuple) or outputs.shape != expected:
        got = f"{len(outputs)} outputs" if isinstance(outputs, tuple) else outputs.shape
        raise BuildError(f"model output on {name}: expected shape {expected} (examples, classes), got {got}")
    confusion = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
    np.add.at(confusion, (np.asarray(split.labels).astype(np.int64), outputs.argmax(axis=1)), 1)
    return tuple(tuple(int(n) for n in row) for row in confusion)


def _slice_shares(outputs: np.ndarray, split: Split) -> tuple[Share, ...]:
    right = outputs.argmax(axis=1) == sole(split.labels)
    hits = {name: right[slice_members(split.slices[name], len(split))] for name in sorted(split.slices)}
    return tuple(Share(name=name, correct=int(found.sum()), total=len(found)) for name, found in hits.items())


def _unknown(name: str) -> str:
    from edgeprune.registry import suggest

    return f"unknown metric {name!r}{suggest(name, METRICS.names())}"
