from __future__ import annotations

import copy

import pytest
import torch
from models import EXAMPLES, cut_groups_, example_of, seeded
from torch import nn

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.groups import ChannelGraph, find_groups


def _names(model_name: str) -> set[str]:
    return {g.name for g in find_groups(*example_of(model_name)).groups}


def _refused(model_name: str) -> dict[str, str]:
    return {r.name: r.reason for r in find_groups(*example_of(model_name)).refused}


def test_plain_net_gives_every_layer_but_the_head() -> None:
    groups = find_groups(*example_of("plain"))
    assert [(g.name, g.width, g.kind, g.kernel) for g in groups.groups] == [
        ("conv1", 12, "conv", (3, 3)),
        ("conv2", 10, "conv", (3, 3)),
        ("hidden", 14, "linear", ()),
    ]
    assert groups.refused == ()


def test_residual_stream_is_one_group_and_inner_convolutions_are_their_own() -> None:
    found = {g.name: g for g in find_groups(*example_of("resnet")).groups}
    assert set(found) == {
        "stem",
        "layer1.0.conv1",
        "layer1.1.conv1",
        "layer2.0.conv1",
        "layer2.0.conv2",
        "layer2.1.conv1",
    }
    assert {"stem", "bn", "layer1.0.conv2", "layer1.1.conv2"} <= set(found["stem"].layers)
    assert {"layer2.0.conv2", "layer2.0.shortcut.0", "layer2.1.conv2"} <= set(found["layer2.0.conv2"].layers)
    assert "fc" in found["layer2.0.conv2"].consumers


def test_padded_shortcuts_are_followed_to_the_channels_in_the_middle() -> None:
    found = {g.name: g for g in find_groups(*example_of("pad_resnet")).groups}
    assert set(found) == {"conv1", "layer1.conv1", "layer2.conv1", "layer3.conv1"}
    model, example = example_of("pad_resnet")
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"conv1": [3]})
    # Four zeros are padded on the left at the second layer, eight at the third.
    for layer, channel, width in (("layer1", 3, 16), ("layer2", 8 + 3, 32), ("layer3", 16 + 8 + 3, 64)):
        rows = [i for i in range(width) if i != channel]
        after = model.get_submodule(f"{layer}.conv2").weight
        assert torch.equal(after, before[f"{layer}.conv2.weight"][rows])


def test_attention_heads_go_whole() -> None:
    found = {g.name: g for g in find_groups(*example_of("transformer")).groups}
    assert set(found) == {"embed", "query", "up"}
    heads = found["query"]
    assert (heads.width, heads.unit, heads.layers, heads.consumers) == (
        16,
        4,
        ("query", "key", "value"),
        ("project",),
    )
    model, example = example_of("transformer")
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"query": range(4, 8)})
    assert model.heads == 3
    rows = [*range(4), *range(8, 16)]
    assert torch.equal(model.value.weight, before["value.weight"][rows])
    assert torch.equal(model.project.weight, before["project.weight"][:, rows])
    with pytest.raises(BuildError, match="channel 1 only goes together with others"):
        cut_groups_(model, example, {"query": [0]})


def test_concatenations_of_concatenations_are_found() -> None:
    assert _names("densenet") == {"stem", "grow1.2", "grow2.2", "grow3.2", "transition"}


def test_depthwise_convolutions_go_with_their_producer() -> None:
    found = {g.name: g for g in find_groups(*example_of("separable")).groups}
    assert set(found) == {"stem.0", "pointwise1", "pointwise2"}
    assert found["pointwise1"].layers == ("pointwise1", "depthwise2")


def test_groups_of_a_convolution_lose_the_same_channels() -> None:
    found = {g.name: (g.width, g.unit) for g in find_groups(*example_of("grouped")).groups}
    assert found == {"first": (8, 2), "grouped": (8, 2), "last": (6, 1)}
    model, example = example_of("grouped")
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"first": [1, 5], "grouped": [0, 4]})
    assert (model.grouped.in_channels, model.grouped.out_channels, model.grouped.groups) == (6, 6, 2)
    rows = before["grouped.weight"][[1, 2, 3, 5, 6, 7]]
    assert torch.equal(model.grouped.weight, rows[:, [0, 2, 3]])
    assert model(example).shape == (1, 5)


