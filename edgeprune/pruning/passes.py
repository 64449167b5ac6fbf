"""Passes over data that criteria share: gradients, what channels contribute, what layers read.

All work on a copy of the model in evaluation mode, so that nothing is left behind in the caller's; each costs little
more than the forward and backward passes themselves (`tools/bench_pruning.py`). What is asked of single examples is
told apart along the axis that is theirs in what a layer reads (`watching.py`); where none is, they run one at a time,
which takes longer.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.conv import _ConvNd

from edgeprune.data.parts import Tensors
from edgeprune.errors import InputError
from edgeprune.graph.slicing import all_headwise_, output_first
from edgeprune.protocols import ScoringData, ScoringTask
from edgeprune.pruning.rows import input_rows, padded, row_count
from edgeprune.pruning.watching import Piece, pieces, watched
from edgeprune.pruning.weights import weighted_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

_TOGETHER = 16
"""Examples whose gradients are taken at a time: one by one, or many, take longer (ResNet-20 on one core)."""

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


def batch_shares(data: ScoringData) -> list[float]:
    """By batch, its share in the loss over all data: of the examples, or of the labels that count."""
    sizes = [
        len(inputs) if data.counted is None else int(data.counted(labels).sum()) for inputs, labels in data.batches
    ]
    total = sum(sizes) or 1
    return [size / total for size in sizes]


def working_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters all take gradients, and whose attention calls its layers."""
    copied = copy.deepcopy(model).eval()
    all_headwise_(copied)
    return copied.requires_grad_(requires_grad=True)


def scored_parameters(model: nn.Module, task: ScoringTask) -> dict[str, nn.Parameter]:
    """Weights and biases of the task's layers in a copy of its model, by full name."""
    own = {name: model.get_submodule(name).named_parameters(recurse=False) for name in task.layers}
    return {f"{name}.{n}": p for name, parameters in own.items() for n, p in parameters}


def gradients(
    model: nn.Module, parameters: Mapping[str, Tensor], loss: Callable[..., Tensor], inputs: Tensor, labels: Tensors
) -> dict[str, Tensor]:
    """Of the mean loss of one batch, by parameter; zeros for one that has no say in it."""
    with torch.enable_grad():
        found = torch.autograd.grad(loss(model(inputs), labels), tuple(parameters.values()), allow_unused=True)
    pairs = zip(parameters.items(), found, strict=True)
    return {n: torch.zeros_like(p) if g is None else g.detach() for (n, p), g in pairs}


def batch_gradients(task: ScoringTask) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """(value, gradient) of the scored layers' parameters by name, for one batch after the other."""
    data, model = data_of(task), working_copy(task.model)
    parameters = scored_parameters(model, task)
    for inputs, labels in data.batches:
        found = gradients(model, parameters, data.loss, inputs, labels)
        yield {n: (p.detach(), found[n]) for n, p in parameters.items()}


