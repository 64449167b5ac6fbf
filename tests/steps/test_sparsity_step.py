"""From a mask rung to its masks and its file: what sparse kernels skip is masked, in the storage that they need."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from models import seeded
from records_for_tests import make_facts
from sparse_models import ARM, separable_net, with_zeros
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import BuildError, InputError
from edgeprune.protocols import ScoringData
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.masks import WeightMasks
from edgeprune.pruning.scoring import weight_scores
from edgeprune.records.artifact import Artifact
from edgeprune.records.rung import Precision, PruningKind, Rung
from edgeprune.steps.compiling import CompileJob, compile_artifact, sparse_path
from edgeprune.steps.sparsity import make_masks

FLOAT = Rung(runtime="tflite", precision=Precision.FLOAT32)
MASKED = replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.9)
IMAGE = (1, 3, 32, 32)


def compiled(model: nn.Module, rung: Rung, folder: Path) -> Artifact:
    folder.mkdir()
    return compile_artifact(CompileJob(model, IMAGE, np.zeros((1, *IMAGE[1:]), np.float32)), rung, folder)


@pytest.mark.parametrize("n_m", [None, (2, 4)])
def test_tflite_masks_pointwise_and_linear_layers_and_the_last_one(n_m: tuple[int, int] | None) -> None:
    net = separable_net(16)
    masks = make_masks(net, replace(MASKED, n_m=n_m), 0.9, ignored=["2"])
    share = 0.5 if n_m else 0.9
    masked = {x.layer: x.sparsity for x in masks.sparsities() if x.sparsity}
    # 4 and 9 are the 1x1 convolutions, 12 the classifier.
    assert set(masked) == {"4", "9", "12"}
    total = 16 * 16 + 16 * 32 + 32 * 10
    assert sum(masked[n] * w for n, w in (("4", 256), ("9", 512), ("12", 320))) / total == pytest.approx(
        share, abs=1e-3
    )


def test_a_layer_that_the_target_ignores_stays_dense() -> None:
    masks = make_masks(separable_net(16), MASKED, 0.9, ignored=["12"])
    assert {x.layer for x in masks.sparsities() if x.sparsity} == {"4", "9"}


class WithUnused(nn.Module):
    """One of its layers is never called. Input [n, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


@pytest.mark.parametrize("criterion", ["obc", "fisher"])
def test_a_layer_that_is_never_called_stays_dense_where_the_criterion_watches_the_layers(criterion: str) -> None:
    model = seeded(WithUnused)
    inputs = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    data = ScoringData(batches=((inputs, torch.arange(12) % 2),), loss=functional.cross_entropy)
    score = partial(weight_scores, criterion=CRITERIA.get(criterion), data=data)
    masks = make_masks(model, replace(MASKED, runtime="onnxruntime"), 0.5, [], score)
    assert {x.layer: x.sparsity for x in masks.sparsities()} == {"first": 0.5, "unused": 0.0}
    with pytest.raises(InputError, match="scores of layer 'unused'"):
        WeightMasks.unstructured(model, 0.5, scores=score(model, ("first", "unused")))


def test_without_sparse_kernels_every_layer_but_the_last_is_masked() -> None:
    masks = make_masks(separable_net(16), replace(MASKED, runtime="onnxruntime"), 0.9, ignored=[])
    assert {x.layer for x in masks.sparsities()} == {"0", "2", "4", "7", "9"}


def test_a_mask_rung_of_tflite_is_a_smaller_file_that_runs_sparse(tmp_path: Path) -> None:
    net = with_zeros(separable_net(32, classes=100), 0.9)
    sparse, dense = compiled(net, MASKED, tmp_path / "sparse"), compiled(net, FLOAT, tmp_path / "dense")
    assert [p.name for p in (tmp_path / "sparse").iterdir()] == ["model.tflite"]
    assert sparse.size_bytes < 0.6 * dense.size_bytes
    path = sparse_path(sparse, tmp_path / "sparse", MASKED, ARM)
    assert path is not None
    assert path.taken
    assert sparse_path(dense, tmp_path / "dense", FLOAT, ARM) is None


def test_a_file_whose_outputs_would_be_wrong_on_the_device_is_refused(tmp_path: Path) -> None:
    net = with_zeros(separable_net(16, middle=nn.Conv2d(16, 16, 3, padding=1)), 0.9)
    artifact = compiled(net, MASKED, tmp_path / "m")
    with pytest.raises(
        BuildError, match=r"tflite-float32-t1-unstructured90: XNNPACK would leave .* wrong on the device"
    ):
        sparse_path(artifact, tmp_path / "m", MASKED, ARM)
    here = replace(make_facts(), cpu_flags=("avx",))
    path = sparse_path(artifact, tmp_path / "m", MASKED, here)
    assert path is not None
    assert "x86 CPUs with AVX" in path.reasons[0]