class _Reversed(nn.Module):
    """The second convolution sees the channels in reverse."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x)).flip(1)
        return self.head(torch.relu(self.second(x)).mean(dim=(2, 3)))


def test_channels_that_change_places_are_followed() -> None:
    model, example = seeded(_Reversed), torch.randn(1, 3, 4, 4)
    assert [g.name for g in find_groups(model, example).groups] == ["first", "second"]
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"first": [0]})
    assert torch.equal(model.second.weight, before["second.weight"][:, :7])


class _Normalised(nn.Module):
    """Softmax over channels: without some of them the others have more."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.softmax(self.first(x), dim=1).mean(dim=(2, 3)))


def test_cut_that_runs_but_computes_something_else_is_refused() -> None:
    groups = find_groups(seeded(_Normalised), torch.randn(1, 3, 4, 4))
    assert groups.groups == ()
    assert "something else" in groups.refused[0].reason


class _AsWideAsTheStream(nn.Module):
    """Attention whose output is reshaped to the width of the stream: fewer heads, or a narrower stream, do not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.embed = nn.Linear(8, 32)
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.project, self.up, self.head = nn.Linear(32, 32), nn.Linear(32, 64), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        batch, tokens, width = x.shape
        q, k, v = (
            layer(x).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = torch.softmax(q @ k.transpose(-2, -1), dim=-1) @ v
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, tokens, width))
        logits: torch.Tensor = self.head(torch.relu(self.up(x)).mean(1))
        return logits


def test_groups_that_only_fit_together_are_refused() -> None:
    """Half of the heads beside half of the stream would run, and compute what it should."""
    found = find_groups(_AsWideAsTheStream().eval(), torch.randn(1, 5, 8))
    assert [group.name for group in found.groups] == ["up"]
    assert {refused.name for refused in found.refused} == {"embed", "query"}
    assert all("shape" in refused.reason for refused in found.refused)


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def test_shared_weights_are_refused() -> None:
    groups = find_groups(seeded(_Tied), torch.randn(2, 6))
    assert groups.groups == ()
    assert "shared between first.weight and second.weight" in groups.refused[0].reason


def test_zero_initialised_branch_does_not_hide_a_wrong_map() -> None:
    model = seeded(_Normalised)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert find_groups(model, torch.randn(1, 3, 4, 4)).groups == ()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_model_and_its_mode_are_left_alone(name: str) -> None:
    model, example = example_of(name)
    model.train()
    model.requires_grad_(requires_grad=False)
    before = copy.deepcopy(model.state_dict())
    assert find_groups(model, example).groups
    assert model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_cutting_every_group_to_one_unit_still_runs(name: str) -> None:
    model, example = example_of(name)
    expected = model(example).shape
    groups = find_groups(model, example).groups
    graph = ChannelGraph(model, example)
    kept = {g.name: set(graph.units(g.name)[0]) for g in groups}
    cut_groups_(model, example, {g.name: sorted(set(range(g.width)) - kept[g.name]) for g in groups})
    assert model(example).shape == expected
    for group in groups:
        assert model.get_submodule(group.name).weight.shape[0] == group.unit


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_cutting_at_once_equals_one_after_the_other(name: str) -> None:
    model, example = example_of(name)
    graph = ChannelGraph(model, example)
    removed = {g.name: [c for u in graph.units(g.name)[::3] for c in u] for g in find_groups(model, example).groups}
    together, single = copy.deepcopy(model), copy.deepcopy(model)
    cut_groups_(together, example, removed)
    for group, indices in removed.items():
        cut_groups_(single, example, {group: indices})
    expected = together.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in single.state_dict().items())


def test_cut_takes_the_right_rows_and_columns() -> None:
    model, example = example_of("plain")
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"conv2": [0, 7]})
    rows = [1, 2, 3, 4, 5, 6, 8, 9]
    columns = [16 * channel + pixel for channel in rows for pixel in range(16)]
    after = model.state_dict()
    assert torch.equal(after["conv2.weight"], before["conv2.weight"][rows])
    assert torch.equal(after["conv2.bias"], before["conv2.bias"][rows])
    assert torch.equal(after["hidden.weight"], before["hidden.weight"][:, columns])
    assert torch.equal(after["conv1.weight"], before["conv1.weight"])


def test_nested_concat_takes_the_right_columns() -> None:
    model, example = example_of("densenet")
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"grow1.2": [1]})
    after = model.state_dict()
    # Seen by grow3 the order is [stem 6, grow1 4, grow2 4]; by the transition [grow3 4, stem 6, grow1 4, grow2 4].
    grow3 = [i for i in range(14) if i != 6 + 1]
    transition = [i for i in range(18) if i != 4 + 6 + 1]
    head = [i for i in range(26) if i != 8 + 4 + 6 + 1]
    assert torch.equal(after["grow3.2.weight"], before["grow3.2.weight"][:, grow3])
    assert torch.equal(after["grow3.0.running_mean"], before["grow3.0.running_mean"][grow3])
    assert torch.equal(after["transition.weight"], before["transition.weight"][:, transition])
    assert torch.equal(after["head.weight"], before["head.weight"][:, head])


def test_frozen_parameters_stay_frozen() -> None:
    model, example = example_of("plain")
    model.conv1.requires_grad_(requires_grad=False)
    cut_groups_(model, example, {"conv1": [0]})
    assert not model.conv1.weight.requires_grad
    assert model.conv2.weight.requires_grad


def test_ignored_layers_keep_their_width() -> None:
    model, example = example_of("resnet")
    names = {g.name for g in find_groups(model, example, ignored=["layer1.*"]).groups}
    # The stem's group holds layer1.0.conv2, so it is kept as well.
    assert names == {"layer2.0.conv1", "layer2.0.conv2", "layer2.1.conv1"}


@pytest.mark.parametrize(("pattern", "hint"), [("layer1.0.conv3", "'layer1.0.conv"), ("layer1", "'layer1.*'")])
def test_ignored_name_without_a_layer_is_an_error_with_a_hint(pattern: str, hint: str) -> None:
    with pytest.raises(InputError, match=r"did you mean") as caught:
        find_groups(*example_of("resnet"), ignored=[pattern])
    assert hint in caught.value.message


def test_batch_larger_than_one_and_zero_example_work() -> None:
    model, _ = example_of("resnet")
    assert len(find_groups(model, torch.zeros(2, 3, 16, 16)).groups) == 6


def test_model_that_does_not_run_is_an_input_error() -> None:
    model, _ = example_of("resnet")
    with pytest.raises(InputError, match=r"does not run on an input shaped \(1, 4, 16, 16\)"):
        find_groups(model, torch.zeros(1, 4, 16, 16))


@pytest.mark.parametrize(
    ("group", "removed", "message"),
    [
        ("conv9", [0], "did you mean 'conv"),
        ("conv1", [12], "expected channels from 0 to 11, got 12"),
        ("conv1", range(12), "no channel would be left of 12"),
    ],
)
def test_impossible_cut_is_told(group: str, removed: list[int], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        cut_groups_(*example_of("plain"), {group: list(removed)})


def test_torch_s_own_attention_loses_heads_and_features() -> None:
    model = seeded(lambda: nn.Sequential(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), nn.Linear(16, 3)))
    example = torch.randn(1, 5, 16)
    found = {g.name: g for g in find_groups(model, example).groups}
    # 48 rows of the packed projection, four of each of query, key and value a head.
    assert {n: (g.width, g.unit, g.kind) for n, g in found.items()} == {
        "0.self_attn": (48, 12, "attention"),
        "0.linear1": (32, 1, "linear"),
    }
    rows = [r + 16 * part for part in range(3) for r in range(4, 8)]
    cut_groups_(model, example, {"0.self_attn": rows})
    assert (model[0].self_attn.num_heads, model[0].self_attn.head_dim) == (3, 4)
    assert model(example).shape == (1, 5, 3)


class _Skipping(nn.Module):
    """Learned scales, a split, and a pair of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.left = nn.Conv2d(4, 6, 1)
        self.right = nn.Conv2d(4, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first, second = (self.conv(x) * self.scale).split(4, dim=1)
        return {"a": self.head(torch.relu(self.left(first))), "b": self.right(second)}


def test_dict_of_outputs_and_a_fixed_split() -> None:
    groups = find_groups(seeded(_Skipping), torch.randn(1, 3, 6, 6))
    # `right` and `head` make the output; the split's sizes are written in the code.
    assert [g.name for g in groups.groups] == ["left"]
    assert [r.name for r in groups.refused] == ["conv"]
