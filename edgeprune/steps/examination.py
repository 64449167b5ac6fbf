"""A look at a target before anything is built: do its factories work together?"""

from __future__ import annotations

from edgeprune.errors import InputError
from edgeprune.graph.cost import count_macs, count_parameters
from edgeprune.graph.groups import find_groups
from edgeprune.graph.weights import load_weights_
from edgeprune.steps.evaluating import prepared, torch_outputs
from edgeprune.steps.inputs import Target


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
    examples = prepared(data.validation, target.spec.preprocessing)[:2]
    try:
        outputs = torch_outputs(model, examples)
    except RuntimeError as error:
        raise InputError(
            f"{target.file}: the model does not take the data: input {examples.shape[1:]} after preprocessing: {error}"
        ) from error
    if outputs.shape != (len(examples), len(data.class_names)):
        raise InputError(
            f"{target.file}: expected outputs (examples, classes) = {(len(examples), len(data.class_names))}, "
            f"got {outputs.shape}"
        )
    example = torch.from_numpy(examples[:1])
    groups = find_groups(model, example, target.spec.pruning.ignored)
    sizes = ", ".join(f"{name} {len(getattr(data, name))}" for name in ("train", "validation", "test"))
    return (
        f"data: {sizes} examples, {len(data.class_names)} classes, input {examples.shape[1:]}",
        f"model: {count_parameters(model):,} parameters, {count_macs(model, example) / 1e6:.1f} M multiply-accumulates",
        f"groups that can be cut: {', '.join(f'{g.name} ({g.width})' for g in groups.groups) or 'none'}",
        *(f"keeps its width: {g.name}: {g.reason}" for g in groups.refused),
    )
