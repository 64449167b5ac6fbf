"""Recurrent layers: their hidden units, which go through every gate, layer and direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from edgeprune.graph.labels import Labels, active
from edgeprune.graph.slicing import Recurrent, Side


def follow_recurrent(
    labels: Labels,
    name: str,
    layer: Recurrent,
    given: Sequence[Tensor],
    output: object,
    tracks: Callable[[Tensor], Sequence[Tensor]],
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The labels of all that a recurrent layer returns.

    A hidden unit goes out of all layers and both directions at once: a module has one hidden size.

    Args:
        labels: gets the edges.
        name: of the layer.
        layer: which one.
        given: its input, then the states that it was given.
        output: what it returned.
        tracks: labels of a tensor.
    """
    hidden = int(layer.hidden_size)
    units = labels.axis(name, Side.OUT, hidden)
    features = labels.axis(name, Side.IN, int(layer.input_size))
    for track in tracks(given[0]) if given else ():
        last = track.dim() - 1
        if last in active(track):
            pure = labels.together(track, [d for d in active(track) if d != last])
            labels.join(pure.reshape(-1), features)
    if getattr(layer, "proj_size", 0):
        labels.keep(units, f"layer {name!r} is a {type(layer).__name__} with a projection of its output")
    for state in given[1:]:
        own = [t for t in tracks(state) if active(t) == (state.dim() - 1,)]
        if own:
            labels.join(own[0].reshape(-1), units)
        else:
            labels.keep(units, f"layer {name!r} is given a state of fixed width")
    for tensor in _flat(output):
        copies = tensor.shape[-1] // hidden
        if copies * hidden != tensor.shape[-1]:
            yield tensor, []
        else:
            whole = torch.cat([units] * copies)
            yield tensor, [whole.reshape([1] * (tensor.dim() - 1) + [-1])]


def _flat(output: object) -> Iterator[Tensor]:
    """With the data of packed sequences, which are tuples."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _flat(part)
