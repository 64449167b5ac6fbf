"""LeNet-300-100 on Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747), from the folder that `$EDGEPRUNE_DATA` names."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune import DataSplits, Split
from edgeprune.errors import InputError

CLASSES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
_VALIDATION = 5000


class LeNet300(nn.Module):
    """Two hidden layers, 300 and 100 neurons wide.

    Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition".
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 300)
        self.fc2 = nn.Linear(300, 100)
        self.head = nn.Linear(100, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 28, 28] to logits [batch, 10]."""
        x = torch.relu(self.fc1(torch.flatten(x, 1)))
        logits: Tensor = self.head(torch.relu(self.fc2(x)))
        return logits


def build_model() -> nn.Module:
    """The network with fresh weights."""
    return LeNet300()


def load_data(seed: int) -> DataSplits:  # noqa: ARG001
    """Fashion-MNIST as [n, 1, 28, 28], uint8; the last 5,000 training images are to choose by.

    Raises:
        InputError: `$EDGEPRUNE_DATA` is not set, or a file is missing or damaged.
    """
    root = os.environ.get("EDGEPRUNE_DATA", "")
    if not root:
        raise InputError(
            "environment variable EDGEPRUNE_DATA is not set: expected the folder that holds fashion_mnist/"
        )
    folder = Path(root) / "fashion_mnist"
    train, test = (_images(folder / f"{split}_images.npy.xz") for split in ("train", "test"))
    try:
        with np.load(folder / "labels.npz") as stored:
            train_labels, test_labels = stored["train"].astype(np.int64), stored["test"].astype(np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder / 'labels.npz'}: expected arrays train and test: {error}") from error
    return DataSplits(
        train=Split(train[:-_VALIDATION], train_labels[:-_VALIDATION]),
        validation=Split(train[-_VALIDATION:], train_labels[-_VALIDATION:]),
        test=Split(test, test_labels),
        class_names=CLASSES,
    )


def _images(path: Path) -> np.ndarray:
    try:
        with lzma.open(path) as stream:
            images: np.ndarray = np.load(stream, allow_pickle=False)
    except (OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise InputError(f"{path}: expected an .npy.xz file of images [n, 28, 28], uint8: {error}") from error
    return images[:, None]
