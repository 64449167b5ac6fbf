from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import EXAMPLES, example_of, seeded
from torch import nn

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.blocks import remove_blocks
from edgeprune.graph.groups import find_groups
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.surgery import load_pruned, rebuild, save_pruned, structured_prune
from edgeprune.records.recipe import Cut, PruningRecipe

L1 = CRITERIA.get("l1")


def _halves(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    return {g.name: g.at_least(max(1, g.width // 2)) for g in find_groups(model, example).groups}


def test_best_channels_stay_and_the_recipe_names_the_others() -> None:
    model, example = example_of("plain")
    with torch.no_grad():
        model.conv2.weight.copy_(torch.ones_like(model.conv2.weight))
        model.conv2.weight[[2, 5, 6]] *= 0.01
    before = model.conv2.weight.detach().clone()
    pruned, cuts = structured_prune(model, example, {"conv2": 7, "conv1": 12}, L1, seed=0)
    assert cuts == (Cut(group="conv2", removed=(2, 5, 6)),)
    assert torch.equal(pruned.conv2.weight, before[[0, 1, 3, 4, 7, 8, 9]])
    assert torch.equal(model.conv2.weight, before)


def test_no_layer_of_a_residual_group_outvotes_the_others() -> None:
    model, example = example_of("resnet")
    with torch.no_grad():
        for layer in (model.stem, model.layer1[0].conv2, model.layer1[1].conv2):
            nn.init.ones_(layer.weight)
        # One layer is a thousand times larger and prefers channel 0; two prefer channel 1, twice as strongly.
        model.stem.weight *= 1000
        model.stem.weight[0] *= 2
        for block in model.layer1:
            block.conv2.weight[1] *= 2
    _, cuts = structured_prune(model, example, {"stem": 1}, L1, seed=0)
    assert cuts[0].removed == (0, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
@pytest.mark.parametrize("criterion", ["geometric_median", "l1", "l2", "random"])
def test_every_model_has_the_widths_asked_for(name: str, criterion: str) -> None:
    model, example = example_of(name)
    widths = _halves(model, example)
    pruned, cuts = structured_prune(model, example, widths, CRITERIA.get(criterion), seed=1)
    assert {g.name: g.width for g in find_groups(pruned, example).groups} == widths
    assert pruned(example).shape == model(example).shape
    assert {c.group: len(c.removed) for c in cuts} == {
        g.name: g.width - widths[g.name] for g in find_groups(model, example).groups
    }


def test_dead_channels_can_go_without_a_change_of_output() -> None:
    model, example = example_of("resnet")
    with torch.no_grad():
        for block in (model.layer1[0], model.layer2[0]):
            block.conv1.weight[::2] = 0.0
            block.bn1.bias[::2] = 0.0
    expected = model(example)
    widths = {"layer1.0.conv1": 4, "layer2.0.conv1": 8}
    pruned, _ = structured_prune(model, example, widths, L1, seed=0)
    torch.testing.assert_close(pruned(example), expected)


@given(name=st.sampled_from(sorted(EXAMPLES)), data=st.data())
@settings(max_examples=12, deadline=None)
def test_rounds_of_cuts_are_replayed_to_the_same_model(name: str, data: st.DataObject) -> None:
    model, example = example_of(name)
    pruned, cuts = model, ()
    for seed in range(2):
        widths = {g.name: data.draw(st.integers(1, g.width)) for g in find_groups(pruned, example).groups}
        pruned, more = structured_prune(pruned, example, widths, CRITERIA.get("random"), seed=seed)
        cuts = (*cuts, *more)
    again = rebuild(model, example, PruningRecipe(cuts=cuts))
    expected = pruned.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in again.state_dict().items())


def test_cuts_of_a_layer_that_lost_its_partners_are_replayed() -> None:
    model, example = example_of("transformer")
    cuts: tuple[Cut, ...] = ()
    pruned = model
    for widths in ({"query": 4}, {"value": 3}):
        pruned, more = structured_prune(pruned, example, widths, L1, seed=0)
        cuts = (*cuts, *more)
    again = rebuild(model, example, PruningRecipe(cuts=cuts))
    expected = pruned.state_dict()
    assert [len(cut.removed) for cut in cuts] == [12, 1]
    assert all(torch.equal(v, expected[k]) for k, v in again.state_dict().items())


def test_random_criterion_follows_the_seed_and_differs_by_group() -> None:
    model, example = example_of("resnet")
    widths = {"layer1.0.conv1": 4, "layer1.1.conv1": 4}
    random = CRITERIA.get("random")
    first, again, other = (structured_prune(model, example, widths, random, seed=s)[1] for s in (1, 1, 2))
    assert first == again != other
    assert first[0].removed != first[1].removed


@pytest.mark.parametrize("width", [0, 13, -1])
def test_impossible_width_is_told(width: int) -> None:
    with pytest.raises(BuildError, match=f"expected a width from 1 to 12, got {width}"):
        structured_prune(*example_of("plain"), {"conv1": width}, L1, seed=0)


def test_unknown_group_and_nan_weights_are_told() -> None:
    model, example = example_of("plain")
    with pytest.raises(BuildError, match="did you mean 'conv"):
        structured_prune(model, example, {"conv3": 2}, L1, seed=0)
    with torch.no_grad():
        model.conv1.weight[0] = float("nan")
    with pytest.raises(BuildError, match="not finite"):
        structured_prune(model, example, {"conv1": 2}, L1, seed=0)


def _saved(folder: Path) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    model, example = example_of("resnet")
    pruned, cuts = structured_prune(model, example, _halves(model, example), L1, seed=0)
    save_pruned(pruned, PruningRecipe(cuts=cuts), folder)
    return model, pruned, example


def test_saved_model_comes_back(tmp_path: Path) -> None:
    _, pruned, example = _saved(tmp_path / "new")
    fresh = seeded(EXAMPLES["resnet"][0], 9)
    before = copy.deepcopy(fresh.state_dict())
    loaded = load_pruned(fresh, example, tmp_path / "new").eval()
    assert torch.equal(loaded(example), pruned(example))
    assert all(torch.equal(v, before[k]) for k, v in fresh.state_dict().items())
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["model.safetensors", "recipe.json"]


def test_without_blocks_and_with_cuts_it_comes_back(tmp_path: Path) -> None:
    model, example = example_of("resnet")
    rest = remove_blocks(model, ["layer1.0"])
    widths = {g.name: g.width // 2 for g in find_groups(rest, example).groups}
    assert not any(name.startswith("layer1.0.") for name in widths)
    pruned, cuts = structured_prune(rest, example, widths, L1, seed=0)
    save_pruned(pruned, PruningRecipe(cuts=cuts, removed_blocks=("layer1.0",)), tmp_path)
    loaded = load_pruned(seeded(EXAMPLES["resnet"][0], 9), example, tmp_path).eval()
    assert torch.equal(loaded(example), pruned(example))


def test_tied_weights_are_saved_once_and_loaded(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    model, example = seeded(tied, 1), torch.ones(1, 4)
    save_pruned(model, PruningRecipe(), tmp_path)
    assert torch.equal(load_pruned(seeded(tied, 2), example, tmp_path)(example), model(example))


def test_weights_of_other_shapes_are_told(tmp_path: Path) -> None:
    model, _, example = _saved(tmp_path)
    save_pruned(model, PruningRecipe(), tmp_path / "dense")
    (tmp_path / "dense" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: tensor '.*': expected shape \(.*\), got \(.*\)"):
        load_pruned(model, example, tmp_path)


def test_damaged_or_missing_files_are_told(tmp_path: Path) -> None:
    model, _, example = _saved(tmp_path)
    weights, recipe = tmp_path / "model.safetensors", tmp_path / "recipe.json"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: not a readable safetensors file"):
        load_pruned(model, example, tmp_path)
    recipe.write_text('{"cuts": [{"group": "st')
    with pytest.raises(InputError, match=r"recipe\.json: not a valid PruningRecipe"):
        load_pruned(model, example, tmp_path)
    recipe.write_text('{"cuts": [{"group": "gone", "removed": [0]}]}')
    with pytest.raises(InputError, match=r"recipe\.json: no convolution, linear, attention or recurrent layer 'gone'"):
        load_pruned(model, example, tmp_path)
    recipe.unlink()
    with pytest.raises(InputError, match=r"recipe\.json: cannot be read"):
        load_pruned(model, example, tmp_path)
