"""The staircase: latency of an operator of the model's own kind against its width, on the device.

Latency against width is not monotone (ONNX Runtime on AVX-512, 3x3 convolutions: 31 channels 0.629 ms, 32 channels
0.359 ms), so a width is only worth choosing when no larger one is as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgeprune.records.operators import OperatorShape, OperatorUse
from edgeprune.records.staircase import Staircase


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
        widths: of the group, any order.
        latency_ms: the table entry of an operator.
        context: runtime, precision and threads, for the record.
    """
    touched = [u for u in uses if group in u.groups and not u.unsupported]
    points = ((w, sum(latency_ms(u.at({group: w})) for u in touched)) for w in sorted(set(widths)))
    return Staircase(operator=f"{group} {context}", points=tuple(points))
