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
from edgeprune.pruning.maskable import MAKES_OUTPUT, WeightedLayer, find_maskable
from edgeprune.pruning.masks import WeightMasks
from edgeprune.pruning.scoring import weight_scores
from edgeprune.records.artifact import Artifact
from edgeprune.records.rung import Precision, PruningKind, Rung
from edgeprune.schema.compression import Pruning
from edgeprune.steps.compiling import CompileJob, compile_artifact, sparse_path
from edgeprune.steps.masking import MaskMaker, told

FLOAT = Rung(runtime="tflite", precision=Precision.FLOAT32)
MASKED = replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.9)
IMAGE = (1, 3, 32, 32)


def compiled(model: nn.Module, rung: Rung, folder: Path) -> Artifact:
    folder.mkdir()
    return compile_artifact(CompileJob(model, IMAGE, np.zeros((1, *IMAGE[1:]), np.float32)), rung, folder)


def maker(**pruning: object) -> MaskMaker:
    return MaskMaker(torch.zeros(1, 3, 32, 32), Pruning.model_validate(pruning))


def masked(masks: WeightMasks) -> dict[str, float]:
    return {x.layer: x.sparsity for x in masks.sparsities() if x.sparsity}


def test_a_pattern_that_no_layer_can_hold_is_refused_with_the_layers() -> None:
    rung = replace(MASKED, pruning=PruningKind.BLOCK, block=(7, 1))
    with pytest.raises(BuildError, match=r"no layer may be masked: .*no whole number of 7x1 blocks"):
        maker().masks(separable_net(16), rung, 0.9)


def test_layers_with_a_share_of_their_own_that_cannot_hold_the_blocks_stay_dense() -> None:
    """32 times 10 weights of the classifier are no whole number of 4x1 blocks."""
    rung = replace(MASKED, pruning=PruningKind.BLOCK, block=(4, 1))
    masks = maker(classifier=True, layer_sparsities={"*": 0.75}).masks(separable_net(16), rung, 0.9)
    assert masked(masks) == {"4": 0.75, "9": 0.75}
    assert "4x1 blocks" in {x.layer: x.reason for x in masks.left_dense}["12"]


def test_n_of_m_grows_over_the_rounds() -> None:
    rung = replace(MASKED, pruning=PruningKind.N_M, pruning_ratio=0.5, n_m=(2, 4))
    net, shares = separable_net(16), []
    before = None
    for sparsity in (0.1, 0.25, 0.4, 0.5):
        before = maker().masks(net, rung, sparsity, after=before)
        shares.append(masked(before).get("4", 0.0))
    assert shares == [0.0, 0.25, 0.25, 0.5]


@pytest.mark.parametrize("classifier", [False, True])
@pytest.mark.parametrize("n_m", [None, (2, 4)])
def test_tflite_masks_what_its_kernels_skip_and_the_classifier_only_if_asked(
    *, n_m: tuple[int, int] | None, classifier: bool
) -> None:
    masks = maker(classifier=classifier).masks(separable_net(16), replace(MASKED, n_m=n_m), 0.9)
    # 4 and 9 are the 1x1 convolutions, 12 the classifier.
    weights = {"4": 16 * 16, "9": 16 * 32} | ({"12": 32 * 10} if classifier else {})
    found = masked(masks)
    assert set(found) == set(weights)
    share = sum(found[n] * w for n, w in weights.items()) / sum(weights.values())
    assert share == pytest.approx(0.5 if n_m else 0.9, abs=1e-3)
    reasons = {x.layer: x.reason for x in masks.left_dense}
    assert set(reasons) == {"0", "2", "7", "12"} - set(weights)
    assert reasons["2"] == "no sparse kernel of tflite skips its zeros"
    assert reasons.get("12") == (None if classifier else MAKES_OUTPUT)


def test_a_layer_that_the_target_ignores_stays_dense() -> None:
    masks = maker(ignored=("4",)).masks(separable_net(16), MASKED, 0.9)
    assert set(masked(masks)) == {"9"}


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
    masks = MaskMaker(torch.zeros(1, 4), Pruning(), score).masks(
        model, replace(MASKED, runtime="onnxruntime", pruning_ratio=0.5), 0.5
    )
    assert masked(masks) == {"first": 0.5}
    assert {x.layer: x.reason for x in masks.left_dense}["unused"] == "the model never calls it"
    alone = WeightMasks.unstructured(
        model, find_maskable(model, torch.zeros(1, 4)), 0.5, scores=score(model, ("first", "unused"))
    )
    assert alone.left_dense == masks.left_dense


