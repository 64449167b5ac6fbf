"""The staircase: latency of an operator of the model's own kind against its width, on the device.

Latency against width is not monotone (ONNX Runtime on AVX-512, 3x3 convolutions: 31 channels 0.629 ms, 32 channels
0.359 ms), so a width is only worth choosing when no larger one is as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.records.operators import OperatorShape, OperatorUse
from edgeprune.records.staircase import Staircase

if TYPE_CHECKING:
    from torch import nn

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


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorKind:
    """An operator without its width.

    Attributes:
        kind: `conv` or `linear`.
        kernel: of a convolution, one entry a spatial dimension; empty for a linear layer.
        extent: spatial size of a convolution's input in each dimension; rows of a linear layer's input.
    """

    kind: str
    kernel: tuple[int, ...] = ()
    extent: int = 16

    @property
    def name(self) -> str:
        """`conv3x3` or `linear`."""
        return self.kind + "x".join(str(k) for k in self.kernel)


def measure_staircase(
    kind: OperatorKind,
    widths: Sequence[int],
    measure_p50_ms: Callable[[nn.Module, tuple[int, ...], str], float],
    *,
    context: str,
) -> Staircase:
    """Measure the operator at each width, as many channels in as out.

    Args:
        kind: what to measure.
        widths: channels or features, any order.
        measure_p50_ms: called with a model of one operator, its input shape with the batch of 1, and a name.
        context: runtime, precision and threads, for the record.
    """
    points = []
    for width in sorted(set(widths)):
        model, shape = micro_model(kind, width)
        points.append((width, measure_p50_ms(model, shape, f"{kind.name}-{width}")))
    return Staircase(operator=f"{kind.name} {context}, extent {kind.extent}", points=tuple(points))


def micro_model(kind: OperatorKind, width: int) -> tuple[nn.Module, tuple[int, ...]]:
    """Two operators of one width with an activation between: what a runtime fuses in a real model, it fuses here."""
    from torch import nn

    if kind.kind == "linear":
        layers: list[nn.Module] = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        return nn.Sequential(*layers).eval(), (1, kind.extent, width)
    layers = [module for _ in range(2) for module in (_convolution(kind.kernel, width), nn.ReLU())]
    return nn.Sequential(*layers).eval(), (1, width, *([kind.extent] * len(kind.kernel)))


def _convolution(kernel: tuple[int, ...], width: int) -> nn.Module:
    from torch import nn

    if len(kernel) == 1:
        return nn.Conv1d(width, width, kernel[0], padding=kernel[0] // 2)
    return nn.Conv2d(width, width, (kernel[0], kernel[1]), padding=(kernel[0] // 2, kernel[1] // 2))
