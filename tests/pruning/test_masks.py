from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import example_of, seeded
from torch import Tensor, nn

from edgeprune.errors import BuildError, InputError
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.maskable import MAKES_OUTPUT, NEVER_CALLED, Maskable, WeightedLayer, find_maskable
from edgeprune.pruning.masks import Spread, WeightMasks
from edgeprune.pruning.scoring import weight_scores

BY_WEIGHT = ["l1", "l2", "lamp", "random"]


def plain(ignored: Sequence[str] = ()) -> tuple[nn.Module, Maskable]:
    model, example = example_of("plain")
    return model, find_maskable(model, example, ignored)


def of(model: nn.Module, *shape: int, ignored: Sequence[str] = (), classifier: bool = False) -> Maskable:
    return find_maskable(model, torch.zeros(1, *shape), ignored, classifier=classifier)


def scored(model: nn.Module, layers: Maskable, criterion: str) -> Mapping[str, Tensor]:
    return weight_scores(model, layers.layers, CRITERIA.get(criterion))


def _zeros(model: nn.Module, layer: str) -> int:
    weight = model.get_submodule(layer).weight
    return int((weight == 0).sum())


@given(
    sparsity=st.floats(0, 1), scope=st.sampled_from(["global", "layer"]), criterion=st.sampled_from([None, *BY_WEIGHT])
)
@settings(max_examples=25, deadline=None)
def test_sparsity_is_met_exactly_and_the_last_layer_is_dense(
    sparsity: float, scope: str, criterion: str | None
) -> None:
    model, layers = plain()
    scores = scored(model, layers, criterion) if criterion else None
    masks = WeightMasks.unstructured(model, layers, sparsity, scores=scores, spread=Spread(scope=scope))  # type: ignore[arg-type]
    masks.apply_()
    masks.verify()
    sizes = {name: model.get_submodule(name).weight.numel() for name in ("conv1", "conv2", "hidden")}
    if scope == "layer":
        assert {n: _zeros(model, n) for n in sizes} == {n: round(sparsity * size) for n, size in sizes.items()}
    zeros = sum(_zeros(model, n) for n in sizes)
    assert abs(zeros - sparsity * sum(sizes.values())) <= 0.5 * len(sizes)
    # The head's weights are weights too.
    assert masks.sparsity == pytest.approx(zeros / (sum(sizes.values()) + 14 * 5))
    assert _zeros(model, "head") == 0


def test_smallest_weights_of_all_layers_go_first() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.1, -0.2], [0.3, -9.0]]))
        model[1].weight.copy_(torch.tensor([[5.0, -0.25], [6.0, 7.0]]))
    WeightMasks.unstructured(model, of(model, 2), 0.5).apply_()
    assert model[0].weight.tolist() == [[0.0, 0.0], [0.0, -9.0]]
    assert model[1].weight.tolist() == [[5.0, 0.0], [6.0, 7.0]]


def test_lamp_masks_do_not_see_the_scale_of_a_layer_and_empty_none() -> None:
    # Squares 1, 4, 9, 16 over what is not smaller: 1/30, 4/29, 9/25, 1; and so for the other, 1e6 times as small.
    large, small = nn.Linear(4, 1), nn.Linear(4, 1)
    large.weight.data = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    small.weight.data = 1e-6 * large.weight.data
    model = nn.Sequential(large, small)
    layers = Maskable(weighted=(WeightedLayer(layer="0", weights=4), WeightedLayer(layer="1", weights=4)))
    scores = scored(model, layers, "lamp")
    masks = WeightMasks.unstructured(model, layers, 0.5, scores=scores)
    masks.apply_()
    assert [(w == 0).int().tolist() for w in (large.weight, small.weight)] == [[[1, 1, 0, 0]]] * 2
    masks = WeightMasks.unstructured(model, layers, 0.75, scores=scores)
    assert [x.sparsity for x in masks.sparsities()] == [0.75, 0.75]


def test_each_layer_may_have_its_own_share() -> None:
    model, layers = plain()
    masks = WeightMasks.unstructured(model, layers, 0.25, spread=Spread(shares={"conv2": 0.5, "hidden": 0.75}))
    assert {x.layer: x.sparsity for x in masks.sparsities()} == {"conv1": 0.25, "conv2": 0.5, "hidden": 0.75, "head": 0}
    with pytest.raises(InputError, match="no layer 'hiden' may be masked; did you mean 'hidden'"):
        WeightMasks.unstructured(model, layers, 0.5, spread=Spread(shares={"hiden": 0.5}))


