"""From the scores of layers to those of groups: what is aggregated, and how layers compare."""

from __future__ import annotations

import pytest
import torch
from models import EXAMPLES, example_of
from structures import structure
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.groups import ChannelGraph, find_groups
from edgeprune.protocols import Granularity, ScoringData
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.scoring import channel_scores, weight_scores
from edgeprune.pruning.surgery import structured_prune

BY_CHANNEL = [n for n in CRITERIA.names() if CRITERIA.get(n).granularities - {Granularity.WEIGHT}]


def data_for(name: str) -> ScoringData:
    drawn = torch.Generator().manual_seed(2)
    inputs = torch.randn(8, *EXAMPLES[name][1][1:], generator=drawn)
    return ScoringData(batches=((inputs, torch.arange(8) % 3),), loss=functional.cross_entropy)


@pytest.mark.parametrize("criterion", [n for n in BY_CHANNEL if n not in {"batchnorm_scale", "hard_concrete"}])
@pytest.mark.parametrize("name", ["resnet", "densenet", "separable", "transformer", "plain"])
def test_every_group_of_every_model_has_scores(name: str, criterion: str) -> None:
    model, example = example_of(name)
    graph = ChannelGraph(model, example)
    groups = {g.name: g.width for g in find_groups(model, example).groups}
    found = channel_scores(model, graph, groups, CRITERIA.get(criterion), data=data_for(name))
    assert {group: len(scores) for group, scores in found.items()} == groups
    # In units of the layers' mean magnitudes.
    assert all(0 < float(scores.abs().mean()) <= 1 + 1e-6 for scores in found.values())


def test_norms_of_a_group_are_averaged_in_units_of_their_mean() -> None:
    model, example = example_of("resnet")
    norms = [model.bn, model.layer1[0].bn2, model.layer1[1].bn2]
    with torch.no_grad():
        for norm, factor in zip(norms, (1.0, 100.0, 1e-3), strict=True):
            norm.weight.copy_(factor * torch.arange(1, 9))
        model.bn.weight[0] = 10.0
    found = channel_scores(model, ChannelGraph(model, example), ["stem"], CRITERIA.get("batchnorm_scale"))["stem"]
    usual = torch.arange(1, 9) / 4.5
    first = torch.tensor([10.0, *range(2, 9)]) / 5.625
    torch.testing.assert_close(found, ((2 * usual + first) / 3).double())


def test_a_channel_with_many_pixels_in_the_next_layer_counts_once() -> None:
    # conv2 is flattened to 16 inputs a channel of `hidden`; each of them reads as much as the pixel does on average.
    model, example = example_of("plain")
    found = channel_scores(
        model, ChannelGraph(model, example), ["conv2"], CRITERIA.get("activation_mean"), data=data_for("plain")
    )["conv2"]
    with torch.no_grad():
        before = functional.relu(model.conv2(functional.relu(model.conv1(data_for("plain").batches[0][0]))))
    expected = before.double().mean(dim=(0, 2, 3))
    torch.testing.assert_close(found, expected / expected.mean(), rtol=1e-5, atol=1e-6)


def test_a_criterion_that_scores_none_of_a_group_is_told_with_the_group() -> None:
    model, example = example_of("plain")
    with pytest.raises(BuildError, match="group 'conv1': the criterion scores none of its layers"):
        structured_prune(model, example, {"conv1": 4}, CRITERIA.get("batchnorm_scale"))


def test_criteria_of_the_other_kind_and_missing_data_are_told() -> None:
    model, example = example_of("plain")
    with pytest.raises(BuildError, match="scores single weights, not channels"):
        structured_prune(model, example, {"conv1": 4}, CRITERIA.get("lamp"))
    with pytest.raises(BuildError, match="scores channels, not single weights"):
        weight_scores(model, ["conv1"], CRITERIA.get("geometric_median"))
    with pytest.raises(InputError, match="at least one batch"):
        structured_prune(model, example, {"conv1": 4}, CRITERIA.get("taylor"))


