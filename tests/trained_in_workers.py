"""What tests hand to other processes: those import it by name."""

from __future__ import annotations

import os
import signal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.data.splits import VOID
from edgeprune.errors import InputError


class NormFree(nn.Module):
    """A convolution, a LayerNorm and a linear layer: no example sees another. Input [n, 3, 8, 8], 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 3)
        self.unused = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(functional.relu(self.conv(x)).mean(3).flatten(1)))


class Normed(nn.Module):
    """The same with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.norm(self.conv(x))).mean(3).flatten(1))


class Pixels(nn.Module):
    """Classes of each pixel. Input [n, 3, 8, 8], output [n, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.conv(x)))


def stripes(examples: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright stripe at one of three heights."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, examples)
    inputs = generator.normal(0, 0.3, (examples, 3, 8, 8)).astype(np.float32)
    for image, label in zip(inputs, labels, strict=True):
        image[:, 2 * label + 1] += 1.5
    return inputs, labels


def striped_masks(examples: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """The same images with their class at each pixel, of which none, most or all are void."""
    inputs, classes = stripes(examples)
    masks = np.tile(classes[:, np.newaxis, np.newaxis], (1, 8, 8))
    for mask, rows in zip(masks, np.random.default_rng(1).choice([0, 6, 8], examples), strict=True):
        mask[:rows] = VOID
    return inputs, masks


def noise(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation."""
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


def die_in_worker(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation whose process is killed."""
    os.kill(os.getpid(), signal.SIGKILL)
    return inputs


def refuse(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation that finds fault with its input."""
    raise InputError("training.augment: no good", key="training.augment")
