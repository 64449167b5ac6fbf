"""Proving a cut before anybody relies on it.

The cut model must compute what the whole model computes with the same channels switched off. That it runs is not
enough: a wrong index map (a channel shuffle, attention heads, a padded shortcut) can give a model that runs and
computes something else.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.dispatch import DispatchMode
from edgeprune.graph.slicing import ChannelEdit, Side, remove_channels_, switch_off_

TOLERANCE = 1e-4
"""Of the largest output. Float32 noise stayed under 1e-6 in all 37 groups of a ResNet-50 (measured 2026-11-21)."""


class TrialVerdict(StrEnum):
    """What a trial cut showed."""

    SOUND = "sound"
    CHANGES_OUTPUT = "changes output"
    """The group makes the model's output: its width is not ours to change."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The verdict on one cut; `reason` is a sentence for people where it was refused."""

    verdict: TrialVerdict
    reason: str = ""


class TrialBench:
    """A randomised copy of a model on which cuts are tried.

    Weights are redrawn so that a zero in them (a zero-initialised branch, say) cannot hide a wrong index map.

    Raises:
        InputError: the model does not run on the example, or its output is not made of tensors.
    """

    def __init__(self, model: nn.Module, example: Tensor, *, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._model = copy.deepcopy(model).cpu().eval()
        self._example = self._random(example.shape) if example.is_floating_point() else example.cpu()
        self._shapes = [tuple(o.shape) for o in run(self._model, self._example)]
        self._randomise_()
        for layer in self._model.modules():
            if _is_root_mean_square(layer):
                layer.register_forward_hook(_scaled_only)

    def removed_part(self, units: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """The channels of a quarter to three quarters of the units, drawn at random so that a shifted index map shows.

        As many as chance will: two groups that must have one width (heads whose output is reshaped to the width of the
        stream) would pass a trial of both if the same share of each were cut.
        """
        least, most = -(-len(units) // 4), len(units) * 3 // 4
        count = int(torch.randint(least, most + 1, (), generator=self._generator)) if least <= most else 0
        drawn = torch.randperm(len(units), generator=self._generator)[:count].tolist()
        return tuple(sorted(channel for unit in drawn for channel in units[unit]))

    def try_cuts(self, cuts: Mapping[str, Sequence[ChannelEdit]]) -> dict[str, Trial]:
        """The verdict on each of several cuts of different channels, by its name.

        Weights are random, so where all cuts at once compute what they should, each one does. Where they do not, each
        half is tried.
        """
        if not cuts:
            return {}
        found = self.try_cut([edit for edits in cuts.values() for edit in edits])
        if found.verdict is TrialVerdict.SOUND or len(cuts) == 1:
            return dict.fromkeys(cuts, found)
        names = list(cuts)
        first, rest = names[: len(names) // 2], names[len(names) // 2 :]
        return self.try_cuts({n: cuts[n] for n in first}) | self.try_cuts({n: cuts[n] for n in rest})

    def try_cut(self, edits: Sequence[ChannelEdit]) -> Trial:
        """Cut a copy and compare it with the whole model whose consumers ignore the removed channels."""
        # The tensors are shared: a cut replaces tensors and never writes into them.
        shared = {id(t): t for t in (*self._model.parameters(), *self._model.buffers())}
        cut = copy.deepcopy(self._model, shared)
        try:
            _cut_(cut, edits)
            found = self._run(cut)
        except BuildError as error:
            return Trial(verdict=TrialVerdict.REFUSED, reason=error.message)
        except InputError as error:
            return Trial(verdict=TrialVerdict.REFUSED, reason=f"after a trial cut {error.message}")
        if [tuple(o.shape) for o in found] != self._shapes:
            return Trial(verdict=TrialVerdict.CHANGES_OUTPUT)
        with self._switched_off(edits):
            expected = self._run(self._model)
        if not all(bool(o.isfinite().all()) for o in (*found, *expected)):
            return Trial(verdict=TrialVerdict.REFUSED, reason="the output is not finite after a trial cut")
        if not all(_close(a, b) for a, b in zip(found, expected, strict=True)):
            return Trial(
                verdict=TrialVerdict.REFUSED,
                reason="a trial cut computes something else than the model with those channels switched off: they are "
                "mixed in a way that the trace does not show (reshape, shuffle, padding, attention heads)",
            )
        return Trial(verdict=TrialVerdict.SOUND)

    @contextmanager
    def _switched_off(self, edits: Sequence[ChannelEdit]) -> Iterator[None]:
        """Zero what the consumers take from the removed channels, and put it back afterwards."""
        layers = {e.layer: self._model.get_submodule(e.layer) for e in edits if e.side in {Side.IN, Side.OUT}}
        saved = [(p, p.detach().clone()) for layer in layers.values() for p in layer.parameters(recurse=False)]
        for edit in edits:
            if edit.layer in layers:
                switch_off_(layers[edit.layer], edit.side, edit.indices)
        try:
            yield
        finally:
            for weight, before in saved:
                weight.detach().copy_(before)

    def _run(self, model: nn.Module) -> tuple[Tensor, ...]:
        with without_fast_path(), _ChannelNorms():
            return run(model, self._example)

    def _random(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self._generator)

    @torch.no_grad()
    def _randomise_(self) -> None:
        for parameter in self._model.parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.dim() > 1:
                fan_in = parameter.numel() / parameter.shape[0]
                parameter.copy_(self._random(parameter.shape) / math.sqrt(fan_in))
            else:
                parameter.copy_(torch.rand(parameter.shape, generator=self._generator) + 0.5)
        for layer in self._model.modules():
            if isinstance(layer, _NormBase) and layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.copy_(self._random(layer.running_mean.shape) * 0.1)
                layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=self._generator) + 0.5)


def _cut_(model: nn.Module, edits: Sequence[ChannelEdit]) -> None:
    """Cut; what the model's own modules answer to a changed weight becomes a BuildError."""
    try:
        remove_channels_(model, edits)
    except BuildError:
        raise
    except Exception as error:
        raise BuildError(f"it cannot be cut: {type(error).__name__}: {error}") from error


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Torch's encoder layers run their own modules, and not one operation for all of them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@torch.no_grad()
def run(model: nn.Module, example: Tensor) -> tuple[Tensor, ...]:
    """The output tensors of a model, flattened out of tuples, lists and dicts.

    Raises:
        InputError: the model raises, or its output holds something else than tensors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = model(example)
    except Exception as error:  # Any user code may run here, so anything may come.
        first_line = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"the model does not run on an input shaped {tuple(example.shape)}: {type(error).__name__}: {first_line}"
        ) from error
    return tuple(_tensors(output))


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)
    elif isinstance(output, dict):
        for part in output.values():
            yield from _tensors(part)
    else:
        raise InputError(f"expected a model whose output is made of tensors, got {type(output).__name__}")


class _ChannelNorms(DispatchMode):
    """Layer and group norms without their statistics.

    Those mix all channels, so that taking some out changes all; by channel they can be compared.
    """

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        name = getattr(function, "__name__", "").split(".")[0]
        output = function(*args, **(kwargs or {}))
        if name == "native_layer_norm":
            values, _, weight, bias = args[:4]
            return _affine(values, weight, bias), *output[1:]  # type: ignore[index]
        if name == "native_group_norm":
            values, weight, bias = args[:3]
            shape = (-1, *([1] * (values.dim() - 2)))
            by_channel = (None if t is None else t.reshape(shape) for t in (weight, bias))
            return _affine(values, *by_channel), *output[1:]  # type: ignore[index]
        return output


def _affine(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = values.clone() if weight is None else values * weight
    return scaled if bias is None else scaled + bias


def _is_root_mean_square(layer: nn.Module) -> bool:
    """torch's, or one that somebody wrote: a scale a feature and nothing else learned."""
    if "Norm" not in type(layer).__name__ or isinstance(layer, _NormBase | nn.LayerNorm | nn.GroupNorm):
        return False
    return [(n, p.dim()) for n, p in layer.named_parameters()] == [("weight", 1)]


def _scaled_only(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
    values, weight = arguments[0], layer.weight
    if not isinstance(weight, Tensor) or values.shape[-1:] != weight.shape or values.shape != output.shape:
        return output
    return values * weight


def _close(found: Tensor, expected: Tensor) -> bool:
    if not found.is_floating_point():
        return bool((found == expected).all())
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return bool(((found - expected).abs() <= TOLERANCE * max(scale, 1e-6)).all())
