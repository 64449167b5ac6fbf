"""From when until when tensors live, by the order in which operations read and make them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Operation(Generic[Key]):
    """One operation of a graph.

    Attributes:
        reads, makes: tensors by key; it reads one at least.
        in_place: its first output can take the place of its first input, where nobody reads that afterwards.
        view: its first output is another look at its first input's memory.
    """

    name: str
    reads: tuple[Key, ...]
    makes: tuple[Key, ...]
    in_place: bool = False
    view: bool = False


@dataclass(frozen=True, slots=True)
class Lifetimes(Generic[Key]):
    """What is left of the operations: the steps that write something, and the span of steps of each tensor they write.

    Attributes:
        spans: (first, last) by tensor; what took another one's place is not there.
    """

    steps: tuple[str, ...]
    spans: Mapping[Key, tuple[int, int]]


def lifetimes(
    operations: Sequence[Operation[Key]], inputs: Collection[Key], outputs: Collection[Key]
) -> Lifetimes[Key]:
    """Follow the tensors of a graph.

    Args:
        operations: in the order in which they run. What none of them makes and is no input is a constant, and not
            counted; neither is what comes of constants alone.
        inputs: of the graph: the caller holds them all the time.
        outputs: likewise, from when they are made.
    """
    kept = _computed(operations, inputs)
    viewed = _views(kept, inputs)
    held = {viewed[key] for key in (*inputs, *outputs) if key in viewed}
    last_read = {
        viewed[key]: number for number, operation in enumerate(kept) for key in operation.reads if key in viewed
    }
    place: dict[Key, Key] = {key: key for key in inputs}
    first: dict[Key, int] = dict.fromkeys(inputs, 0)
    last: dict[Key, int] = dict.fromkeys(inputs, 0)
    steps: list[str] = []
    for number, operation in enumerate(kept):
        given = [place[viewed[key]] for key in operation.reads if key in viewed]
        source = viewed.get(operation.reads[0])
        dies = source not in held and source is not None and last_read[source] == number
        replaces = operation.in_place and dies
        if not (replaces or operation.view):
            steps.append(operation.name)
        step = max(len(steps) - 1, 0)
        made = [viewed[key] for key in operation.makes if viewed[key] not in place]
        for position, key in enumerate(made):
            place[key] = given[0] if replaces and position == 0 else key
            first.setdefault(place[key], step)
        last.update(dict.fromkeys((*given, *(place[key] for key in made)), step))
    end = max(len(steps) - 1, 0)
    kept_by_caller = {place[key] for key in held}
    spans = {key: (first[key], end if key in kept_by_caller else last[key]) for key in first}
    return Lifetimes(steps=tuple(steps), spans=spans)


def _computed(operations: Sequence[Operation[Key]], inputs: Collection[Key]) -> list[Operation[Key]]:
    """Without those that only prepare constants."""
    known = set(inputs)
    kept = []
    for operation in operations:
        if known.intersection(operation.reads):
            known.update(operation.makes)
            kept.append(operation)
    return kept


def _views(operations: Sequence[Operation[Key]], inputs: Collection[Key]) -> dict[Key, Key]:
    """By tensor, the one whose memory it looks at; itself where it has its own."""
    found = {key: key for key in inputs}
    for operation in operations:
        for position, key in enumerate(operation.makes):
            source = found.get(operation.reads[0])
            looks = operation.view and position == 0 and source is not None
            found[key] = source if looks and source is not None else key
    return found
