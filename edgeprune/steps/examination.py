"""A look at a target before anything is built: do its factories work together?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.data.preprocessing import preprocess
from edgeprune.errors import InputError
from edgeprune.graph.cost import count_macs, count_parameters
from edgeprune.graph.groups import ChannelGroup, find_groups
from edgeprune.graph.weights import load_weights_
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.inputs import Target

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


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
    examples = preprocess(data.validation.inputs[:2], target.spec.preprocessing)
    check_model_takes(model, examples, len(data.class_names), where=str(target.file))
    example = torch.from_numpy(examples[:1])
    pruning = target.spec.pruning
    groups = find_groups(model, example, pruning.ignored, embeddings=pruning.embeddings)
    sizes = ", ".join(f"{name} {len(getattr(data, name))}" for name in ("train", "validation", "test"))
    return (
        f"data: {sizes} examples, {len(data.class_names)} classes, input {examples.shape[1:]}",
        f"model: {count_parameters(model):,} parameters, {count_macs(model, example) / 1e6:.1f} M multiply-accumulates",
        f"groups that can be cut: {', '.join(map(_described, groups.groups)) or 'none'}",
        *(f"keeps its width: {g.name}: {g.reason}" for g in groups.refused),
    )


def _described(group: ChannelGroup) -> str:
    units = f" in units of {group.unit}" if group.unit > 1 else ""
    return f"{group.name} ({group.width}{units})"


def check_model_takes(model: nn.Module, examples: np.ndarray, classes: int, *, where: str) -> None:
    """Pass a few preprocessed examples through the model.

    Raises:
        InputError: the model does not run on them, or gives something else than one row of class scores an example.
    """
    try:
        outputs = torch_outputs(model, examples)
    except Exception as error:  # A user's model may raise anything; it becomes one clear message.
        raise InputError(
            f"{where}: the model does not take the data: input {examples.shape[1:]} after preprocessing: "
            f"{type(error).__name__}: {error}"
        ) from error
    expected = (len(examples), classes)
    if outputs.shape != expected:
        raise InputError(f"{where}: expected model outputs (examples, classes) = {expected}, got {outputs.shape}")
