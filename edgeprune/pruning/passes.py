"""Passes over data that criteria share: gradients, what channels contribute, what layers read.

All work on a copy of the model in evaluation mode, so that nothing is left behind in the caller's; each costs little
more than the forward and backward passes themselves (`tools/bench_pruning.py`).
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import InputError
from edgeprune.graph.slicing import output_first
from edgeprune.protocols import ScoringData, ScoringTask
from edgeprune.pruning.rows import input_rows, padded, row_count
from edgeprune.pruning.weights import weighted_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

_ROWS_EACH_WEIGHT_ROW = 0.5
"""Second moments are taken of so many rows that they cost about half of the layer's own forward pass, or of as many
rows as a layer has inputs where that is more."""


def data_of(task: ScoringTask) -> ScoringData:
    """The task's data.

    Raises:
        InputError: it has none, or no batch.
    """
    if task.data is None or not task.data.batches:
        raise InputError("this criterion looks at data: expected ScoringTask.data with at least one batch, found none")
    return task.data


def working_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters all take gradients."""
    copied = copy.deepcopy(model).eval()
    return copied.requires_grad_(requires_grad=True)


def scored_parameters(model: nn.Module, task: ScoringTask) -> dict[str, nn.Parameter]:
    """Weights and biases of the task's layers in a copy of its model, by full name."""
    own = {name: model.get_submodule(name).named_parameters(recurse=False) for name in task.layers}
    return {f"{name}.{n}": p for name, parameters in own.items() for n, p in parameters}


def gradients(model: nn.Module, parameters: Mapping[str, Tensor], data: ScoringData, number: int) -> dict[str, Tensor]:
    """Of the mean loss of one batch, by parameter; zeros for one that has no say in it."""
    inputs, labels = data.batches[number]
    with torch.enable_grad():
        loss = data.loss(model(inputs), labels)
        found = torch.autograd.grad(loss, tuple(parameters.values()), allow_unused=True)
    pairs = zip(parameters.items(), found, strict=True)
    return {n: torch.zeros_like(p) if g is None else g.detach() for (n, p), g in pairs}


def batch_gradients(task: ScoringTask) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """(value, gradient) of the scored layers' parameters by name, for one batch after the other."""
    data, model = data_of(task), working_copy(task.model)
    parameters = scored_parameters(model, task)
    for number in range(len(data.batches)):
        found = gradients(model, parameters, data, number)
        yield {n: (p.detach(), found[n]) for n, p in parameters.items()}


def input_contributions(task: ScoringTask) -> dict[str, Tensor]:
    """What each channel that a layer reads contributes to each example's loss, to first order.

    Returns:
        By layer, [examples, in_channels]: the sum over positions of the channel's activation times the gradient of the
        example's loss with respect to it, which is the gradient with respect to a gate of 1 before that channel.
    """
    data, model = data_of(task), working_copy(task.model)
    found: dict[str, list[Tensor]] = {name: [] for name in weighted_layers(task.model, task.layers)}
    if not found:
        return {}
    for inputs, labels in data.batches:
        with torch.enable_grad(), _watched(model, found) as calls:
            leaf = inputs.detach().clone().requires_grad_() if inputs.is_floating_point() else inputs
            loss = data.loss(model(leaf), labels)
            read = [(name, given) for name, pairs in calls.items() for given, _ in pairs]
            slopes = torch.autograd.grad(loss, [given for _, given in read], allow_unused=True)
        sums: dict[str, Tensor] = {}
        for (name, given), slope in zip(read, slopes, strict=True):
            layer = model.get_submodule(name)
            product = torch.zeros_like(given) if slope is None else given.detach() * slope
            sums[name] = sums.get(name, 0.0) + len(inputs) * _summed_positions(layer, product)
        for name, sum_ in sums.items():
            found[name].append(sum_.float())
    return {name: torch.cat(parts) for name, parts in found.items() if parts}


