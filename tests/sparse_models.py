"""Nets with many zeros that meet XNNPACK's rule, or miss it in one point; and devices to ask about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from records_for_tests import make_facts
from torch import nn

from edgeprune.protocols import CompiledFiles
from edgeprune.pruning.maskable import Maskable, WeightedLayer
from edgeprune.pruning.masks import Spread, WeightMasks
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.measurement import DeviceFacts
from edgeprune.runtimes import RUNTIMES

ARM: DeviceFacts = replace(
    make_facts(), machine="aarch64", cpu_model="Cortex-A72", cpu_flags=("fp", "asimd"), runtimes=(("tflite", "2.3.0"),)
)


def separable_net(
    width: int = 32, *, classes: int = 10, channels: int = 3, stride: int = 2, middle: nn.Module | None = None
) -> nn.Module:
    """A small MobileNet: a 3x3 stem, two depthwise-separable blocks, a spatial mean, a classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 3, stride=stride, padding=1), nn.ReLU6()),
        *(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.ReLU6(), nn.Conv2d(width, width, 1), nn.Hardswish()),
        middle or nn.Identity(),
        *(nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width), nn.ReLU6(), nn.Conv2d(width, 2 * width, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes)),
    ).eval()


def with_zeros(model: nn.Module, share: float, *, classifier: bool = True) -> nn.Module:
    """Zero that share of the weights of 1x1 convolutions, and of the classifier unless told not to."""
    form = RUNTIMES.get("tflite").sparse_form()
    assert form is not None
    skipped = [WeightedLayer(layer=n, weights=m.weight.numel()) for n, m in model.named_modules() if form.skips(m)]
    layers = Maskable(weighted=tuple(skipped if classifier else skipped[:-1]))
    WeightMasks.unstructured(model, layers, share, spread=Spread(scope="layer")).make_permanent()
    return model


def compile_dense(model: nn.Module, shape: tuple[int, ...], folder: Path) -> CompiledFiles:
    """A .tflite file."""
    folder.mkdir(parents=True)
    return RUNTIMES.get("tflite").compile(model, TensorSpec(name="input", shape=shape, dtype="float32"), folder)


def compile_sparse(model: nn.Module, shape: tuple[int, ...], folder: Path) -> CompiledFiles:
    """The same with its weights in sparse storage."""
    form = RUNTIMES.get("tflite").sparse_form()
    assert form is not None
    dense = compile_dense(model, shape, folder / "dense")
    (folder / "sparse").mkdir()
    return form.store(dense, folder / "sparse")
