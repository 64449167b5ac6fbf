"""The torch side of every compiler: a private copy of the model, an example, and the shape of what comes out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from edgeprune.data.parts import named_outputs
from edgeprune.errors import BuildError, InputError
from edgeprune.records.artifact import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a compiler starts from.

    Attributes:
        model: a copy on the CPU, in eval mode.
        example: [1, ...], float32 or integers, the same values at every call.
        outputs: in the order of what the model returns: a tensor, or a tuple of them.
    """

    model: nn.Module
    example: Tensor
    inputs: TensorSpec
    outputs: tuple[TensorSpec, ...]


def prepare(model: nn.Module, inputs: TensorSpec) -> Source:
    """Copy the model and run it once.

    Args:
        model: takes one tensor and returns one, or a flat tuple or dict of them; left alone.
        inputs: shape with the batch of 1 in front, dtype float32, int32 or int64.

    Raises:
        BuildError: the model's input or output is something else.
    """
    import torch

    if inputs.dtype not in _EXAMPLES or inputs.shape[:1] != (1,):
        kinds = ", ".join(_EXAMPLES)
        raise BuildError(
            f"expected a model input of {kinds} with a batch of 1, got {inputs.dtype} {list(inputs.shape)}"
        )
    frozen = copy.deepcopy(model).cpu().eval()
    example = _EXAMPLES[inputs.dtype](inputs.shape)
    with torch.no_grad():
        returned = frozen(example)
    try:
        outputs = named_outputs(returned)
    except InputError as error:
        raise BuildError(error.message) from error
    others = sorted({str(tensor.dtype) for tensor in outputs.values() if tensor.dtype != torch.float32})
    if others:
        raise BuildError(f"expected a model that returns float32 tensors, got {', '.join(others)}")
    folded = _folded(frozen, example, tuple(outputs.values()))
    return Source(
        model=folded if isinstance(returned, torch.Tensor) else _flat(folded),
        example=example,
        inputs=TensorSpec(name="input", shape=inputs.shape, dtype=inputs.dtype),
        outputs=tuple(
            TensorSpec(name=name, shape=tuple(tensor.shape), dtype="float32") for name, tensor in outputs.items()
        ),
    )


def _random(shape: Sequence[int]) -> Tensor:
    import torch

    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))


def _ids(shape: Sequence[int], dtype: str) -> Tensor:
    """A half of ones and a half of zeros along the last axis: ids that every vocabulary has, and padding where 0 is.

    All ones would hide a mask: a tracer that sees nothing masked may leave the mask out.
    """
    import torch

    example = torch.zeros(tuple(shape), dtype=getattr(torch, dtype))
    example[..., : (shape[-1] + 1) // 2] = 1
    return example


_EXAMPLES: Final[dict[str, Callable[[Sequence[int]], Tensor]]] = {
    "float32": _random,
    "int32": partial(_ids, dtype="int32"),
    "int64": partial(_ids, dtype="int64"),
}


def _flat(model: nn.Module) -> nn.Module:
    """A model that returns a tensor, or a tuple of tensors, in place of a dict, a list or a tuple of one."""
    from torch import nn

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input: Tensor) -> Tensor | tuple[Tensor, ...]:  # noqa: A002
            found = tuple(named_outputs(self.model(input)).values())
            return found if len(found) > 1 else found[0]

    return Flat().eval()


def _folded(model: nn.Module, example: Tensor, outputs: tuple[Tensor, ...]) -> nn.Module:
    """The model with its batch norms folded into the convolutions before them; as it is, where that cannot be done.

    The ONNX exporter and OpenVINO fold by themselves. The TFLite converter does so for 2-D convolutions only: behind a
    1-D one a trained norm stays as MUL and ADD (1.9x slower on a small depthwise-separable net), while the identity of
    an untrained one is dropped, so that the shape measured before training was not the shape that shipped.
    """
    import torch
    from torch.fx.experimental.optimization import fuse

    try:
        folded = fuse(model, inplace=False)
        with torch.no_grad():
            found = named_outputs(folded(example)).values()
        same = all(
            torch.allclose(here, output, rtol=1e-4, atol=1e-5 * float(output.abs().max()))
            for here, output in zip(found, outputs, strict=True)
        )
    except Exception as error:  # noqa: BLE001 - what cannot be traced may raise anything, and none of it matters
        _log.debug("batch norms are left to the converter: %s", error)
        return model
    return folded.eval() if same else model


def static_shape(name: str, dimensions: Sequence[int | None]) -> tuple[int, ...]:
    """The shape that a file's tensor has at a batch of 1; None stands for what the file leaves open.

    Raises:
        BuildError: more than the batch is open.
    """
    shape = tuple(1 if size is None and axis == 0 else size for axis, size in enumerate(dimensions))
    if None in shape:
        raise BuildError(f"tensor {name!r}: expected a fixed shape apart from the batch, got {list(dimensions)}")
    return tuple(size for size in shape if size is not None)