def test_channels_that_the_loss_needs_stay() -> None:
    # Half of the channels are read with weights near zero, though their own filters are the largest.
    model, example = example_of("plain")
    unread = [1, 3, 5, 7, 9, 11]
    with torch.no_grad():
        model.conv1.weight[unread] *= 5
        model.conv2.weight[:, unread] *= 1e-4
    for criterion in ("taylor", "fisher", "snip", "obc", "head_importance"):
        _, cuts = structured_prune(model, example, {"conv1": 6}, CRITERIA.get(criterion), data=data_for("plain"))
        assert cuts[0].removed == tuple(unread), criterion
    _, cuts = structured_prune(model, example, {"conv1": 6}, CRITERIA.get("l2"))
    assert not set(cuts[0].removed) & set(unread)


def test_heads_are_scored_as_such_and_go_as_such() -> None:
    # Of four heads of four channels the second and the last are hardly read.
    model, example = example_of("transformer")
    assert isinstance(model.project, nn.Linear)
    with torch.no_grad():
        model.project.weight[:, 4:8] *= 1e-3
        model.project.weight[:, 12:] *= 1e-3
    graph = ChannelGraph(model, example)
    root = next(g for g in find_groups(model, example).groups if "project" in g.consumers)
    assert root.unit == 4
    for criterion in ("head_importance", "fisher", "obc"):
        data = data_for("transformer")
        scores = channel_scores(model, graph, [root.name], CRITERIA.get(criterion), data=data)[root.name]
        if criterion == "head_importance":
            assert [len(set(part.tolist())) for part in scores.split(4)] == [1] * 4
        _, cuts = structured_prune(model, example, {root.name: 8}, CRITERIA.get(criterion), data=data)
        assert cuts[0].removed == (4, 5, 6, 7, 12, 13, 14, 15)


def test_channels_without_a_reader_have_the_mean_of_their_unit() -> None:
    # Each gate goes with one channel that `down` reads; each head of queries, keys and values with four of `proj`.
    for name, root, reader in (("decoder", "gate_up", "down"), ("packed", "qkv", "proj")):
        model, example = structure(name)
        graph = ChannelGraph(model, example)
        data = ScoringData(batches=((torch.cat([example, -example]), example),), loss=lambda y, _: y.square().mean())
        found = channel_scores(model, graph, [root], CRITERIA.get("activation_mean"), data=data)[root]
        read: list[Tensor] = []
        handle = model.get_submodule(reader).register_forward_pre_hook(
            lambda _, given, read=read: read.append(given[0])
        )
        with torch.no_grad():
            model(data.batches[0][0])
        handle.remove()
        own = read[0].abs().double().mean(dim=(0, 1))
        units = graph.units(root)
        expected = (own / own.mean()).reshape(len(units), -1).mean(dim=1)
        torch.testing.assert_close(torch.stack([found[list(unit)].mean() for unit in units]), expected)
        assert len(found) == graph.width(root)


@pytest.mark.parametrize("criterion", ["l2", "random", "geometric_median", "taylor", "snip", "movement"])
@pytest.mark.parametrize("name", ["decoder", "packed", "shuffle", "upscaler", "aggregated", "recurrent", "cell"])
def test_attention_recurrent_and_grouped_layers_are_scored_by_their_outputs(name: str, criterion: str) -> None:
    model, example = structure(name)
    groups = find_groups(model, example).groups
    assert groups
    data = ScoringData(batches=((example.repeat_interleave(2, dim=0),) * 2,), loss=lambda y, _: y.square().mean())
    widths = {g.name: g.at_least(g.width // 2) for g in groups}
    pruned, _ = structured_prune(model, example, widths, CRITERIA.get(criterion), data=data)
    cut = ChannelGraph(pruned, example)
    assert {name: cut.width(name) for name in widths} == widths


@pytest.mark.parametrize("criterion", ["fisher", "obc", "activation_mean", "head_importance", "hard_concrete"])
def test_a_group_that_only_recurrent_layers_read_is_told(criterion: str) -> None:
    model, example = structure("recurrent")
    data = ScoringData(batches=((example, example),), loss=lambda y, _: y.square().mean())
    read_by_recurrent = [
        g for g in find_groups(model, example).groups if not isinstance(model.get_submodule(g.consumers[0]), nn.Linear)
    ]
    assert read_by_recurrent
    for group in read_by_recurrent:
        with pytest.raises(BuildError, match=f"group '{group.name}': the criterion scores none of its layers"):
            channel_scores(model, ChannelGraph(model, example), [group.name], CRITERIA.get(criterion), data=data)