@torch.no_grad()
def mean_inputs(task: ScoringTask, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The mean over examples and positions of a function of what each channel that a layer reads holds.

    Args:
        task: what to score.
        of: elementwise, such as `torch.abs`.

    Returns:
        By layer, [in_channels], float32.
    """
    data, model = data_of(task), working_copy(task.model)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for inputs, _ in data.batches:
        with _watched(model, weighted_layers(task.model, task.layers)) as calls:
            model(inputs)
        for name, pairs in calls.items():
            for given, _ in pairs:
                part = _summed_positions(model.get_submodule(name), of(given)).double().sum(dim=0)
                sums[name] = sums.get(name, 0.0) + part
                counts[name] = counts.get(name, 0) + given.numel() // len(part)
    return {name: (total / counts[name]).float() for name, total in sums.items()}


def squared_gradients(task: ScoringTask) -> dict[str, Tensor]:
    """The mean over examples of the square of the gradient of the example's own loss: the diagonal empirical Fisher.

    Returns:
        By layer, of its weight's shape, [out_channels, in_channels, *kernel], float32.
    """
    data, model = data_of(task), working_copy(task.model)
    layers = weighted_layers(task.model, task.layers)
    sums = {name: torch.zeros_like(output_first(m, _weight(m))) for name, m in layers.items()}
    if not sums:
        return {}
    examples = 0
    for inputs, labels in data.batches:
        examples += len(inputs)
        with torch.enable_grad(), _watched(model, layers, separate=True) as calls:
            loss = data.loss(model(inputs), labels)
            made = [(name, given, output) for name, pairs in calls.items() for given, output in pairs]
            slopes = torch.autograd.grad(loss, [output for *_, output in made], allow_unused=True)
        for name in layers:
            own = [
                (given.detach(), slope)
                for (n, given, _), slope in zip(made, slopes, strict=True)
                if n == name and slope is not None
            ]
            if own:
                sums[name] += len(inputs) ** 2 * _summed_squares(layers[name], own)
    return {name: total / examples for name, total in sums.items()}


@torch.no_grad()
def second_moments(task: ScoringTask) -> dict[str, Tensor]:
    """The mean of x x^T over the rows that a layer multiplies its weights by.

    Returns:
        By layer, [groups, inputs, inputs], float64; `inputs` as in `input_rows`.

    Raises:
        BuildError: a layer is a transposed convolution.
    """
    data, model = data_of(task), working_copy(task.model)
    layers = weighted_layers(task.model, task.layers)
    drawn = {name: torch.Generator().manual_seed(task.seed ^ zlib.crc32(name.encode())) for name in layers}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for inputs, _ in data.batches:
        with _watched(model, layers) as calls:
            model(inputs)
        for name, pairs in calls.items():
            for given, output in pairs:
                chosen = _drawn_rows(layers[name], output, len(data.batches), drawn[name])
                rows = input_rows(name, layers[name], given, chosen).transpose(0, 1)
                sums[name] = sums.get(name, 0.0) + (rows.transpose(1, 2) @ rows).double()
                counts[name] = counts.get(name, 0) + rows.shape[1]
    return {name: total / counts[name] for name, total in sums.items()}


def _drawn_rows(layer: nn.Module, output: Tensor, batches: int, drawn: torch.Generator) -> Tensor | None:
    """Which rows of a batch to look at; None for all. Neighbouring positions say nearly the same."""
    weight = _weight(layer)
    inputs = weight[0].numel() if isinstance(layer, torch.nn.Linear) else output_first(layer, weight)[0].numel()
    outputs = len(weight)
    total = row_count(layer, output)
    wanted = max(total * _ROWS_EACH_WEIGHT_ROW * outputs / inputs, 2 * inputs / batches)
    if wanted >= total:
        return None
    return torch.randperm(total, generator=drawn)[: round(wanted)].sort().values


@contextmanager
def _watched(
    model: nn.Module, layers: Mapping[str, Any], *, separate: bool = False
) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Keeps (input, output) of each call of some layers while the model runs.

    Args:
        model: that runs.
        layers: by name.
        separate: what follows gets a copy of the output, as it may change it in place.
    """
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def hook_for(name: str) -> Callable[..., Tensor | None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> Tensor | None:
            calls[name].append((args[0] if args else next(iter(kwargs.values())), output))
            return output.clone() if separate else None

        return hook

    with ExitStack() as stack:
        for name in layers:
            handle = model.get_submodule(name).register_forward_hook(hook_for(name), with_kwargs=True)
            stack.callback(handle.remove)
        yield calls


def _summed_positions(layer: nn.Module, values: Tensor) -> Tensor:
    """[examples, channels] of what a layer reads."""
    if isinstance(layer, torch.nn.Linear):
        return values.flatten(1, -2).sum(dim=1) if values.dim() > 2 else values  # noqa: PLR2004
    return values.flatten(2).sum(dim=2)


@torch.no_grad()
def _summed_squares(layer: nn.Module, calls: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Over the examples of a batch: the squares of the weight's gradient, summed over the layer's calls before."""
    (given, slope), weight = calls[0], _weight(layer)
    if isinstance(layer, torch.nn.Linear) and len(calls) == 1 and given.dim() == 2:  # noqa: PLR2004
        return slope.square().T @ given.square()
    total = torch.zeros_like(weight)
    # One after the other: laid out as rows, so that one product would do, it takes twice as long.
    for i in range(len(given)):
        each = _gradient(layer, given[i : i + 1], slope[i : i + 1])
        for other_given, other_slope in calls[1:]:
            each = each + _gradient(layer, other_given[i : i + 1], other_slope[i : i + 1])
        total.addcmul_(each, each)
    return output_first(layer, total)


def _gradient(layer: nn.Module, given: Tensor, slope: Tensor) -> Tensor:
    """Of the weight of a convolution or linear layer, as it is stored."""
    if not isinstance(layer, _ConvNd):
        return slope.flatten(0, -2).T @ given.flatten(0, -2)
    places: tuple[object, ...] = (layer.stride, layer.padding, layer.dilation)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        given, places = padded(layer, given), (layer.stride, [0] * len(layer.stride), layer.dilation)
    shape = (layer.transposed, layer.output_padding, layer.groups, [False, True, False])
    found: Tensor = torch.ops.aten.convolution_backward(slope, given, layer.weight, None, *places, *shape)[1]
    return found


def _weight(layer: nn.Module) -> Tensor:
    if not isinstance(layer, _ConvNd | torch.nn.Linear):
        raise TypeError(f"expected a convolution or linear layer, got {type(layer).__name__}")
    return layer.weight.detach()
