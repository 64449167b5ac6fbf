"""The torch side of every compiler: a private copy of the model, an example, and the shape of what comes out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.errors import BuildError
from edgeprune.records.artifact import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a compiler starts from.

    Attributes:
        model: a copy on the CPU, in eval mode.
        example: [1, ...], float32, the same values at every call.
    """

    model: nn.Module
    example: Tensor
    inputs: TensorSpec
    outputs: TensorSpec


def prepare(model: nn.Module, inputs: TensorSpec) -> Source:
    """Copy the model and run it once.

    Args:
        model: takes one tensor and returns one; left alone.
        inputs: shape with the batch of 1 in front, dtype float32.

    Raises:
        BuildError: the model's input or output is something else.
    """
    import torch

    if inputs.dtype != "float32" or inputs.shape[:1] != (1,):
        raise BuildError(f"expected a float32 model input with a batch of 1, got {inputs.dtype} {list(inputs.shape)}")
    frozen = copy.deepcopy(model).cpu().eval()
    example = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = frozen(example)
    if not isinstance(output, torch.Tensor) or output.dtype != torch.float32:
        found = f"a {output.dtype} tensor" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise BuildError(f"expected a model that returns one float32 tensor, got {found}")
    return Source(
        model=_folded(frozen, example, output),
        example=example,
        inputs=TensorSpec(name="input", shape=inputs.shape, dtype="float32"),
        outputs=TensorSpec(name="output", shape=tuple(output.shape), dtype="float32"),
    )


def _folded(model: nn.Module, example: Tensor, output: Tensor) -> nn.Module:
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
            same = torch.allclose(folded(example), output, rtol=1e-4, atol=1e-5 * float(output.abs().max()))
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
