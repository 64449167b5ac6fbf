"""Micro-models: operators in the company that they have in a real model, so that a difference shows what they cost.

The operator stands between a stem, which brings a few input channels to the operator's own number, and a head that
reads a few pixels of what it makes. The same without the operator is its base. Layout conversions, the runtime's own
time, and what feeds and reads the operator are in both, so they cancel. The head reads a window of its own size at one
place: pooling would cost time in proportion to the channels, and OpenVINO would move the stride of a 1x1 kernel to the
layer before.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.operators import OperatorShape

STEM_CHANNELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """What surrounds an operator: operators of the same company are priced against the same base.

    Attributes:
        input_channels: of the model.
        extent: spatial size of the model's input; empty where it has features last.
        rows: of a model's input that has features last.
        channels: that the stem makes; 0 where the operator reads the model's input itself.
        added: whether there is a branch of two layers as wide as its input, to which its output is added.
        kernel: of those layers, where they are convolutions.
    """

    input_channels: int
    extent: tuple[int, ...]
    rows: int
    channels: int
    added: bool = False
    kernel: tuple[int, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """With the batch of 1 in front."""
        if self.extent:
            return (1, self.input_channels, *self.extent)
        return (1, self.rows, self.input_channels) if self.rows > 1 else (1, self.input_channels)


@dataclass(frozen=True, slots=True)
class MicroModel:
    """An operator in its company, or the company alone."""

    company: Company
    shape: OperatorShape | None = None

    @property
    def name(self) -> str:
        """Unique among micro-models."""
        if self.shape is not None:
            return self.shape.name
        sizes = "x".join(map(str, self.company.input_shape[1:]))
        added = f"-add{'x'.join(map(str, self.company.kernel))}" if self.company.added else ""
        return f"base-{sizes}-{self.company.channels}{added}"

    @property
    def base(self) -> MicroModel:
        """The company alone: what the operator costs is the difference to its latency."""
        return MicroModel(self.company)


def micro_model(shape: OperatorShape) -> MicroModel:
    """The micro-model of an operator."""
    added = shape.kind == "add"
    company = Company(
        input_channels=shape.in_channels if shape.at_input else STEM_CHANNELS,
        extent=shape.extent,
        rows=shape.rows,
        channels=0 if shape.at_input else shape.in_channels,
        added=added,
        kernel=shape.after or (1,) * len(shape.extent) if added else (),
    )
    return MicroModel(company, shape)
