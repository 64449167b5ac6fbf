"""From operations and sizes to a schedule."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from edgeprune.graph.lifetimes import Key, Operation, lifetimes
from edgeprune.records.memory import LiveTensor, Schedule


def make_schedule(
    operations: Sequence[Operation[Key]],
    sizes: Mapping[Key, tuple[int, float]],
    inputs: Collection[Key],
    outputs: Collection[Key],
    weight_bytes: int,
) -> Schedule:
    """The schedule of a graph.

    Args:
        operations: in the order in which they run.
        sizes: (elements, bytes of one) of every tensor that is no constant.
        inputs: of the graph.
        outputs: of the graph.
        weight_bytes: of all constants.
    """
    found = lifetimes(operations, inputs, outputs)
    tensors = tuple(
        LiveTensor(name=str(key), elements=sizes[key][0], element_bytes=sizes[key][1], first=first, last=last)
        for key, (first, last) in found.spans.items()
    )
    return Schedule(steps=found.steps, tensors=tensors, weight_bytes=weight_bytes)
