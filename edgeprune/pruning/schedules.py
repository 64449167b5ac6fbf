"""How far each round of pruning goes towards the final ratio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def geometric_ratios(final: float, rounds: int) -> tuple[float, ...]:
    """The ratio after each round, each taking the same fraction of what remains; the last one is exactly `final`.

    Raises:
        InputError: as for `linear_ratios`.

    Source: Frankle and Carbin 2019, "The Lottery Ticket Hypothesis", section 2, arXiv:1803.03635.
    """
    _check(final, rounds)
    return (*(1 - (1 - final) ** (done / rounds) for done in range(1, rounds)), final)


def one_shot_ratios(final: float, rounds: int) -> tuple[float, ...]:
    """All at once, however many rounds there might be.

    Raises:
        InputError: as for `linear_ratios`.
    """
    _check(final, rounds)
    return (final,)


def stepped_ratios(final: float, steps: Sequence[tuple[int, float]], epochs: int) -> tuple[tuple[float, int], ...]:
    """Rounds by explicit steps: when in training how much is to be out, such as during distillation.

    Args:
        final: the ratio in the end, in [0, 1].
        steps: (epoch, share of the final ratio), ascending; the last share is 1.
        epochs: of the whole training.

    Returns:
        (ratio, epochs of training after it) for each round. Where the first step is not at epoch 0, the first round
        takes nothing.

    Raises:
        InputError: out of these ranges.
    """
    _check(final, len(steps))
    starts, shares = [epoch for epoch, _ in steps], [share for _, share in steps]
    ascending = starts == sorted(set(starts)) and shares == sorted(set(shares))
    if not (ascending and starts[0] >= 0 and starts[-1] <= epochs and shares[0] > 0 and shares[-1] == 1):
        raise InputError(
            f"steps: expected (epoch, share) ascending, from epoch 0 to {epochs} and to a share of 1, got {list(steps)}"
        )
    if starts[0] > 0:
        starts, shares = [0, *starts], [0.0, *shares]
    ends = [*starts[1:], epochs]
    return tuple((final * share, end - start) for start, share, end in zip(starts, shares, ends, strict=True))


SCHEDULES: Final[Mapping[str, Callable[[float, int], tuple[float, ...]]]] = {
    "one_shot": one_shot_ratios,
    "linear": linear_ratios,
    "geometric": geometric_ratios,
    "cubic": cubic_ratios,
}
"""By the name that `recovery.schedule` has in target.toml; `steps` is `stepped_ratios`."""


def _check(final: float, rounds: int) -> None:
    if not 0 <= final <= 1:
        raise InputError(f"pruning ratio: expected a number from 0 to 1, got {final}")
    if rounds < 1:
        raise InputError(f"rounds: expected at least 1, got {rounds}")
