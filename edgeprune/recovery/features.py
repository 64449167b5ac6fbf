"""Learning from what lies inside the teacher: the outputs of named layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import InputError
from edgeprune.graph.modes import evaluating
from edgeprune.registry import suggest

_IMAGES = 4
_POINTWISE: Final[Mapping[int, Callable[[int, int, int], nn.Module]]] = {3: nn.Conv1d, _IMAGES: nn.Conv2d, 5: nn.Conv3d}
"""By the dimensions of a feature whose channels come second."""


class Taps:
    """What named layers gave in the last forward pass. To be closed, or used in a `with`: it hangs on the model.

    Args:
        model: its layers get a forward hook each.
        layers: their names, as `named_modules` has them.
        whose: for messages: `student` or `teacher`.

    Raises:
        InputError: there is no such layer; the message has the closest.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], whose: str) -> None:
        self._layers, self._whose = tuple(layers), whose
        self._found: dict[str, object] = {}
        modules = dict(model.named_modules())
        for layer in layers:
            if layer not in modules:
                known = tuple(n for n in modules if n)
                raise InputError(f"features: the {whose} has no layer {layer!r}{suggest(layer, known)}", layer=layer)
        self._handles = [modules[layer].register_forward_hook(self._keep(layer)) for layer in dict.fromkeys(layers)]

    def take(self) -> tuple[Tensor, ...]:
        """The layers' outputs in the order of their names, float32; they are forgotten here.

        Raises:
            InputError: a layer was not run, or gave something else than a tensor.
        """
        taken = tuple(self._tensor(layer) for layer in self._layers)
        self._found.clear()
        return taken

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, layer: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(_module: nn.Module, _inputs: tuple[object, ...], output: object) -> None:
            self._found[layer] = output

        return hook

    def _tensor(self, layer: str) -> Tensor:
        found = self._found.get(layer)
        if not isinstance(found, Tensor):
            what = "was not run" if found is None else f"gives a {type(found).__name__}, not a tensor"
            raise InputError(f"features: the {self._whose}'s layer {layer!r} {what}", layer=layer)
        return found.float()


class TappedStudent(nn.Module):
    """A student that also gives its features, brought to the teacher's widths by learned adapters.

    The adapters help in training only; the model inside never sees them.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], adapters: nn.ModuleList) -> None:
        super().__init__()
        self.model, self.adapters = model, adapters
        self._taps = Taps(model, layers, "student")

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The model's outputs, and one adapted feature a layer."""
        outputs = self.model(inputs)
        features = self._taps.take()
        return outputs, tuple(adapter(f) for adapter, f in zip(self.adapters, features, strict=True))

    def close(self) -> None:
        """Take the hooks off the model."""
        self._taps.close()


@torch.no_grad()
def make_adapters(
    student: nn.Module, teacher: nn.Module, layers: Sequence[tuple[str, str]], example: Tensor, seed: int = 0
) -> nn.ModuleList:
    """One module a pair of layers, from the student's feature to the teacher's width; nothing where they agree.

    Args:
        student: in eval mode here, and as it was afterwards.
        teacher: likewise.
        layers: (student's layer, teacher's layer).
        example: [examples, ...], preprocessed; one is enough.
        seed: of the adapters' initial weights.

    Raises:
        InputError: an unknown layer, or two features that no linear map of one dimension brings together.

    Source: the regressor of Romero et al. 2015, "FitNets", section 2.2, arXiv:1412.6550.
    """
    ours, theirs = (
        _shapes(model, [pair[side] for pair in layers], example, whose)
        for side, (model, whose) in enumerate(((student, "student"), (teacher, "teacher")))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.ModuleList(
            _adapter(*shapes, f"{a} of the student and {b} of the teacher")
            for shapes, (a, b) in zip(zip(ours, theirs, strict=True), layers, strict=True)
        )


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square difference, as a share of the teacher's mean square, so that layers of any scale count alike.

    Args:
        student: [batch, channels, height, width], [batch, tokens, width] or [batch, width], adapted.
        teacher: likewise; of images the larger one is averaged to the smaller one's pixels.

    Returns:
        A scalar, at least 0; 0 where both agree.

    Source: the hint loss of Romero et al. 2015, "FitNets", equation 3, arXiv:1412.6550, divided by the mean square.
    """
    if student.dim() == _IMAGES and student.shape[2:] != teacher.shape[2:]:
        height, width = (min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
        student = functional.adaptive_avg_pool2d(student, (height, width))
        teacher = functional.adaptive_avg_pool2d(teacher, (height, width))
    scale = teacher.square().mean().clamp_min(torch.finfo(torch.float32).tiny)
    return (student - teacher).square().mean() / scale


def _shapes(model: nn.Module, layers: list[str], example: Tensor, whose: str) -> list[torch.Size]:
    with evaluating(model), Taps(model, layers, whose) as taps:
        model(example)
        return [feature.shape for feature in taps.take()]


def _adapter(ours: torch.Size, theirs: torch.Size, where: str) -> nn.Module:
    alike, images = len(ours) == len(theirs), len(ours) == len(theirs) == _IMAGES
    if alike and ours[1:-1] == theirs[1:-1]:
        # Images with their channels last are among these.
        return nn.Identity() if ours[-1] == theirs[-1] else nn.Linear(ours[-1], theirs[-1])
    if images and ours[1] == theirs[1]:
        return nn.Identity()
    if images or (alike and len(ours) in _POINTWISE and ours[2:] == theirs[2:]):
        return _POINTWISE[len(ours)](ours[1], theirs[1], 1)
    raise InputError(f"features: {where}: no adapter from shape {tuple(ours[1:])} to {tuple(theirs[1:])}")
