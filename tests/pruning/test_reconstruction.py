"""Weights that are refitted: the least squares by hand, and on whole models."""

from __future__ import annotations

import copy

import pytest
import torch
from models import EXAMPLES, example_of, seeded
from structures import encoder
from torch import Tensor, nn

from edgeprune.graph.groups import ChannelGraph, find_groups
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.maskable import find_maskable
from edgeprune.pruning.masks import WeightMasks
from edgeprune.pruning.reconstruction import reconstruct_channels_, reconstruct_weights_
from edgeprune.pruning.scoring import channel_scores
from edgeprune.pruning.surgery import cut_by_scores


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cut(model: nn.Module, example: Tensor, inputs: Tensor, share: float = 0.75) -> tuple[nn.Module, nn.Module]:
    """The model with that share of each group's channels: as it is after the cut, and reconstructed."""
    graph = ChannelGraph(model, example)
    widths = {g.name: max(1, int(g.width * share)) for g in find_groups(model, example).groups}
    pruned, cuts = cut_by_scores(model, graph, widths, channel_scores(model, graph, widths, CRITERIA.get("l2")))
    refitted = copy.deepcopy(pruned)
    edits = [edit for made in cuts for edit in graph.edits(made.group, made.removed)]
    reconstruct_channels_(refitted, model, edits, inputs)
    return pruned, refitted


def error(model: nn.Module, whole: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        return float((model(inputs) - whole(inputs)).square().mean())


def test_a_layer_makes_up_for_channels_that_are_sums_of_others() -> None:
    # The last of three hidden channels is the sum of the first two: without it nothing is lost.
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(drawn(3, 4))
        model[0].weight[2] = 0.1 * (model[0].weight[0] + model[0].weight[1])
    inputs = drawn(300, 4, seed=1)
    pruned, refitted = cut(model, inputs[:1], inputs)
    assert pruned[0].weight.shape == (2, 4)
    expected = model[1].weight[:, :2] + 0.1 * model[1].weight[:, 2:]
    torch.testing.assert_close(refitted[1].weight, expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(refitted[0].weight, pruned[0].weight)


@pytest.mark.parametrize("name", ["plain", "resnet", "densenet", "separable", "transformer"])
def test_outputs_of_a_cut_model_come_closer_on_inputs_not_seen(name: str) -> None:
    model, example = example_of(name)
    shape = EXAMPLES[name][1][1:]
    before = copy.deepcopy(model.state_dict())
    pruned, refitted = cut(model, example, drawn(96, *shape))
    unseen = drawn(64, *shape, seed=9)
    assert error(refitted, model, unseen) < 0.7 * error(pruned, model, unseen)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def masked(model: nn.Module, sparsity: float, inputs: Tensor) -> tuple[nn.Module, nn.Module, WeightMasks]:
    pruned = copy.deepcopy(model)
    layers = find_maskable(model, inputs[:1])
    WeightMasks.unstructured(pruned, layers, sparsity).apply_()
    refitted = copy.deepcopy(model)
    masks = WeightMasks.unstructured(refitted, layers, sparsity)
    masks.apply_()
    reconstruct_weights_(refitted, model, masks, inputs)
    return pruned, refitted, masks


def test_masked_weights_are_the_least_squares_of_those_kept() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 2)))
    mixed = drawn(500, 6) @ drawn(6, 6, seed=5)
    _, refitted, masks = masked(model, 0.5, mixed)
    for output in range(4):
        kept = masks.kept["0"][output]
        wanted = mixed @ model[0].weight[output].detach()
        solution = torch.linalg.lstsq(mixed[:, kept], wanted[:, None]).solution[:, 0]
        torch.testing.assert_close(refitted[0].weight[output][kept], solution, rtol=0.05, atol=0.02)
    masks.verify()


@pytest.mark.parametrize("name", ["plain", "resnet", "grouped", "transformer"])
def test_masked_models_come_closer_and_zeros_are_held(name: str) -> None:
    model, _ = example_of(name)
    model.train()
    shape = EXAMPLES[name][1][1:]
    pruned, refitted, masks = masked(model, 0.6, drawn(96, *shape))
    masks.verify()
    assert all(module.training for module in (*model.modules(), *refitted.modules()))
    for each in (model, pruned, refitted):
        each.eval()
    unseen = drawn(64, *shape, seed=9)
    assert error(refitted, model, unseen) < 0.8 * error(pruned, model, unseen)


def test_output_projections_of_torch_attention_are_refitted() -> None:
    # torch's own attention never calls them as a module; here they are zeroed alone.
    model, _ = encoder(norm_first=True)
    names = [f"encoder.layers.{i}.self_attn.out_proj" for i in (0, 1)]
    sentences = torch.randint(20, (160, 6), generator=torch.Generator().manual_seed(3))
    pruned = copy.deepcopy(model)
    found = find_maskable(pruned, sentences[:1])
    alone = found.without({name: "not looked at here" for name in found.layers if name not in names})
    masks = WeightMasks.unstructured(pruned, alone, 0.7)
    masks.apply_()
    refitted = copy.deepcopy(pruned)
    reconstruct_weights_(refitted, model, masks, sentences[:96])
    assert all(type(layer.self_attn) is nn.MultiheadAttention for layer in refitted.encoder.layers)
    for name in names:
        before, after = pruned.get_submodule(name).weight, refitted.get_submodule(name).weight
        assert bool(((before != after) == masks.kept[name]).all())
    assert error(refitted, model, sentences[96:]) < 0.7 * error(pruned, model, sentences[96:])


def test_transposed_convolutions_make_up_for_channels_that_are_gone() -> None:
    # The last of four channels is the sum of the first two: without it nothing is lost.
    model = seeded(lambda: nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.ConvTranspose2d(4, 6, 3, 2, 1)))
    with torch.no_grad():
        model[0].weight[3] = 0.1 * (model[0].weight[0] + model[0].weight[1])
    inputs = drawn(60, 4, 5, 4)
    pruned, refitted = cut(model, inputs[:1], inputs)
    assert pruned[1].weight.shape == (3, 6, 3, 3)
    expected = model[1].weight[:3].clone()
    expected[:2] += 0.1 * model[1].weight[3]
    torch.testing.assert_close(refitted[1].weight, expected, rtol=1e-2, atol=2e-3)


def test_masked_transposed_convolutions_of_groups_are_refitted() -> None:
    model = seeded(lambda: nn.Sequential(nn.ConvTranspose1d(4, 6, 4, 2, groups=2), nn.Conv1d(6, 2, 1)))
    inputs = drawn(96, 1, 7) + 0.5 * drawn(96, 4, 7, seed=4)
    pruned, refitted, masks = masked(model, 0.5, inputs)
    masks.verify()
    assert error(refitted, model, inputs) < 0.9 * error(pruned, model, inputs)


def test_inputs_that_are_always_zero_are_borne() -> None:
    model = seeded(
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 4, 2), nn.Hardtanh(0, 0.0001), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1)
        )
    )
    _, refitted, masks = masked(model, 0.5, torch.zeros(20, 2, 3, 3))
    masks.verify()
    assert all(bool(p.isfinite().all()) for p in refitted.parameters())
