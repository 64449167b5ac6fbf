"""DS-CNN for twelve keywords, from the public weights of MLPerf Tiny (Apache-2.0), on 1,000 public examples.

The folder that `$EDGEPRUNE_DATA` names must hold `mlperf_tiny/kws01_eval_1000.npz` (`x`: [1000, 49, 10] int8 features,
`y`: [1000] classes; from eembc/energyrunner) and `mlperf_tiny/kws_dscnn_fp32.safetensors`. What the weights were
trained with is not there, so the 1,000 examples are split; accuracy on 350 of them has a standard error of 1.5 points.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from edgeprune import DataSplits, Split
from edgeprune.errors import InputError

CLASSES = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown")
FILE = "mlperf_tiny/kws01_eval_1000.npz"
_CHANNELS = 64
_BLOCKS = 4
_TRAIN, _VALIDATION = 300, 350
_SPLIT_SEED = 0


class DepthwiseSeparableNet(nn.Module):
    """A convolution of 10x4, then four pairs of depthwise and pointwise ones, a mean and a classifier.

    Source: Zhang et al. 2017, "Hello Edge: Keyword Spotting on Microcontrollers", section 4, arXiv:1711.07128, in the
    size that MLPerf Tiny took (Banbury et al. 2021, arXiv:2106.07597).
    """

    def __init__(self) -> None:
        super().__init__()
        self.names = ("conv1", *(f"{kind}{number}" for number in range(1, _BLOCKS + 1) for kind in ("dw", "pw")))
        for name in self.names:
            self.add_module(name, _convolution(name))
            self.add_module(f"bn_{name}", nn.BatchNorm2d(_CHANNELS, eps=1e-3))
        self.fc = nn.Linear(_CHANNELS, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 49, 10] to [batch, 12]."""
        # What TensorFlow calls SAME: the odd row is below.
        x = functional.pad(x, (1, 1, 4, 5))
        for name in self.names:
            x = functional.relu(self.get_submodule(f"bn_{name}")(self.get_submodule(name)(x)))
        scores: Tensor = self.fc(x.mean(dim=(2, 3)))
        return scores


def build_model() -> nn.Module:
    """With fresh weights; the target file names those to load."""
    return DepthwiseSeparableNet()


def load_data(seed: int) -> DataSplits:  # noqa: ARG001 - the split is fixed, so that figures compare between seeds
    """300 examples to calibrate and train with, 350 to choose by, 350 to report on.

    Raises:
        InputError: `$EDGEPRUNE_DATA` does not name a folder that has the file.
    """
    path = Path(os.environ.get("EDGEPRUNE_DATA", "")) / FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; set EDGEPRUNE_DATA to a folder with {FILE}")
    with np.load(path) as found:
        inputs, labels = found["x"].astype(np.float32)[:, np.newaxis], found["y"].astype(np.int64)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    parts = np.split(order, [_TRAIN, _TRAIN + _VALIDATION])
    train, validation, test = (Split(inputs[part], labels[part]) for part in parts)
    return DataSplits(train=train, validation=validation, test=test, class_names=CLASSES)


def _convolution(name: str) -> nn.Conv2d:
    if name == "conv1":
        return nn.Conv2d(1, _CHANNELS, (10, 4), stride=2)
    if name.startswith("dw"):
        return nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, groups=_CHANNELS)
    return nn.Conv2d(_CHANNELS, _CHANNELS, 1)