def test_scores_of_no_layer_of_another_shape_or_not_finite_are_told() -> None:
    model, layers = plain()
    scores = dict(scored(model, layers, "l1"))
    with pytest.raises(InputError, match=r"layer 'conv1': expected \(12, 3, 3, 3\), found \(1,\)"):
        WeightMasks.unstructured(model, layers, 0.5, scores={**scores, "conv1": torch.ones(1)})
    with pytest.raises(InputError, match="no layer 'conv3' has weights; did you mean 'conv"):
        WeightMasks.n_m(model, layers, 2, 4, scores={**scores, "conv3": scores["conv2"]})
    with pytest.raises(BuildError, match="layer 'hidden': the importance of its weights is not finite"):
        WeightMasks.unstructured(model, layers, 0.5, scores={**scores, "hidden": scores["hidden"] / 0})


def test_layers_without_scores_stay_dense_and_say_so() -> None:
    model, layers = plain()
    scores = {n: s for n, s in scored(model, layers, "l1").items() if n != "conv2"}
    for masks in (
        WeightMasks.unstructured(model, layers, 0.5, scores=scores),
        WeightMasks.n_m(model, layers, 2, 4, scores=scores),
        WeightMasks.blocks(model, layers, 0.5, (1, 2), scores=scores),
    ):
        assert {x.layer: x.reason for x in masks.left_dense}["conv2"] == NEVER_CALLED
        assert "hidden" in masks.kept
        assert "conv2" not in masks.kept


def test_masks_follow_the_scores_and_not_the_weights() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 1), nn.Linear(1, 1))
    layers = of(model, 2, 1, 1)
    # As [out, in]: the second input of each output goes.
    scores = {"0": torch.tensor([[9.0, 1.0], [8.0, 2.0], [7.0, 3.0]]).reshape(3, 2, 1, 1)}
    WeightMasks.unstructured(model, layers, 0.5, scores=scores).apply_()
    assert (model[0].weight == 0).flatten(1).tolist() == [[False] * 3, [True] * 3]


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 2), (6, 1), (16, 1), (1, 1)])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_blocks_go_and_stay_together_and_are_counted_exactly(shape: tuple[int, int], scope: str) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(8, 48, 3), nn.Conv2d(48, 96, 1), nn.Conv2d(96, 2, 1)))
    masks = WeightMasks.blocks(model, of(model, 8, 4, 4), 0.3, shape, spread=Spread(scope=scope))  # type: ignore[arg-type]
    masks.apply_()
    masks.verify()
    zeros = 0
    for layer in (model[0], model[1]):
        rows = (layer.weight == 0).movedim(1, -1).flatten(1)
        blocks = rows.reshape(len(rows) // shape[0], shape[0], -1, shape[1]).transpose(1, 2).flatten(2).sum(dim=2)
        assert set(blocks.unique().tolist()) <= {0, shape[0] * shape[1]}
        zeros += int((blocks > 0).sum())
        if scope == "layer":
            assert int((blocks > 0).sum()) == round(0.3 * blocks.numel())
    if scope == "global":
        assert zeros == round(0.3 * (48 * 72 + 96 * 48) / (shape[0] * shape[1]))
    assert [x.layer for x in masks.left_dense] == ["2"]


def test_blocks_by_hand_and_what_has_no_whole_number_of_them() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[5.0, -1.0, 1.0, 1.0], [-1.0, 1.0, 3.0, -3.0]]))
    first = of(model, 4, ignored=["1"])
    assert WeightMasks.blocks(model, first, 0.5, (2, 1)).kept["0"].tolist() == [[True, False, False, True]] * 2
    kept = WeightMasks.blocks(model, first, 0.5, (1, 2)).kept["0"].tolist()
    assert kept == [[True, True, False, False], [False, False, True, True]]
    uneven = WeightMasks.blocks(model, of(model, 4), 0.5, (2, 1)).left_dense
    assert {x.layer: x.reason for x in uneven} == {
        "1": "its weights are no whole number of 2x1 blocks",
        "2": MAKES_OUTPUT,
    }
    with pytest.raises(InputError, match="at least 1x1, got 0x4"):
        WeightMasks.blocks(model, first, 0.5, (0, 4))


@pytest.mark.parametrize(("n", "m"), [(1, 2), (3, 4), (4, 8), (2, 12), (5, 6)])
def test_any_n_of_m_by_any_criterion(n: int, m: int) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(24, 6, 3), nn.Linear(2, 2)))
    layers = of(model, 24, 4, 4)
    scores = scored(model, layers, "random")
    kept = WeightMasks.n_m(model, layers, n, m, scores=scores).kept["0"]
    several = kept.movedim(1, -1).reshape(-1, m)
    ranked = scores["0"].movedim(1, -1).reshape(-1, m)
    assert set(several.sum(dim=1).tolist()) == {n}
    assert bool(
        (ranked.masked_fill(~several, 2).min(dim=1).values > ranked.masked_fill(several, -1).max(dim=1).values).all()
    )


