"""Operators as `graph/operators.py` lists them, made by hand."""

from __future__ import annotations

from edgeprune.records.operators import ChannelPart, OperatorShape, OperatorUse


def conv_use(layer: str, into: str | None, out: str | None, *, width: int = 16, pixels: int = 8) -> OperatorUse:
    """A 3x3 convolution of as many channels out as in, between two groups; None for channels that nobody cuts."""
    shape = OperatorShape(
        kind="conv",
        in_channels=width,
        out_channels=width,
        kernel=(3, 3),
        stride=(1, 1),
        padding=(1, 1),
        dilation=(1, 1),
        extent=(pixels, pixels),
    )
    parts = [(ChannelPart(group=g, width=width),) if g else () for g in (into, out)]
    return OperatorUse(layer=layer, shape=shape, in_parts=parts[0], out_parts=parts[1])
