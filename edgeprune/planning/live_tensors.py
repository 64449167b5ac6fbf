"""The schedule of a compiled graph as a function of the groups' widths.

A compiled graph does not say which group a tensor's channels belong to; the model's own calls do (`graph.activations`).
Both make the same tensors in the same order, but for what the runtime adds (paddings, copies, quantized twins) or fuses
away. So the compiled tensors, with their sizes at full and at the narrowest widths, are laid beside those of the model:
where the sizes agree, in order, they are the same; what is left over follows the nearest one that shrinks by the same
share. The lifetimes and the element types are those of the compiled graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edgeprune.records.memory import LiveTensor, OpenSchedule, OpenTensor, Schedule

_Sizes: TypeAlias = tuple[float, float]
"""Elements at full and at the narrowest widths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The schedule with open widths, and how much of it was found in the model.

    Attributes:
        share: of all bytes at full widths that follow the model's tensors, or do not depend on the widths. What is
            missing to 1 counts at its full size, whatever the widths.
    """

    schedule: OpenSchedule
    share: float


def follow_groups(
    dense: Schedule, narrow: Schedule, calls: OpenSchedule, full: Mapping[str, int], ends: Mapping[str, int]
) -> Followed | None:
    """Open the widths of a compiled schedule.

    Args:
        dense: of the model compiled at its full widths.
        narrow: of the model compiled at the narrowest ones.
        calls: of the model.
        full: width by group.
        ends: the narrowest ones by group.

    Returns:
        None where the two compiled graphs differ in more than sizes.
    """
    if not _alike(dense, narrow):
        return None
    pairs = [(a, b) for a, b in zip(dense.tensors, narrow.tensors, strict=True)]
    pairs.sort(key=lambda pair: pair[0].first)
    compiled: list[_Sizes] = [(float(a.elements), float(b.elements)) for a, b in pairs]
    known: list[_Sizes] = [(t.elements(full), t.elements(ends)) for t in calls.tensors]
    opened, found_bytes, all_bytes = [], 0.0, 0.0
    for (tensor, _), sizes, twin in zip(pairs, compiled, _twins(compiled, known), strict=True):
        followed = twin is not None or sizes[0] == sizes[1]
        all_bytes += tensor.size_bytes
        found_bytes += tensor.size_bytes if followed else 0.0
        opened.append(_opened(tensor, calls.tensors[twin] if twin is not None else None, full))
    schedule = OpenSchedule(steps=dense.steps, tensors=tuple(opened))
    return Followed(schedule=schedule, share=found_bytes / all_bytes if all_bytes else 1.0)


def _alike(dense: Schedule, narrow: Schedule) -> bool:
    def skeleton(schedule: Schedule) -> list[tuple[float, int, int]]:
        return [(t.element_bytes, t.first, t.last) for t in schedule.tensors]

    return len(dense.steps) == len(narrow.steps) and skeleton(dense) == skeleton(narrow)


def _opened(tensor: LiveTensor, twin: OpenTensor | None, full: Mapping[str, int]) -> OpenTensor:
    fixed, by_group = float(tensor.elements), tuple[tuple[str, float], ...]()
    if twin is not None:
        scale = tensor.elements / twin.elements(full)
        fixed, by_group = scale * twin.fixed, tuple((group, scale * each) for group, each in twin.by_group)
    return OpenTensor(
        name=tensor.name,
        fixed=fixed,
        by_group=by_group,
        element_bytes=tensor.element_bytes,
        first=tensor.first,
        last=tensor.last,
    )


def _twins(compiled: Sequence[_Sizes], known: Sequence[_Sizes]) -> list[int | None]:
    """By compiled tensor, the model's that it follows; None where it does not depend on the widths or none is found."""
    same = _common(compiled, known)
    twins: list[int | None] = []
    near = 0.0
    for number, (dense, narrow) in enumerate(compiled):
        near = same.get(number, near)
        shrinks = dense != narrow
        alike = [i for i, (a, b) in enumerate(known) if shrinks and a and a * narrow == b * dense]
        twins.append(min(alike, key=lambda i: abs(i - near), default=None))
    return twins


def _common(first: Sequence[_Sizes], second: Sequence[_Sizes]) -> dict[int, int]:
    """Positions in the first by positions in the second of the longest sequence that both have in this order."""
    lengths = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(len(first) - 1, -1, -1):
        for j in range(len(second) - 1, -1, -1):
            skipped = max(lengths[i + 1][j], lengths[i][j + 1])
            lengths[i][j] = lengths[i + 1][j + 1] + 1 if first[i] == second[j] else skipped
    found, i, j = dict[int, int](), 0, 0
    while i < len(first) and j < len(second):
        if first[i] == second[j]:
            found[i] = j
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return found
