"""Numbers that a module's own code reads, such as its count of heads, and that must fall with a cut.

They are found by name and value where the code took a dimension apart; whether they were the right ones shows in the
trial of the cut.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn

from edgeprune.graph.labels import Partition
from edgeprune.graph.slicing import ChannelEdit, Side

_ALL_HEADS = ("all_head", "inner", "embed_dim", "hidden", "attn", "qkv")
"""In names of what counts the features of all heads together."""


def attribute_edits(model: nn.Module, partition: Partition, gone: np.ndarray) -> Iterator[ChannelEdit]:
    """What changes in the module that took a dimension apart.

    Args:
        model: with the module.
        partition: the dimension.
        gone: [labels of the model], whether each goes.
    """
    if not partition.modules:
        return
    name = partition.modules[-1]
    module = model.get_submodule(name)
    if any(kind.__module__.startswith("torch.nn.modules") and kind is not nn.Module for kind in type(module).__mro__):
        # torch's own layers, and what is made of them, are cut with what they hold.
        return
    lost = gone[partition.labels.numpy()]
    if partition.pieces:
        yield from _of_pieces(name, module, partition, lost.reshape(*lost.shape[:2], -1)[0].all(axis=-1))
        return
    for axis in range(lost.ndim):
        slices = np.moveaxis(lost, axis, 0).reshape(lost.shape[axis], -1).all(axis=-1)
        if axis not in partition.adapting and slices.any() and not slices.all():
            yield from _of_heads(name, module, slices, lost)


def _of_heads(name: str, module: nn.Module, slices: np.ndarray, lost: np.ndarray) -> Iterator[ChannelEdit]:
    for attribute, value in _numbers(module):
        counts = ("head" in attribute and not {"dim", "size"} & set(attribute.split("_"))) or attribute in {"h", "nh"}
        if counts and value == len(slices):
            yield _edit(name, attribute, slices)
        elif value == lost.size and any(word in attribute for word in _ALL_HEADS):
            yield _edit(name, attribute, lost.reshape(-1))


def _of_pieces(name: str, module: nn.Module, partition: Partition, lost: np.ndarray) -> Iterator[ChannelEdit]:
    if not lost.any():
        return
    for attribute, value in _numbers(module):
        if value == len(lost):
            yield _edit(name, attribute, lost)
    for attribute, values in vars(module).items():
        if not isinstance(values, tuple | list) or len(values) != partition.pieces:
            continue
        wanted = range(len(values)) if partition.piece is None else [partition.piece]
        for position in wanted:
            if type(values[position]) is int and values[position] == len(lost):
                yield _edit(name, attribute, lost, position)


def _numbers(module: nn.Module) -> Iterator[tuple[str, int]]:
    return ((n, v) for n, v in vars(module).items() if type(v) is int and not n.startswith("_") and n != "layer_idx")


def _edit(name: str, attribute: str, lost: np.ndarray, position: int = 0) -> ChannelEdit:
    indices = tuple(np.nonzero(lost)[0].tolist())
    return ChannelEdit(layer=name, side=Side.ATTRIBUTE, indices=indices, dimension=position, attribute=attribute)
