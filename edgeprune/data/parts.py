"""One array, or a tuple of several: what a model gives, and what it is compared with.

A model with one output gives an array; one with several gives a tuple, in the model's own order. Labels are the same:
an array, or a tuple of arrays with the examples along the first dimension of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from edgeprune.errors import InputError
from edgeprune.protocols import Arrays

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Part = TypeVar("Part")
Other = TypeVar("Other")

Tensors: TypeAlias = "Tensor | tuple[Tensor, ...]"


def parts_of(value: Part | tuple[Part, ...]) -> tuple[Part, ...]:
    """All parts, also of one that stands alone."""
    return value if isinstance(value, tuple) else (value,)


def sole(value: Part | tuple[Part, ...]) -> Part:
    """What stands alone, or the first part: the class scores of a classifier, and its labels."""
    return parts_of(value)[0]


def mapped(function: Callable[[Part], Other], value: Part | tuple[Part, ...]) -> Other | tuple[Other, ...]:
    """A function of each part; one that stands alone stays alone."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def named_outputs(returned: object) -> dict[str, Tensor]:
    """The tensors that a model returned, by name: a dict's keys, else `output`, or `output_0`, `output_1` and so on.

    Args:
        returned: a tensor; or a tuple, list or dict of tensors, such as an output of `transformers`.

    Raises:
        InputError: it is something else, nested, or empty.
    """
    from torch import Tensor

    if isinstance(returned, Mapping):
        found = dict(returned)
    elif isinstance(returned, tuple | list):
        found = {f"output_{number}": part for number, part in enumerate(returned)}
    else:
        found = {"output": returned}
    others = {type(part).__name__ for part in found.values() if not isinstance(part, Tensor)}
    if others or not found:
        kinds = ", ".join(sorted(others)) or "nothing"
        raise InputError(
            f"expected a model that returns a tensor, or a flat tuple or dict of tensors, got {kinds} in a "
            f"{type(returned).__name__}; return from `forward` only what the device shall compute"
        )
    return found if len(found) > 1 else {"output": next(iter(found.values()))}


def outputs_of(returned: object) -> Tensors:
    """What a model returned as one tensor, or as a tuple of several in the model's order, in float32 each.

    Raises:
        InputError: see `named_outputs`.
    """
    tensors = tuple(part.float() for part in named_outputs(returned).values())
    return tensors if len(tensors) > 1 else tensors[0]


def label_tensors(labels: Arrays | Tensors) -> Tensors:
    """Labels as losses take them: int64 for integers and booleans, float32 for the rest."""
    import torch

    def tensor(part: np.ndarray | Tensor) -> Tensor:
        found = torch.as_tensor(part)
        return found.float() if found.is_floating_point() else found.long()

    return tuple(map(tensor, labels)) if isinstance(labels, tuple) else tensor(labels)
