"""Ranges of attention scores that a mask has been added to, in a TFLite file.

What is masked gets minus infinity, or a number that stands for it. As a range, that is of no use either way:
calibration leaves out infinities and the lowest float, and the mask becomes all zeros; -1e4 takes the whole range, and
all scores become equal. On SMS messages that are padded to 32 tokens a small BERT fell from 98.7 to 55.7 %
(ai-edge-quantizer 0.10), and no choice of ranges or of layers to leave in float brought it back.

A masked score needs to be no lower than what softmax rounds to nothing beside the lowest score that is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgeprune.quantization.schemes._tflite_graph import TfliteGraph

_STANDS_FOR_INFINITY = -1000.0
"""No score of attention is as low: models that add a number for their masks take -1e4 or less."""
_MARGIN = 8.0
"""exp(-8) is a twelfth of the step of 1 / 256 that an INT8 softmax has."""


class Ranked(NamedTuple):
    """A tensor by its name; a range has as many dimensions as it."""

    name: str
    rank: int


@dataclass(frozen=True)
class MaskedScores:
    """Scores before and after a mask.

    Attributes:
        scores: without the mask; a name.
        masked: with it, and what that is reshaped to on its way to softmax.
        mask: what is added; None where scores are replaced instead.
        computed: whether arithmetic makes the mask, whose factors int8 has no scale for.
    """

    scores: str
    masked: tuple[Ranked, ...]
    mask: Ranked | None = None
    computed: bool = False


def masked_scores(graphs: Iterable[TfliteGraph]) -> tuple[MaskedScores, ...]:
    """The masked scores of every softmax of a file."""
    return tuple(found for graph in graphs for found in _of_graph(graph))


def bound_(ranges: dict[str, Any], found: Iterable[MaskedScores]) -> None:
    """Let masked scores end a margin under the lowest score, in what is quantized.

    Args:
        ranges: [min, max] by tensor, as the quantizer takes them; those of masks and masked scores are replaced.
        found: in the file that they are of; scores without a range are left out.
    """
    lowest: dict[Ranked, float] = {}
    for each in found:
        if each.scores not in ranges:
            continue
        scores = ranges[each.scores]
        low, high = float(np.min(scores["min"])), float(np.max(scores["max"]))
        if each.mask is not None:
            # With it the highest score comes to where masked ones end, in every layer that has this mask.
            lowest[each.mask] = min(low - high - _MARGIN, lowest.get(each.mask, 0.0))
            _set_range(ranges, each.mask, lowest[each.mask], 0.0)
        for tensor in each.masked:
            _set_range(ranges, tensor, low - _MARGIN, high)


def _set_range(ranges: dict[str, Any], tensor: Ranked, low: float, high: float) -> None:
    shape = (1,) * tensor.rank
    ends = {"min": np.full(shape, low, np.float32), "max": np.full(shape, high, np.float32)}
    ranges[tensor.name] = {**ranges.get(tensor.name, {}), **ends}


def _of_graph(graph: TfliteGraph) -> Iterator[MaskedScores]:
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    for softmax in (o for o in graph.subgraph.operators if graph.kind(o) == kinds.SOFTMAX):
        index, path = softmax.inputs[0], list[Ranked]()
        while (maker := graph.makers.get(index)) is not None:
            path.append(_ranked(graph, index))
            if graph.kind(maker) in {kinds.RESHAPE, kinds.TRANSPOSE}:
                index = maker.inputs[0]
                continue
            chosen = graph.kind(maker) in {kinds.SELECT, kinds.SELECT_V2}
            if chosen or graph.kind(maker) == kinds.ADD:
                # A choice between two has what it chooses by first.
                operands = list(maker.inputs)[1:] if chosen else list(maker.inputs)
                masks = [i for i in operands if _is_mask(graph, i)]
                scores = [graph.name(i) for i in operands if i not in masks]
                if len(masks) == len(scores) == 1:
                    yield _described(graph, scores[0], tuple(path), None if chosen else masks[0])
            break


def _described(graph: TfliteGraph, scores: str, masked: tuple[Ranked, ...], added: int | None) -> MaskedScores:
    from ai_edge_litert import schema_py_generated as schema

    if added is None:
        return MaskedScores(scores=scores, masked=masked)
    kinds, maker = schema.BuiltinOperator, graph.makers.get(added)
    computed = maker is not None and graph.kind(maker) not in {kinds.SELECT, kinds.SELECT_V2}
    return MaskedScores(scores=scores, masked=masked, mask=_ranked(graph, added), computed=computed)


def _ranked(graph: TfliteGraph, index: int) -> Ranked:
    return Ranked(name=graph.name(index), rank=len(graph.subgraph.tensors[index].shape))


def _is_mask(graph: TfliteGraph, index: int) -> bool:
    """Whether it is made from a constant that stands for minus infinity, and from no layer."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    layers = {kinds.BATCH_MATMUL, kinds.FULLY_CONNECTED, kinds.CONV_2D, kinds.SOFTMAX}
    pending, seen = [index], set[int]()
    while pending:
        tensor = pending.pop()
        if tensor in seen or tensor < 0:
            continue
        seen.add(tensor)
        values, maker = graph.constant(tensor), graph.makers.get(tensor)
        if values is not None and values.size and float(values.min()) <= _STANDS_FOR_INFINITY:
            return True
        if maker is not None:
            if graph.kind(maker) in layers:
                return False
            pending += list(maker.inputs)
    return False
