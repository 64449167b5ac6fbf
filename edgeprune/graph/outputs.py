"""Which layers make a model's output: between them and it no other layer multiplies by weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn

from edgeprune.graph.dispatch import DispatchMode
from edgeprune.graph.traced import tensors
from edgeprune.graph.trial import run, without_fast_path

_PRODUCTS: Final = frozenset({
    "mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "linear", "convolution", "_convolution",
    "mkldnn_convolution", "mkldnn_rnn_layer", "embedding", "_embedding_bag", "index", "index_select", "gather",
})  # fmt: skip
"""Operations whose result the weights make that they take; others, such as a norm, pass on what they are given."""


def output_layers(model: nn.Module, example: Tensor) -> frozenset[str]:
    """The layers that make the model's output: its classifier, or the last layer of each of its heads.

    They are found by following one run, not by the order in which they were registered. A layer whose result reaches
    an output by a shortcut only, so that another one adds to it what was computed from it, is not the last.

    Args:
        model: left alone.
        example: one input, with its batch dimension.

    Returns:
        Names of the modules that own the weights, all of them where several share one.

    Raises:
        InputError: the model does not run on the example.
    """
    # The tensors are shared: nothing writes into them.
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared).eval()
    follower = _Follower(copied, example)
    with without_fast_path(), follower:
        outputs = run(copied, example)
    return frozenset(name for output in outputs for name in follower.last(output))


@dataclass(frozen=True, slots=True)
class _Source:
    """What a tensor was made of. Layers are numbers.

    Attributes:
        nearest: layers without another one between them and the tensor.
        all_before: every layer that had a say.
        of_input: whether the model's input had one; else it is made of weights alone, or a constant.
    """

    nearest: frozenset[int] = frozenset()
    all_before: frozenset[int] = frozenset()
    of_input: bool = False

    def __or__(self, other: _Source) -> _Source:
        return _Source(
            self.nearest | other.nearest, self.all_before | other.all_before, self.of_input or other.of_input
        )


def _union(sources: Iterable[_Source]) -> _Source:
    found = _Source()
    for source in sources:
        found |= source
    return found


class _Follower(DispatchMode):
    """Holds what every tensor was made of, by the address of its memory, which views share."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        self._known: dict[int, _Source] = {_address(example): _Source(of_input=True)}
        self._owners: list[set[str]] = []
        self._before: list[frozenset[int]] = []
        # An address is given away again as soon as its tensor is gone.
        self._alive: list[Tensor] = [example]
        numbers: dict[int, int] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if parameter.dim() > 1:
                number = numbers.setdefault(_address(parameter), len(numbers))
                if number == len(self._owners):
                    self._owners.append(set())
                    self._before.append(frozenset())
                    self._known[_address(parameter)] = _Source(nearest=frozenset({number}))
                self._owners[number].add(name.rpartition(".")[0])

    def last(self, output: Tensor) -> set[str]:
        """The layers that make a tensor, without those that another of them was computed from."""
        nearest = self._source(output).nearest
        early = {n for n in nearest for m in nearest if n in self._before[m] and m not in self._before[n]}
        return {name for number in nearest - early for name in self._owners[number]}

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        output = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "").split(".")[0].removesuffix("_")
        found = self._made(name, [self._source(t) for t in tensors((args, kwargs or {}))])
        for tensor in tensors((output,)):
            self._alive.append(tensor)
            # Of what is written into a part, the rest stays what it was.
            self._known[_address(tensor)] = found | self._source(tensor)
        return output

    def _made(self, name: str, operands: list[_Source]) -> _Source:
        given = _union(s for s in operands if s.of_input)
        weights = _union(s for s in operands if not s.of_input)
        if not given.of_input:
            return weights
        if name not in _PRODUCTS or not weights.nearest:
            return given
        for number in weights.nearest:
            self._before[number] |= given.all_before
        return _Source(weights.nearest, given.all_before | weights.nearest, of_input=True)

    def _source(self, tensor: Tensor) -> _Source:
        return self._known.get(_address(tensor), _Source())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
