"""Least squares for the weights of a layer: all of them, or for each output those that a mask keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_RIDGES = (1e-3, 3e-2, 1.0)
"""Of the mean second moment of the inputs: the one that fits best what it was not fitted to is taken."""

_ITERATIONS = 100
_ENOUGH = 1e-8
"""Of the squared residual that the conjugate gradients began with."""

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over rows; float64.

    Attributes:
        inner: [groups, inputs, inputs], of what is read with itself.
        outer: [groups, outputs of a group, inputs], of what is missing in the outputs with what is read.
    """

    inner: Tensor
    outer: Tensor

    @classmethod
    def none(cls, weight: Tensor) -> Self:
        """Of no rows yet.

        Args:
            weight: [groups, outputs of a group, inputs].
        """
        groups, outputs, inputs = weight.shape
        shapes = (groups, inputs, inputs), (groups, outputs, inputs)
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add_(self, rows: Tensor, missing: Tensor) -> None:
        """Take rows into account: [groups, rows, inputs] and [groups, rows, outputs of a group]."""
        self.inner.add_(rows.transpose(1, 2) @ rows)
        self.outer.add_(missing.transpose(1, 2) @ rows)

    def gain(self, step: Tensor) -> float:
        """By how much a step of the weights lowers the sum of the squares that are missing in these rows."""
        return float((2 * step * self.outer - (step @ self.inner) * step).sum())


def best_step(fitted: Moments, held: Moments, allowed: Tensor | None) -> Tensor:
    """The change of the weights that makes up for what is missing.

    The ridge is the one whose fit to one part of the rows gains most on the other; where none gains, nothing changes.

    Args:
        fitted: rows to fit to.
        held: other rows.
        allowed: [groups, outputs of a group, inputs], which weights may change; None for all.

    Returns:
        [groups, outputs of a group, inputs], float64.
    """
    gains = [held.gain(_solve(fitted, ridge, allowed)) for ridge in _RIDGES]
    best = max(range(len(gains)), key=gains.__getitem__)
    # NaN, as from weights that are, is no gain.
    if not gains[best] > 0:
        return torch.zeros_like(fitted.outer)
    return _solve(Moments(fitted.inner + held.inner, fitted.outer + held.outer), _RIDGES[best], allowed)


def _solve(moments: Moments, ridge: float, allowed: Tensor | None) -> Tensor:
    sizes = moments.inner.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True).clamp_min(1e-12)
    inner = moments.inner + torch.diag_embed((ridge * sizes).expand(moments.inner.shape[:2]))
    if allowed is not None:
        return _masked_solve(inner, moments.outer, allowed.double())
    step: Tensor = torch.linalg.solve(inner, moments.outer, left=False)
    return step


def _masked_solve(inner: Tensor, outer: Tensor, allowed: Tensor) -> Tensor:
    """[groups, outputs, inputs]: for each output the least squares over the inputs that its mask allows.

    Conjugate gradients, all outputs at once, scaled by the diagonal: each output has another set of inputs, and so
    many factorisations would take hours for wide layers.
    """
    scale = inner.diagonal(dim1=1, dim2=2)[:, None, :]
    found = torch.zeros_like(outer)
    residual = outer * allowed
    direction = residual / scale
    product = (residual * direction).sum(dim=2, keepdim=True)
    first = product.sum()
    for _ in range(_ITERATIONS):
        if not bool(product.sum() > _ENOUGH * first):
            break
        turned = (direction @ inner) * allowed
        length = product / (direction * turned).sum(dim=2, keepdim=True).clamp_min(_TINY)
        found += length * direction
        residual -= length * turned
        scaled = residual / scale
        new = (residual * scaled).sum(dim=2, keepdim=True)
        direction = scaled + (new / product.clamp_min(_TINY)) * direction
        product = new
    return found