def input_contributions(task: ScoringTask) -> dict[str, Tensor]:
    """What each channel that a layer reads contributes to each example's loss, to first order.

    Returns:
        By layer, [examples, in_channels]: the sum over positions of the channel's activation times the gradient of the
        example's loss with respect to it, which is the gradient with respect to a gate of 1 before that channel, for
        all that read the same tensor; 0 of an example without a label that counts. Layers that are never called are
        left out.
    """
    data, model = data_of(task), working_copy(task.model)
    found: dict[str, list[Tensor]] = {}
    for piece in pieces(model, weighted_layers(task.model, task.layers), data):
        with torch.enable_grad(), watched(model, piece.axes, opened=True) as calls:
            # A copy, as what is read is made to take a gradient.
            loss = data.loss(model(piece.inputs.detach().clone()), piece.labels)
            read = [(name, call, given) for name, pairs in calls.items() for call, (given, _) in enumerate(pairs)]
            slopes = torch.autograd.grad(loss, [given for *_, given in read], allow_unused=True)
        own = _own_of_mean(data, piece)[:, None]
        sums: dict[str, Tensor] = {}
        for (name, call, given), slope in zip(read, slopes, strict=True):
            product = torch.zeros_like(given) if slope is None else given.detach() * slope
            by_example = _summed_positions(model.get_submodule(name), piece.apart(name, call, product))
            sums[name] = sums.get(name, 0.0) + own * by_example
        for name, sum_ in sums.items():
            found.setdefault(name, []).append(sum_.float())
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.no_grad()
def mean_inputs(task: ScoringTask, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The mean over examples and positions of a function of what each channel that a layer reads holds.

    Args:
        task: what to score.
        of: elementwise, such as `torch.abs`.

    Returns:
        By layer, [in_channels], float32. Layers that are never called are left out.
    """
    data, model = data_of(task), working_copy(task.model)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for inputs, _ in data.batches:
        with watched(model, weighted_layers(task.model, task.layers)) as calls:
            model(inputs)
        for name, pairs in calls.items():
            for given, _ in pairs:
                part = _summed_positions(model.get_submodule(name), of(given)[None])[0].double()
                sums[name] = sums.get(name, 0.0) + part
                counts[name] = counts.get(name, 0) + given.numel() // len(part)
    return {name: (total / counts[name]).float() for name, total in sums.items()}


def squared_gradients(task: ScoringTask) -> dict[str, Tensor]:
    """The mean over examples of the square of the gradient of the example's own loss: the diagonal empirical Fisher.

    Returns:
        By layer, of its weight's shape, [out_channels, in_channels, *kernel], float32. An example without a label that
        counts adds 0. Layers that are never called are left out.
    """
    data, model = data_of(task), working_copy(task.model)
    layers = weighted_layers(model, task.layers)
    sums: dict[str, Tensor] = {}
    for piece in pieces(model, layers, data):
        own = {name: layers[name] for name in piece.axes}
        if len(piece.inputs) == 1:
            weights = {name: layer.weight for name, layer in own.items()}
            slopes = gradients(model, weights, data.loss, piece.inputs, piece.labels)
            squares = {name: output_first(own[name], slope.square_()) for name, slope in slopes.items()}
        else:
            squares = _squares_of_batch(model, own, data, piece)
        for name, part in squares.items():
            sums[name] = sums.get(name, 0.0) + part
    examples = sum(len(inputs) for inputs, _ in data.batches)
    return {name: total / examples for name, total in sums.items()}


def _own_of_mean(data: ScoringData, piece: Piece) -> Tensor:
    """[examples]: what makes of the gradient of a batch's mean loss that of each example's own.

    A mean over labels gives an example as large a say as it has labels that count, and one without any has no loss.
    """
    if data.counted is None:
        return torch.full((len(piece.inputs),), float(len(piece.inputs)))
    counted = data.counted(piece.labels)
    return torch.where(counted > 0, counted.sum() / counted.clamp_min(1), 0.0)


def _squares_of_batch(
    model: nn.Module, layers: Mapping[str, nn.Module], data: ScoringData, piece: Piece
) -> dict[str, Tensor]:
    """The sum over the examples of a batch."""
    own = _own_of_mean(data, piece)
    with torch.enable_grad(), watched(model, layers, separate=True) as calls:
        mean_loss = data.loss(model(piece.inputs), piece.labels)
        made = [(n, call, *pair) for n, pairs in calls.items() for call, pair in enumerate(pairs)]
        slopes = torch.autograd.grad(mean_loss, [output for *_, output in made], allow_unused=True)
    of_layer: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    for (name, call, given, _), slope in zip(made, slopes, strict=True):
        if slope is not None:
            apart = piece.apart(name, call, slope)
            own_slope = apart * own.reshape(-1, *[1] * (apart.dim() - 1))
            of_layer[name].append((piece.apart(name, call, given.detach()), own_slope))
    return {name: _summed_squares(layers[name], pairs) for name, pairs in of_layer.items()}


@torch.no_grad()
def second_moments(task: ScoringTask) -> dict[str, Tensor]:
    """The mean of x x^T over the rows that a layer multiplies its weights by.

    Returns:
        By layer, [groups, inputs, inputs], float64; `inputs` as in `input_rows`. Layers that are never called are left
        out.
    """
    data, model = data_of(task), working_copy(task.model)
    layers = weighted_layers(task.model, task.layers)
    drawn = {name: torch.Generator().manual_seed(task.seed ^ zlib.crc32(name.encode())) for name in layers}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for inputs, _ in data.batches:
        with watched(model, layers) as calls:
            model(inputs)
        for name, pairs in calls.items():
            for given, output in pairs:
                chosen = _drawn_rows(layers[name], output, len(data.batches), drawn[name])
                rows = input_rows(layers[name], given, output, chosen).transpose(0, 1)
                sums[name] = sums.get(name, 0.0) + (rows.transpose(1, 2) @ rows).double()
                counts[name] = counts.get(name, 0) + rows.shape[1]
    return {name: total / counts[name] for name, total in sums.items()}


def _drawn_rows(layer: nn.Module, output: Tensor, batches: int, drawn: torch.Generator) -> Tensor | None:
    """Which rows of a batch to look at; None for all. Neighbouring positions say nearly the same."""
    weight = output_first(layer, _weight(layer))
    inputs, outputs, total = weight[0].numel(), len(weight), row_count(layer, output)
    wanted = max(total * _ROWS_EACH_WEIGHT_ROW * outputs / inputs, 2 * inputs / batches)
    if wanted >= total:
        return None
    return torch.randperm(total, generator=drawn)[: round(wanted)].sort().values


def _summed_positions(layer: nn.Module, values: Tensor) -> Tensor:
    """[examples, channels] of what a layer reads, [examples, parts, ...]."""
    if isinstance(layer, torch.nn.Linear):
        return values.reshape(len(values), -1, values.shape[-1]).sum(dim=1)
    return values.flatten(3).sum(dim=3).sum(dim=1)


@torch.no_grad()
def _summed_squares(layer: nn.Module, calls: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Over the examples of a batch: the squares of the weight's gradient, summed over the layer's calls before.

    Args:
        layer: a convolution or linear layer.
        calls: what it read and the loss's gradient by what it made of it, [examples, parts, ...].
    """
    weight = _weight(layer)
    if not calls:
        return torch.zeros_like(output_first(layer, weight))
    given, slope = calls[0]
    if isinstance(layer, torch.nn.Linear) and len(calls) == 1 and given[0].numel() == given.shape[-1]:
        return slope.flatten(0, -2).square().T @ given.flatten(0, -2).square()
    total = torch.zeros_like(weight)
    for start in range(0, len(given), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        each = _gradients(layer, given[some], slope[some])
        for other_given, other_slope in calls[1:]:
            each = each + _gradients(layer, other_given[some], other_slope[some])
        total += each.square_().sum(dim=0)
    return output_first(layer, total)


def _gradients(layer: nn.Module, given: Tensor, slope: Tensor) -> Tensor:
    """Of the weight of a convolution or linear layer, as it is stored, for each of some examples."""
    if not isinstance(layer, _ConvNd):
        rows = (t.flatten(1, -2) for t in (slope, given))
        return torch.einsum("epo,epi->eoi", *rows)
    places: tuple[object, ...] = (layer.stride, layer.padding, layer.dilation)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        given = torch.unflatten(padded(layer, given.flatten(0, 1)), 0, given.shape[:2])
        places = (layer.stride, [0] * len(layer.stride), layer.dilation)
    # The examples as groups of one convolution, each with its own weight; only the weight's shape is looked at.
    count = len(given)
    apart = layer.weight.new_empty(count * len(layer.weight), *layer.weight.shape[1:])
    one, other = (t.transpose(0, 1).flatten(1, 2) for t in (slope, given))
    settings = (layer.transposed, layer.output_padding, count * layer.groups, [False, True, False])
    found: Tensor = torch.ops.aten.convolution_backward(one, other, apart, None, *places, *settings)[1]
    return torch.unflatten(found, 0, (count, -1))


def _weight(layer: nn.Module) -> Tensor:
    if not isinstance(layer, _ConvNd | torch.nn.Linear):
        raise TypeError(f"expected a convolution or linear layer, got {type(layer).__name__}")
    return layer.weight.detach()
