"""ResNet-20 on CIFAR-10, from the public weights of Yerlan Idelbayev (2018, BSD-2-Clause).

The folder that `$EDGEPRUNE_DATA` names must hold `cifar10/` and `cifar10_resnets/`; README.md beside this file says how
they are laid out.
"""

from __future__ import annotations

import lzma
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune import DataSplits, Split
from edgeprune.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""As in target.toml: what a batch was normalised with before it is augmented."""
TRAIN_FILES = tuple(f"train_batch_{number}.npy.xz" for number in range(1, 6))
TEST_FILE = "test_9980.npy.xz"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut that skips pixels and pads channels with zeros (option A)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.padding = out_channels // 4 if in_channels != out_channels else 0

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, h, w] to [batch, out_channels, h / stride, w / stride]."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(y + x)


class ResNet20(nn.Module):
    """Three stages of three blocks, 16, 32 and 64 channels wide.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2, arXiv:1512.03385.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, 64, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, 32, 32] to logits [batch, 10]."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


def build_model() -> nn.Module:
    """The network with fresh weights; edgeprune loads the file that target.toml names."""
    return ResNet20()


def load_data(seed: int) -> DataSplits:  # noqa: ARG001
    """CIFAR-10 as [n, 32, 32, 3], uint8.

    The weights have seen all 50,000 training images, so a validation split cut from these would flatter every
    candidate. The 9,980 test images are split instead: those with an even original index to choose by, the odd ones to
    report on.

    Raises:
        InputError: `$EDGEPRUNE_DATA` is not set, or a file is missing or damaged.
    """
    folder = _data_folder()
    labels_path = _existing(folder / "labels.npz")
    try:
        with np.load(labels_path) as stored:
            train_labels, test_labels, test_index = (
                stored[key].astype(np.int64) for key in ("train", "test", "test_index")
            )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{labels_path}: expected arrays train, test and test_index: {error}") from error
    with ThreadPoolExecutor() as pool:
        *parts, test = pool.map(_images, [folder / name for name in (*TRAIN_FILES, TEST_FILE)])
    train = np.concatenate(parts)
    chosen_by = test_index % 2 == 0
    return DataSplits(
        train=Split(train, train_labels),
        validation=Split(test[chosen_by], test_labels[chosen_by]),
        test=Split(test[~chosen_by], test_labels[~chosen_by]),
        class_names=CLASSES,
    )


def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop after padding by four black pixels, and a mirror image for half of a training batch.

    The weights were trained so: with padding in the mean colour, batch norms that are re-estimated lose 3.5 points.
    """
    count, _, height, width = inputs.shape
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    padded = black[:, None, None].expand(count, -1, height + 8, width + 8).clone()
    padded[:, :, 4:-4, 4:-4] = inputs
    down, right = torch.randint(0, 9, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5  # noqa: PLR2004
    columns = torch.arange(width)
    columns = right + torch.where(mirrored, columns.flip(0), columns)
    rows = down + torch.arange(height)
    # Advanced indices around a slice: the channels come last.
    cropped = padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)


def _stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_channels, out_channels, stride),
        BasicBlock(out_channels, out_channels, 1),
        BasicBlock(out_channels, out_channels, 1),
    )


def _data_folder() -> Path:
    root = os.environ.get("EDGEPRUNE_DATA", "")
    if not root:
        raise InputError(
            "environment variable EDGEPRUNE_DATA is not set: expected the folder that holds cifar10/ and "
            "cifar10_resnets/ (targets/cifar10-resnet20/README.md says how they are laid out)"
        )
    return Path(root) / "cifar10"


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file: expected CIFAR-10 there, because EDGEPRUNE_DATA is "
            f"{os.environ['EDGEPRUNE_DATA']!r} (targets/cifar10-resnet20/README.md says how it is laid out)"
        )
    return path


def _images(path: Path) -> np.ndarray:
    """Decode one file of residuals [3, n, 32, 32] to images [n, 32, 32, 3]; all arithmetic is modulo 256."""
    try:
        with lzma.open(_existing(path)) as stream:
            residuals = np.load(stream, allow_pickle=False)
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable .npy.xz file (cut short?): {error}") from error
    planes = np.cumsum(np.cumsum(residuals, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    planes[0] += planes[1]
    planes[2] += planes[1]
    return np.ascontiguousarray(planes.transpose(1, 2, 3, 0))
