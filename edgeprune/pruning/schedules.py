"""How far each round of pruning goes towards the final ratio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from edgeprune.errors import InputError


def linear_ratios(final: float, rounds: int) -> tuple[float, ...]:
    """The ratio after each round, in equal steps; the last one is exactly `final`.

    Args:
        final: in [0, 1].
        rounds: at least 1.

    Raises:
        InputError: out of these ranges.
    """
    _check(final, rounds)
    return (*(final * done / rounds for done in range(1, rounds)), final)


def cubic_ratios(final: float, rounds: int) -> tuple[float, ...]:
    """The ratio after each round, large steps first while weights are plentiful; the last one is exactly `final`.

    Raises:
        InputError: as for `linear_ratios`.

    Source: Zhu and Gupta 2017, "To prune, or not to prune" (automated gradual pruning), equation 1, with an initial
    sparsity of 0, arXiv:1710.01878.
    """
    _check(final, rounds)
    return (*(final * (1 - (1 - done / rounds) ** 3) for done in range(1, rounds)), final)


SCHEDULES: Final[Mapping[str, Callable[[float, int], tuple[float, ...]]]] = {
    "linear": linear_ratios,
    "cubic": cubic_ratios,
}
"""By the name that `recovery.schedule` has in target.toml."""


def _check(final: float, rounds: int) -> None:
    if not 0 <= final <= 1:
        raise InputError(f"pruning ratio: expected a number from 0 to 1, got {final}")
    if rounds < 1:
        raise InputError(f"rounds: expected at least 1, got {rounds}")
