"""The operators of a model: what each computes, and how its channels follow the widths of the model's groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

WEIGHTLESS: Final = frozenset({"add", "average"})

OF_OUTPUTS_ALONE: Final = WEIGHTLESS | {"depthwise"}
"""Kinds whose inputs are as wide as their outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorShape:
    """All that the latency of an operator depends on, besides the place where it runs: the key of a table's entry.

    Attributes:
        kind: `conv`, `depthwise` or `linear`, with what is fused into it; `add`: of two tensors, as after a residual
            branch, priced on top of the operator that makes one of them; `average`: of all pixels of each channel.
        in_channels, out_channels: features for a linear layer.
        kernel, stride, padding, dilation, extent: of a convolution, one entry a spatial dimension; the extent is that
            of its input. Of an addition only the extent is set, where there is one, and of an average.
        after: kernel of the convolution that an addition follows, which decides what it can be fused into; empty for
            other kinds, and after a layer of another kind.
        groups: of a convolution.
        rows: of a linear layer's input, or of an addition without an extent: product of all dimensions between batch
            and features.
        activation: what follows it directly, such as `relu`; empty for nothing.
        at_input: it reads the model's input, and pays for bringing that into the runtime's layout.
    """

    kind: Literal["conv", "depthwise", "linear", "add", "average"]
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    extent: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    groups: int = 1
    rows: int = 1
    activation: str = ""
    at_input: bool = False

    @property
    def name(self) -> str:
        """Short, unique and fit for a file: `conv3x3s1-16x32-e32-relu`, `linear-64x128-r16-gelu`."""
        parts = [f"{self.kind}{_joined(self.kernel)}" + (f"s{_short(self.stride)}" if self.kernel else "")]
        parts += [f"after{_joined(self.after)}"] if self.after else []
        parts.append(f"{self.in_channels}x{self.out_channels}")
        parts.append(f"e{_short(self.extent)}" if self.extent else f"r{self.rows}")
        if self.padding != tuple(k // 2 for k in self.kernel):
            parts.append(f"p{_short(self.padding)}")
        if set(self.dilation) - {1}:
            parts.append(f"d{_short(self.dilation)}")
        if self.groups > 1 and self.kind != "depthwise":
            parts.append(f"g{self.groups}")
        parts += [self.activation] if self.activation else []
        parts += ["in"] if self.at_input else []
        return "-".join(parts)

    @property
    def out_extent(self) -> tuple[int, ...]:
        """Spatial size of a convolution's output; 1 for an average, that of the input for other kinds."""
        if self.kind == "average":
            return (1,) * len(self.extent)
        if not self.kernel:
            return self.extent
        sides = zip(self.extent, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((e + 2 * p - d * (k - 1) - 1) // s + 1 for e, k, s, p, d in sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPart:
    """Channels of an operator that belong to one group.

    Attributes:
        group: its name.
        width: of the group as the model is.
        per_channel: the operator's channels for each one of the group's: pixels of a channel after a flatten, say; half
            a channel where a gate makes one of two.
    """

    group: str
    width: int
    per_channel: float = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorUse:
    """One operator where it stands in the model.

    Attributes:
        layer: as `named_modules` has it; of an addition, the layer that makes one of its operands.
        shape: at the model's full widths.
        in_parts, out_parts: the groups that its channels belong to; channels in none of them are fixed. Several parts
            are a concatenation.
        unsupported: why no table can price it; empty where one can. It counts as a constant then.
    """

    layer: str
    shape: OperatorShape
    in_parts: tuple[ChannelPart, ...] = ()
    out_parts: tuple[ChannelPart, ...] = ()
    unsupported: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that its shape depends on, each once."""
        return tuple(dict.fromkeys(p.group for p in (*self.in_parts, *self.out_parts)))

    def narrowed(self, widths: Mapping[str, int]) -> OperatorUse:
        """The operator in a model whose full widths are these; a group that is not named keeps its own."""

        def parts(of: tuple[ChannelPart, ...]) -> tuple[ChannelPart, ...]:
            return tuple(replace(part, width=widths.get(part.group, part.width)) for part in of)

        return replace(self, shape=self.at(widths), in_parts=parts(self.in_parts), out_parts=parts(self.out_parts))

    def at(self, widths: Mapping[str, int]) -> OperatorShape:
        """Its shape where groups have these widths; a group that is not named keeps its full one."""
        out_channels = _at(self.shape.out_channels, self.out_parts, widths)
        if self.shape.kind in OF_OUTPUTS_ALONE:
            groups = out_channels if self.shape.kind == "depthwise" else 1
            # Of a single channel it is an ordinary convolution, to torch and to the runtimes.
            kind = "conv" if self.shape.kind == "depthwise" and groups == 1 else self.shape.kind
            return replace(self.shape, kind=kind, in_channels=out_channels, out_channels=out_channels, groups=groups)
        in_channels = _at(self.shape.in_channels, self.in_parts, widths)
        return replace(self.shape, in_channels=in_channels, out_channels=out_channels)


def _at(full: int, parts: tuple[ChannelPart, ...], widths: Mapping[str, int]) -> int:
    return full - round(sum((p.width - widths.get(p.group, p.width)) * p.per_channel for p in parts))


def _joined(values: tuple[int, ...]) -> str:
    return "x".join(map(str, values))


def _short(values: tuple[int, ...]) -> str:
    """`32` for a square."""
    return str(values[0]) if len(set(values)) == 1 else _joined(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEntry:
    """What one operator costs at one place: a device, a runtime, a precision, threads and their cores.

    Attributes:
        operator: the name of its shape.
        latency_ms: what the operator adds to the company it was measured in; not under 0.
        alone_ms: latency of that company without it.
        measured_unix_s: when.
        disturbed: what may have made it wrong; empty where nothing did.
    """

    operator: str
    latency_ms: float
    alone_ms: float
    measured_unix_s: float
    disturbed: str = ""