def test_without_sparse_kernels_every_layer_but_the_last_is_masked() -> None:
    masks = maker().masks(separable_net(16), replace(MASKED, runtime="onnxruntime"), 0.9)
    assert set(masked(masks)) == {"0", "2", "4", "7", "9"}


def test_the_target_says_how_zeros_are_spread() -> None:
    rung = replace(MASKED, runtime="onnxruntime", pruning_ratio=0.8)
    even = maker(mask_scope="layer").masks(separable_net(16), rung, 0.4)
    assert masked(even) == pytest.approx(dict.fromkeys(("0", "2", "4", "7", "9"), 0.4), abs=0.01)
    # Half of the way to the rung's share is half of the way to a layer's own; the first name that matches counts.
    own = maker(mask_scope="layer", layer_sparsities={"9": 0.5, "[79]": 0.2}).masks(separable_net(16), rung, 0.4)
    assert masked(own) == pytest.approx({"0": 0.4, "2": 0.4, "4": 0.4, "7": 0.1, "9": 0.25}, abs=0.01)
    ranked = masked(maker(layer_sparsities={"9": 0.5}).masks(separable_net(16), rung, 0.8))
    assert ranked["9"] == 0.5
    rest = {"0": 432, "2": 144, "4": 256, "7": 144}
    assert sum(ranked[n] * w for n, w in rest.items()) == pytest.approx(0.8 * sum(rest.values()), abs=1)
    # 0 is no layer whose zeros TFLite's kernels skip: what is said of it is for other runtimes.
    assert set(masked(maker(layer_sparsities={"0": 0.5}).masks(separable_net(16), MASKED, 0.9))) == {"4", "9"}
    with pytest.raises(InputError, match="'12' asks for zeros in '12', but it makes the model's output"):
        maker(layer_sparsities={"12": 0.5}).masks(separable_net(16), rung, 0.8)
    with pytest.raises(InputError, match=r"pruning\.layer_sparsities: no layer is named 'head'"):
        maker(layer_sparsities={"head": 0.5}).masks(separable_net(16), rung, 0.8)
    n_m = replace(rung, pruning=PruningKind.N_M, pruning_ratio=0.5, n_m=(2, 4))
    with pytest.raises(InputError, match=r"pruning\.layer_sparsities: no layer is named 'head'"):
        maker(layer_sparsities={"head": 0.5}).masks(separable_net(16), n_m, 0.5)


def test_a_model_with_nothing_to_mask_is_refused_with_the_reasons() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 1024)), nn.GRU(1024, 4))
    with pytest.raises(BuildError, match=r"no layer may be masked: 2 \(no criterion scores single weights of a GRU\)"):
        maker().masks(net, MASKED, 0.9)
    some = tuple(WeightedLayer(layer=name, weights=1, reason="held") for name in "abcde")
    assert told((*some, WeightedLayer(layer="", weights=1, reason="bare"))) == (
        "a, b, c and 2 more (held); the model's own (bare)"
    )


def test_a_classifier_whose_zeros_are_missing_to_two_thirds_is_named_with_the_key(tmp_path: Path) -> None:
    def reasons(share: float, **pruning: object) -> tuple[str, ...]:
        net, rung = separable_net(16), replace(MASKED, pruning_ratio=share)
        made = maker(**pruning)
        made.masks(net, rung, share).make_permanent()
        name = f"{share}-{len(pruning)}"
        path = sparse_path(compiled(net, rung, tmp_path / name), tmp_path / name, rung, ARM)
        assert path is not None
        return made.reasons(net, rung, path)

    # 691 of 768 weights of the 1x1 convolutions are zero, 691 of 1,088 with the classifier's: 63.5 %.
    missing, hint = reasons(0.9)
    assert "more than two thirds must be: 35 zeros are missing" in missing
    assert hint == (
        "12 with 320 weights is left dense because it makes the model's output, and 90% zeros there would be enough: "
        "set pruning.classifier = true"
    )
    assert reasons(0.9, classifier=True) == ()
    # Half of all weights are too few, with the classifier too.
    assert len(reasons(0.5)) == 1


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
