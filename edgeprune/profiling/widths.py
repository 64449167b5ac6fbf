"""The staircase: latency of an operator of the model's own kind against its width, on the device.

Latency against width is not monotone (ONNX Runtime on AVX-512, 3x3 convolutions: 31 channels 0.629 ms, 32 channels
0.359 ms), so a width is only worth choosing when no larger one is as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgeprune.records.operators import OperatorShape, OperatorUse
from edgeprune.records.staircase import Staircase

_STEP = 8
_WIDE = 256
_WIDE_STEP = 16
_SMALLEST_KNEE = 16


def widths_to_measure(full: int) -> tuple[int, ...]:
    """The widths of a group that are worth measuring, ascending.

    Multiples of 8 (of 16 for groups of 256 and more), because vector kernels work on so many channels at a time; the
    full width; and one below each power of two, where the cliff beside a knee shows.
    """
    step = _STEP if full < _WIDE else _WIDE_STEP
    beside = [2**k - 1 for k in range(full.bit_length() + 1) if _SMALLEST_KNEE <= 2**k <= full]
    return tuple(sorted({*range(step, full + 1, step), *beside, full}))


def group_shapes(uses: Iterable[OperatorUse], group: str, widths: Iterable[int]) -> tuple[OperatorShape, ...]:
    """The operators that change with a group, at each of its widths, all other groups at their full one."""
    touched = [u for u in uses if group in u.groups and not u.unsupported]
    return tuple(dict.fromkeys(u.at({group: width}) for width in widths for u in touched))


def group_staircase(
    uses: Iterable[OperatorUse],
    group: str,
    widths: Iterable[int],
    latency_ms: Callable[[OperatorShape], float],
    *,
    context: str,
) -> Staircase:
    """What the operators that change with a group take together, at each of its widths, in milliseconds.

    Args:
        uses: of the model.
        group: its name.
        widths: of the group, any order; see `widths_to_measure`.
        latency_ms: the table entry of an operator.
        context: runtime, precision and threads, for the record.
    """
    touched = [u for u in uses if group in u.groups and not u.unsupported]
    points = ((w, sum(latency_ms(u.at({group: w})) for u in touched)) for w in sorted(set(widths)))
    return Staircase(operator=f"{group} {context}", points=tuple(points))
