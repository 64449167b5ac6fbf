"""Attention that a mask keeps from looking at padding or ahead, in INT8: whatever stands for minus infinity."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from compiled import run_compiled
from models import seeded
from torch import Tensor, nn

from edgeprune.protocols import CompiledFiles
from edgeprune.quantization.schemes import SCHEMES
from edgeprune.quantization.schemes._attention_masks import MaskedScores, Ranked, bound_
from edgeprune.records.quantization import Calibration, QuantizationVariant
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact

LENGTH, WIDTH = 8, 16
LOWEST = torch.finfo(torch.float32).min
WAYS = ("infinity", "lowest", "minus 1e4", "times the lowest", "filled", "filled with the lowest", "ahead")


class Masked(nn.Module):
    """Attention over steps of which the first feature says whether they are padding; what stands there is loud."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 4)
        self.register_buffer("ahead", torch.full((LENGTH, LENGTH), -math.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, steps, features] to [batch, 4]."""
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        padded = x[:, None, :, 0] < 0
        weights = torch.softmax(self._masked(scores, padded), dim=2)
        read: Tensor = self.head((weights @ self.value(x))[:, 0 if self.way != "ahead" else 2])
        return read

    def _masked(self, scores: Tensor, padded: Tensor) -> Tensor:
        if self.way.startswith("filled"):
            return scores.masked_fill(padded, LOWEST if self.way.endswith("lowest") else -math.inf)
        added = {
            "infinity": torch.where(padded, torch.tensor(-math.inf), torch.zeros(())),
            "lowest": torch.where(padded, torch.tensor(LOWEST), torch.zeros(())),
            "minus 1e4": padded.float() * -10000.0,
            "times the lowest": padded.float() * LOWEST,
            "ahead": self.get_buffer("ahead"),
        }
        return scores + added[self.way]


def _texts(count: int) -> Tensor:
    """Three to six steps; the rest is padding, with features four times as large."""
    generator = torch.Generator().manual_seed(5)
    texts = torch.randn((count, LENGTH, WIDTH), generator=generator)
    lengths = torch.randint(3, 7, (count, 1), generator=generator)
    padded = torch.arange(LENGTH) >= lengths
    texts[padded] *= 4
    texts[:, :, 0] = torch.where(padded, -1.0, 1.0)
    return texts


@pytest.mark.parametrize("scheme", SCHEMES.names())
@pytest.mark.parametrize("way", WAYS)
def test_what_is_masked_is_not_looked_at(scheme: str, way: str, tmp_path: Path) -> None:
    _follows(scheme, way, QuantizationVariant(), tmp_path)


@pytest.mark.parametrize("calibration", [Calibration.PERCENTILE, Calibration.ENTROPY])
def test_clipped_ranges_keep_the_mask(calibration: Calibration, tmp_path: Path) -> None:
    _follows("ai_edge", "infinity", QuantizationVariant(calibration=calibration), tmp_path)


def _follows(scheme: str, way: str, variant: QuantizationVariant, folder: Path) -> None:
    model, texts = seeded(lambda: Masked(way)).eval(), _texts(64)
    with torch.no_grad():
        expected = model(texts).numpy()
    runtime = next(n for n in RUNTIMES.names() if RUNTIMES.get(n).int8_scheme() == scheme)
    rung = Rung(runtime=runtime, precision=Precision.INT8)
    artifact = compile_artifact(CompileJob(model, (1, LENGTH, WIDTH), texts.numpy(), variant), rung, folder)
    names = tuple(f.name for f in artifact.files)
    files = CompiledFiles(folder=folder, names=names, inputs=(), outputs=(), format=artifact.format)
    found = run_compiled(runtime, files, texts.numpy())
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("order", [("wide", "narrow"), ("narrow", "wide")])
def test_a_mask_of_several_layers_is_low_enough_for_each(order: tuple[str, str]) -> None:
    ends = {"wide": (-6.0, 6.0), "narrow": (-1.0, 1.0)}
    ranges = {n: {"min": np.full((1, 1), low), "max": np.full((1, 1), high)} for n, (low, high) in ends.items()}
    bound_(ranges, [MaskedScores(name, (Ranked(f"{name} masked", 2),), Ranked("mask", 2)) for name in order])
    assert ranges["mask"]["min"].item() == -20
    assert [ranges[f"{name} masked"]["min"].item() for name in ends] == [-14, -9]


def test_masked_scores_end_a_margin_under_the_lowest() -> None:
    ends = {"min": np.array([[-2.0]], np.float32), "max": np.array([[3.0]], np.float32)}
    ranges = {"scores": ends, "masked": {**ends, "num_samples": 4}, "mask": {k: 0 * v for k, v in ends.items()}}
    masked, reshaped = Ranked("masked", 2), Ranked("reshaped", 3)
    unknown = MaskedScores("unknown", (Ranked("scores", 2),))
    bound_(ranges, [MaskedScores("scores", (masked, reshaped), Ranked("mask", 2)), unknown])
    found = {name: (float(r["min"].item()), float(r["max"].item())) for name, r in ranges.items()}
    assert found == {"scores": (-2, 3), "mask": (-13, 0), "masked": (-10, 3), "reshaped": (-10, 3)}
    assert [ranges[name]["min"].shape for name in ("masked", "reshaped")] == [(1, 1), (1, 1, 1)]
    assert ranges["masked"]["num_samples"] == 4