def test_masks_are_the_same_twice_even_for_equal_magnitudes() -> None:
    def zeros() -> list[bool]:
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
        nn.init.ones_(model[0].weight)
        WeightMasks.unstructured(model, of(model, 8), 0.5).apply_()
        return (model[0].weight == 0).flatten().tolist()

    assert zeros() == zeros()


@pytest.mark.parametrize("sparsity", [-0.1, 1.01, float("nan")])
def test_impossible_sparsity_is_told(sparsity: float) -> None:
    with pytest.raises(InputError, match="expected a number from 0 to 1"):
        WeightMasks.unstructured(*plain(), sparsity)


def test_n_of_m_keeps_the_largest_along_the_input_channels() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(8, 4, 3), nn.Conv2d(4, 2, 1)))
    before = model[0].weight.detach().clone()
    masks = WeightMasks.n_m(model, of(model, 8, 4, 4), 2, 4)
    masks.apply_()
    masks.verify()
    for output in range(4):
        for row in range(3):
            for column in range(3):
                for start in (0, 4):
                    block = before[output, start : start + 4, row, column]
                    kept = model[0].weight[output, start : start + 4, row, column] != 0
                    assert set(kept.nonzero().flatten().tolist()) == set(block.abs().topk(2).indices.tolist())
    assert masks.sparsities()[0].sparsity == 0.5


def test_layers_that_do_not_divide_are_left_dense_and_reported() -> None:
    masks = WeightMasks.n_m(*plain(), 2, 4)
    masks.apply_()
    # 3 input channels times 9 is no multiple of 4; 12 times 9 and 160 are; the head makes the output.
    reasons = {x.layer: x.reason for x in masks.left_dense}
    assert reasons == {"conv1": "its 27 weights an output are no multiple of 4", "head": MAKES_OUTPUT}
    assert {x.layer: x.sparsity for x in masks.sparsities()} == {"conv1": 0, "conv2": 0.5, "hidden": 0.5, "head": 0}


@pytest.mark.parametrize(("n", "m"), [(0, 4), (5, 4), (-1, 2)])
def test_impossible_n_of_m_is_told(n: int, m: int) -> None:
    with pytest.raises(InputError, match="expected 0 < N <= M"):
        WeightMasks.n_m(*plain(), n, m)


def test_ignored_layers_are_dense() -> None:
    model, layers = plain(ignored=["conv*"])
    masks = WeightMasks.unstructured(model, layers, 0.9)
    masks.apply_()
    assert [(x.layer, x.reason) for x in masks.left_dense][:2] == [
        ("conv1", "pruning.ignored names it"),
        ("conv2", "pruning.ignored names it"),
    ]
    assert _zeros(model, "conv2") == 0
    with pytest.raises(InputError, match="did you mean 'hidden'"):
        plain(ignored=["hiden"])


def test_masks_hold_through_steps_with_momentum() -> None:
    model, example = example_of("plain")
    masks = WeightMasks.unstructured(model, find_maskable(model, example), 0.6)
    masks.apply_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(example).square().sum().backward()
        optimizer.step()
        masks.apply_()
        masks.verify()


def test_weight_that_came_back_is_found() -> None:
    model, layers = plain()
    masks = WeightMasks.unstructured(model, layers, 0.5, spread=Spread(scope="layer"))
    masks.apply_()
    with torch.no_grad():
        model.conv2.weight[model.conv2.weight == 0] = 1.0
    with pytest.raises(BuildError, match="'conv2': 540 masked weights are not zero"):
        masks.verify()


def test_nan_is_zeroed_too() -> None:
    model, layers = plain()
    masks = WeightMasks.unstructured(model, layers, 1.0)
    with torch.no_grad():
        model.conv1.weight.fill_(float("nan"))
    masks.apply_()
    masks.verify()


def test_permanent_zeros_are_held_no_longer() -> None:
    model, layers = plain()
    masks = WeightMasks.unstructured(model, layers, 0.5)
    masks.make_permanent()
    zeros = _zeros(model, "hidden")
    assert zeros
    with torch.no_grad():
        model.hidden.weight.fill_(1.0)
    masks.apply_()
    assert _zeros(model, "hidden") == 0
