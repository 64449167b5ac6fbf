"""Which layers masks may touch, and why the others keep all their weights."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from torch import nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.graph.names import match_layers
from edgeprune.graph.outputs import output_layers

if TYPE_CHECKING:
    from torch import Tensor

MAKES_OUTPUT: Final = "it makes the model's output, and pruning.classifier is false"
NEVER_CALLED: Final = "the model never calls it"

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedLayer:
    """A layer with weights of two dimensions or more; `reason` says why masks leave them alone, empty where not.

    A weight that several layers share is the first one's.
    """

    layer: str
    weights: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maskable:
    """All weights of a model that are no biases and norms, in the model's order."""

    weighted: tuple[WeightedLayer, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Those that masks may zero: what a criterion is asked about."""
        return tuple(x.layer for x in self.weighted if not x.reason)

    @property
    def left_dense(self) -> tuple[WeightedLayer, ...]:
        """Those that masks leave alone, with the reasons."""
        return tuple(x for x in self.weighted if x.reason)

    def without(self, reasons: Mapping[str, str]) -> Maskable:
        """Leave more layers dense, each for its reason; what is left dense already keeps its own."""
        return Maskable(weighted=tuple(replace(x, reason=x.reason or reasons.get(x.layer, "")) for x in self.weighted))

    def scored_by(self, scores: Container[str]) -> Maskable:
        """Leave layers without scores dense.

        Criteria that watch what layers read and make have none of a layer that the model never calls: zeros there would
        count and change nothing.
        """
        return self.without({n: NEVER_CALLED for n in self.layers if n not in scores})


def find_maskable(
    model: nn.Module, example: Tensor, ignored: Sequence[str] = (), *, classifier: bool = False
) -> Maskable:
    """Find the layers whose weights may be zeroed one by one.

    Those are convolutions and linear layers. Embeddings, and what shares a weight with one, are never masked; nor are
    recurrent layers, attention's packed projection and bare parameters: no criterion scores their single weights.

    Args:
        model: left alone.
        example: one input, with its batch dimension: what makes the output is found by running the model.
        ignored: layers to keep dense; `*` is a wildcard.
        classifier: let masks into the layers that make the model's output as well.

    Raises:
        InputError: an ignored name that matches no layer, or the model does not run on the example.
    """
    kept = match_layers(model, ignored, key="pruning.ignored")
    outputs = frozenset[str]() if classifier else output_layers(model, example)
    owners = _owners(model)
    found: dict[str, WeightedLayer] = {}
    for name, attribute, parameter in _weights(model):
        layer, sharing = model.get_submodule(name), owners[id(parameter)]
        reason = _unmasked(layer, attribute, sharing) or _held(sharing, kept, outputs)
        # What a subclass has beside its weight is told apart from it.
        own = name if attribute == "weight" or not isinstance(layer, _ConvNd | nn.Linear) else f"{name}.{attribute}"
        before = found[own].weights if own in found else 0
        found[own] = WeightedLayer(layer=own, weights=before + parameter.numel(), reason=reason)
    return Maskable(weighted=tuple(found.values()))


def _weights(model: nn.Module) -> list[tuple[str, str, nn.Parameter]]:
    """(layer, attribute, weight), each weight once."""
    found: dict[int, tuple[str, str, nn.Parameter]] = {}
    for name, layer in model.named_modules():
        for attribute, parameter in layer.named_parameters(recurse=False):
            if parameter.dim() > 1:
                found.setdefault(id(parameter), (name, attribute, parameter))
    return list(found.values())


def _owners(model: nn.Module) -> dict[int, dict[str, nn.Module]]:
    """By weight, the layers that have it as their own."""
    found: dict[int, dict[str, nn.Module]] = {}
    for name, layer in model.named_modules(remove_duplicate=False):
        for parameter in layer.parameters(recurse=False):
            found.setdefault(id(parameter), {})[name] = layer
    return found


def _unmasked(layer: nn.Module, attribute: str, sharing: Mapping[str, nn.Module]) -> str:
    """Why there are no masks for this kind of weight; empty where there are."""
    embeddings = [n for n, m in sharing.items() if isinstance(m, _EMBEDDINGS)]
    if embeddings and not isinstance(layer, _EMBEDDINGS):
        return f"its weight is that of embedding {embeddings[0]!r} too, and embeddings are never masked"
    if embeddings:
        return "embeddings are never masked"
    if isinstance(layer, _ConvNd | nn.Linear) and attribute == "weight":
        return ""
    return f"no criterion scores single weights of a {type(layer).__name__}"


def _held(sharing: Mapping[str, nn.Module], kept: frozenset[str], outputs: frozenset[str]) -> str:
    if kept.intersection(sharing):
        return "pruning.ignored names it"
    return MAKES_OUTPUT if outputs.intersection(sharing) else ""
