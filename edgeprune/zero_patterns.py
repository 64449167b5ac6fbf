"""Patterns of zeros by name: `unstructured`, N:M such as `2:4`, and blocks such as `block4x1`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

UNSTRUCTURED: Final = "unstructured"
PATTERN: Final = r"^(unstructured|[1-9][0-9]{0,2}:[1-9][0-9]{0,2}|block[1-9][0-9]{0,2}x[1-9][0-9]{0,2})$"


@dataclass(frozen=True, slots=True)
class ZeroPattern:
    """What a name says; an unstructured one has neither.

    Attributes:
        n_m: so many of every so many weights along the inputs stay.
        block: (output channels, inputs) that are zero together.
    """

    n_m: tuple[int, int] | None = None
    block: tuple[int, int] | None = None

    def fits(self, outputs: int, inputs: int) -> bool:
        """Whether weights of so many outputs, with so many inputs each (times the kernel), can have such zeros."""
        rows, columns = self.block or (1, 1 if self.n_m is None else self.n_m[1])
        return outputs % rows == 0 and inputs % columns == 0


def parse_pattern(name: str) -> ZeroPattern:
    """From its name.

    Raises:
        ValueError: it is none; says what is expected.
    """
    if not re.fullmatch(PATTERN, name):
        raise ValueError(f"{name!r} is no pattern of zeros: expected unstructured, N:M (2:4), or blockRxC (block4x1)")
    if name == UNSTRUCTURED:
        return ZeroPattern()
    first, second = (int(number) for number in re.findall("[0-9]+", name))
    if name.startswith("block"):
        return ZeroPattern(block=(first, second))
    if first >= second:
        raise ValueError(f"{name!r}: of every {second} weights fewer than {second} must stay")
    return ZeroPattern(n_m=(first, second))


def checked_pattern(name: str) -> str:
    """The name itself, if `parse_pattern` takes it."""
    parse_pattern(name)
    return name
