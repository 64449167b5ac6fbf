"""A small MobileNet on scikit-learn's digits: it meets XNNPACK's rule for sparse kernels. A target's `model.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune import DataSplits, Split


def _separable(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    """A depthwise 3x3 and a 1x1 convolution."""
    return [
        nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU6(),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    ]


def build_model(*, stem_stride: int = 2) -> nn.Module:
    """2.6 million multiply-accumulates, four fifths of them in 1x1 convolutions."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, stem_stride, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()),
        *_separable(32, 64),
        *_separable(64, 64),
        *_separable(64, 128, stride=2),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)),
    )


def build_unfit_model() -> nn.Module:
    """The same, but its first convolution has stride 1: XNNPACK has no kernel that enters channels-first by it."""
    return nn.Sequential(build_model(stem_stride=1)[:3], nn.MaxPool2d(2), *build_model()[3:])


def load_data(seed: int) -> DataSplits:
    """1,797 images, [n, 3, 32, 32]: XNNPACK wants three channels at the entrance."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.float32)[:, np.newaxis].repeat(3, axis=1).repeat(4, axis=2).repeat(4, axis=3)
    order = np.random.default_rng(0).permutation(len(images))
    train, validation, test = (
        Split(images[part], digits.target[part].astype(np.int64)) for part in np.split(order, [1000, 1400])
    )
    return DataSplits(train=train, validation=validation, test=test, class_names=tuple("0123456789"))


def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Shift a training batch by up to two pixels each way."""
    down, right = (int(n) for n in torch.randint(-2, 3, (2,), generator=generator))
    return inputs.roll((down, right), dims=(2, 3))
