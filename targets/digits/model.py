"""Handwritten digits: a small residual network on scikit-learn's data, made as an example to copy.

`target.toml` beside this file names the four functions at the end: `build_model`, `load_data` and `augment`
(and, where a loss of your own is wanted, one more). Nothing else is looked at.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune import DataSplits, Split

PIXEL_REPEAT = 4
"""The 8x8 images are shown to the network as 32x32."""
SPLIT_SEED = 20_240_229
"""The split is part of the task, so it does not follow the build's seed."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; a 1x1 convolution joins them where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, h, w] to [batch, out_channels, h / stride, w / stride]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsNet(nn.Module):
    """A stem, three residual blocks and a classifier: 12 million multiply-accumulates."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(ResidualBlock(32, 32, 1), ResidualBlock(32, 64, 2), ResidualBlock(64, 128, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 32, 32] to logits [batch, 10]."""
        x = self.blocks(functional.relu(self.bn(self.stem(x))))
        logits: Tensor = self.classifier(torch.flatten(self.pool(x), 1))
        return logits


def build_model() -> nn.Module:
    """The network with fresh weights; edgeprune seeds torch before it calls this."""
    return DigitsNet()


def load_data(seed: int) -> DataSplits:  # noqa: ARG001
    """The 1,797 images of `sklearn.datasets.load_digits`: 60 % to train, 20 % to choose by, 20 % to report on.

    Raw arrays are [n, 1, 32, 32], uint8, from 0 to 16; `[preprocessing]` in target.toml brings them to about -1 to 1.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = digits.images.astype(np.uint8)[:, np.newaxis]
    images = small.repeat(PIXEL_REPEAT, axis=2).repeat(PIXEL_REPEAT, axis=3)
    labels = digits.target.astype(np.int64)
    train, validation, test = _stratified(labels, shares=(0.6, 0.2))
    return DataSplits(
        train=Split(images[train], labels[train]),
        validation=Split(images[validation], labels[validation]),
        test=Split(images[test], labels[test]),
        class_names=tuple(str(name) for name in digits.target_names),
    )


def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image of a training batch by up to two pixels each way; what moves in is background (-1)."""
    count, _, height, width = inputs.shape
    padded = functional.pad(inputs, (2, 2, 2, 2), value=-1.0)
    down, right = torch.randint(0, 5, (2, count, 1), generator=generator)
    rows = down + torch.arange(height)
    columns = right + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def _stratified(labels: np.ndarray, shares: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of three parts, with the same mix of classes in each; the last part is the rest."""
    generator = np.random.default_rng(SPLIT_SEED)
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        ends = np.round(np.cumsum(shares) * len(members)).astype(int)
        for part, chosen in zip(parts, np.split(members, ends), strict=True):
            part.append(chosen)
    train, validation, test = (np.sort(np.concatenate(part)) for part in parts)
    return train, validation, test
