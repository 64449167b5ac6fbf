"""A look at a target before anything is built: do its factories work together?"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.parts import label_tensors, mapped, parts_of
from edgeprune.data.preprocessing import preprocess
from edgeprune.errors import InputError
from edgeprune.graph.cost import count_macs, count_parameters
from edgeprune.graph.groups import ChannelGroup
from edgeprune.graph.names import match_layers
from edgeprune.graph.weights import load_weights_
from edgeprune.pruning.selection import Room, told_widths
from edgeprune.steps.cuttable import cuttable_groups
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.feature_layers import check_features
from edgeprune.steps.guarding import check_guards
from edgeprune.steps.inputs import Target
from edgeprune.steps.task import loss_of, task_of

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.data.splits import DataSplits
    from edgeprune.protocols import Arrays


def examine(target: Target) -> tuple[str, ...]:
    """Load data and model, pass an example through, and find the channel groups.

    Returns:
        What was found, a line each.

    Raises:
        InputError: a factory, the data, or the weights cannot be used, or the model does not take the data.
    """
    import torch

    data = target.load_data()
    model = target.build_model()
    weights = target.weights_path()
    if weights is not None:
        load_weights_(model, weights)
    check_parts_fit(target, data, model)
    check_guards(target, data)
    examples = preprocess(data.validation.inputs[:1], target.spec.preprocessing)
    example = torch.from_numpy(examples[:1])
    groups = cuttable_groups(model, example, target.spec.pruning)
    told_widths({g.name: Room(width=g.width) for g in groups.groups}, target.spec.pruning.group_ratios)
    sizes = ", ".join(f"{name} {len(getattr(data, name))}" for name in ("train", "validation", "test"))
    return (
        f"data: {sizes} examples, {_labels(data)}, input {examples.dtype} {examples.shape[1:]}",
        f"judged by: {target.spec.task.metric}",
        f"model: {count_parameters(model):,} parameters, {count_macs(model, example) / 1e6:.1f} M multiply-accumulates",
        f"groups that can be cut: {', '.join(map(_described, groups.groups)) or 'none'}",
        *(f"keeps its width: {g.name}: {g.reason}" for g in groups.refused),
    )


def _described(group: ChannelGroup) -> str:
    units = f" in units of {group.unit}" if group.unit > 1 else ""
    return f"{group.name} ({group.width}{units})"


def _labels(data: DataSplits) -> str:
    if data.classifies:
        return f"{len(data.class_names)} classes"
    kinds = ", ".join(f"{part.dtype} {part.shape[1:]}" for part in parts_of(data.validation.labels))
    classes = f" of {len(data.class_names)} classes" if data.class_names else ""
    return f"labels {kinds}{classes}"


def check_parts_fit(target: Target, data: DataSplits, model: nn.Module) -> None:
    """Pass a few examples through model, loss and metric, so that what does not fit is told before anything is built.

    Raises:
        InputError: the model does not run on the examples, its outputs are not what the task, the loss or the metric
            take, or a layer is named that there is none of.
    """
    import torch

    task = task_of(target, data)
    few = data.validation.taken(np.arange(min(2, len(data.validation))))
    try:
        examples = preprocess(few.inputs, target.spec.preprocessing)
    except InputError as error:
        raise InputError(f"{target.file}: {error.message}") from error
    outputs = _outputs(model, examples, where=str(target.file))
    expected = (len(few), len(task.class_names))
    if task.classifies and (isinstance(outputs, tuple) or outputs.shape != expected):
        got = _shapes(outputs)
        raise InputError(f"{target.file}: expected model outputs (examples, classes) = {expected}, got {got}")
    for part in parts_of(outputs):
        if part.shape[:1] != (len(few),):
            raise InputError(
                f"{target.file}: expected the examples first in each of the model's outputs, {len(few)} here, "
                f"got shape {part.shape}"
            )
    _check_loss(target, outputs, few.labels)
    if all(np.isfinite(part).all() for part in parts_of(outputs)):
        # An untrained model may give infinities; that is no fault of the metric.
        task.values(outputs, few.labels)
    check_features(target, model, torch.from_numpy(examples[:1]))
    match_layers(model, tuple(target.spec.pruning.layer_sparsities), key=f"{target.file}: pruning.layer_sparsities")


def _outputs(model: nn.Module, examples: np.ndarray, *, where: str) -> Arrays:
    try:
        return torch_outputs(model, examples)
    except InputError as error:
        raise InputError(f"{where}: model.factory: {error.message}") from error
    except Exception as error:  # A user's model may raise anything; it becomes one clear message.
        raise InputError(
            f"{where}: the model does not take the data: input {examples.dtype} {examples.shape[1:]} after "
            f"preprocessing: {type(error).__name__}: {error}"
        ) from error


def _check_loss(target: Target, outputs: Arrays, labels: Arrays) -> None:
    """Losses that broadcast, or take values for probabilities, give a number that means nothing."""
    import torch

    name, where = target.spec.training.loss, f"{target.file}: training.loss"
    loss = loss_of(target, labels)
    given, wanted = mapped(torch.from_numpy, outputs), label_tensors(labels)
    shapes = f"outputs {_shapes(outputs)} and labels {_shapes(labels)}"
    own = ".py:" in name
    if not own and (isinstance(given, tuple) or isinstance(wanted, tuple)):
        raise InputError(f"{where}: {name} takes one output and one array of labels, got {shapes}; name a function")
    if name == "cross_entropy" and not isinstance(wanted, tuple) and wanted.is_floating_point():
        raise InputError(f"{where}: cross_entropy takes class indices, the labels are floats; set mse_loss or another")
    try:
        with warnings.catch_warnings():
            # torch only warns where a loss stretches one shape to the other.
            warnings.filterwarnings("error", message="Using a target size", category=UserWarning)
            found = loss(given, wanted)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where}: {name} does not take {shapes}: {type(error).__name__}: {error}") from error
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        got = f"shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise InputError(f"{where}: expected {name} to return one number, got {got}")


def _shapes(arrays: Arrays) -> str:
    shapes = [str(part.shape) for part in parts_of(arrays)]
    return shapes[0] if len(shapes) == 1 else f"({', '.join(shapes)})"
