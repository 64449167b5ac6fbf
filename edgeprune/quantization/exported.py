"""Which weights follow which, read from the graph that torch.export makes of a model: it sees what modules hide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edgeprune.libraries import library_call

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

# What scales with its input, channel by channel, for positive factors. ReLU6 and GELU do not.
_SCALING = (
    "relu",
    "relu_",
    "leaky_relu",
    "leaky_relu_",
    "dropout",
    "dropout_",
    "feature_dropout",
    "max_pool1d",
    "max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "flatten",
)
_KEEPING_LAST_AXIS = ("dropout", "dropout_", "transpose", "permute", "contiguous", "clone", "to", "_to_copy")
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution or a linear layer, by the names of its parameters."""

    weight: str
    bias: str | None
    groups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A batch norm between two layers, or a layer norm before some, by the names of its parameters and buffers."""

    weight: str
    bias: str
    variance: str | None = None
    epsilon: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two layers whose channels may be scaled against each other: nothing else reads what lies between."""

    first: Layer
    norm: Norm | None
    second: Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothable:
    """A layer norm whose output is read by linear layers only; `node` names it in the graph."""

    norm: Norm
    readers: tuple[Layer, ...]
    node: str


def exported(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """The model's graph in eval mode, parameters under their own names.

    Raises:
        BuildError: torch.export refuses the model.
    """
    with library_call("torch.export: cannot trace the model"):
        program: Any = torch.export.export(model.eval(), (example,))
        graph_module: fx.GraphModule = program.module()
        return graph_module


def find_pairs(graph: fx.Graph) -> tuple[Pair, ...]:
    """All neighbours in the order in which they run, such as Conv-BN-ReLU-Conv, depthwise ones included."""
    return tuple(pair for node in graph.nodes for pair in _pairs_from(node))


def find_smoothable(graph: fx.Graph) -> tuple[Smoothable, ...]:
    """All layer norms that feed linear layers and nothing else."""
    found = []
    for node in graph.nodes:
        norm = _layer_norm(node)
        readers = tuple(_readers(node)) if norm else ()
        layers = tuple(layer for layer in readers if layer is not None)
        if norm and layers and len(layers) == len(readers):
            found.append(Smoothable(norm=norm, readers=layers, node=node.name))
    return tuple(found)


def _pairs_from(node: fx.Node) -> Iterator[Pair]:
    first = _layer(node)
    if first is None:
        return
    norm, current = None, node
    while len(current.users) == 1:
        (current,) = current.users
        name = _operation(current)
        second = _layer(current)
        if second is not None:
            yield Pair(first=first, norm=norm, second=second)
            return
        if name == "batch_norm" and norm is None and current.args[0] is node:
            norm = _batch_norm(current)
            if norm is None:
                return
        elif name not in _SCALING:
            return


def _readers(node: fx.Node) -> Iterator[Layer | None]:
    for user in node.users:
        if _operation(user) == "linear":
            yield _layer(user)
        elif _operation(user) in _KEEPING_LAST_AXIS and _last_axis(user) == _last_axis(node):
            yield from _readers(user)
        else:
            yield None


def _last_axis(node: fx.Node) -> int:
    return int(node.meta["val"].shape[-1])


def _operation(node: fx.Node) -> str:
    """`conv2d` of `aten.conv2d.default`; empty for what is no call."""
    return node.target._schema.name.split("::")[-1] if hasattr(node.target, "_schema") else ""  # noqa: SLF001


def _layer(node: fx.Node) -> Layer | None:
    """None for other nodes, and for weights that are computed or shared."""
    name = _operation(node)
    if name not in (*_CONVOLUTIONS, "linear"):
        return None
    weight, bias = _parameter(node, 1), _parameter(node, 2)
    if weight is None or (bias is None and _argument(node, 2) is not None):
        return None
    groups = _argument(node, 6) if name in _CONVOLUTIONS else 1
    return Layer(weight=weight, bias=bias, groups=int(groups or 1))


def _batch_norm(node: fx.Node) -> Norm | None:
    weight, bias, variance = (_parameter(node, position) for position in (1, 2, 4))
    if weight is None or bias is None or variance is None:
        return None
    return Norm(weight=weight, bias=bias, variance=variance, epsilon=float(_argument(node, 7)))


def _layer_norm(node: fx.Node) -> Norm | None:
    if _operation(node) != "layer_norm":
        return None
    weight, bias = _parameter(node, 2), _parameter(node, 3)
    return Norm(weight=weight, bias=bias) if weight and bias else None


def _argument(node: fx.Node, position: int) -> Any:  # noqa: ANN401
    """By position, or by name where it was given so; None where it was left out."""
    if position < len(node.args):
        return node.args[position]
    target: Any = node.target
    return node.kwargs.get(target._schema.arguments[position].name)  # noqa: SLF001


def _parameter(node: fx.Node, position: int) -> str | None:
    """The name of a parameter or buffer that only this node reads."""
    value: Any = _argument(node, position)
    is_own = getattr(value, "op", None) == "get_attr" and len(value.users) == 1
    return str(value.target) if is_own else None
