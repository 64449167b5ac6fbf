"""Channels that hang together in uncommon ways: found, cut and replayed, or refused with the reason."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from models import cut_groups_, seeded
from structures import STRUCTURES, EncoderClassifier, GroupedQueryAttention, encoder, structure
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.graph.attention import HeadwiseAttention
from edgeprune.graph.groups import ChannelGraph, ChannelGroup, find_groups
from edgeprune.graph.slicing import Side, switch_off_
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.surgery import rebuild, structured_prune
from edgeprune.records.recipe import PruningRecipe

FOUND = {
    "decoder": {"embed": (12, 1), "attention.q_proj": (16, 8), "gate_up": (20, 2)},
    "packed": {"qkv": (36, 12), "proj": (12, 1)},
    "shuffle": {"stem": (8, 2), "branch.0": (4, 1), "last": (6, 1)},
    "split": {"conv": (10, 1), "left": (5, 1), "right": (8, 1)},
    "upscaler": {"first": (16, 4), "second": (8, 2), "wider": (12, 2)},
    "norms": {"first": (16, 4), "second": (6, 1)},
    "aggregated": {"stem": (8, 1), "narrow": (16, 4), "grouped": (16, 4)},
    "recurrent": {"conv": (6, 1), "lstm": (5, 1), "gru": (7, 1)},
    "cell": {"embed": (6, 1), "cell": (8, 1)},
}
"""Width and unit of every group."""

each_structure = pytest.mark.parametrize("name", sorted(STRUCTURES))


def _half(graph: ChannelGraph, groups: Iterable[ChannelGroup]) -> dict[str, list[int]]:
    """Every second unit of each group."""
    return {g.name: sorted(c for unit in graph.units(g.name)[::2] for c in unit) for g in groups}


def _without(model: nn.Module, example: Tensor, group: str, removed: list[int]) -> Tensor:
    """The output where whoever reads the channels reads nothing."""
    silent = copy.deepcopy(model)
    for edit in ChannelGraph(model, example).edits(group, removed):
        if edit.side in {Side.IN, Side.OUT}:
            switch_off_(silent.get_submodule(edit.layer), edit.side, edit.indices)
    with torch.no_grad():
        return silent(example)


@each_structure
def test_groups_and_their_units(name: str) -> None:
    found = find_groups(*structure(name)).groups
    assert {g.name: (g.width, g.unit) for g in found} == FOUND[name]


@each_structure
def test_cut_channels_count_as_zero(name: str) -> None:
    """Law: a cut is the same as to read nothing from those channels, norms over channels aside."""
    model, example = structure(name)
    mixing = nn.LayerNorm | nn.GroupNorm | nn.RMSNorm
    for group in find_groups(model, example).groups:
        if any(isinstance(model.get_submodule(layer), mixing) for layer in group.layers):
            continue
        removed = _half(ChannelGraph(model, example), [group])[group.name]
        cut = copy.deepcopy(model)
        cut_groups_(cut, example, {group.name: removed})
        expected = _without(model, example, group.name, removed)
        with torch.no_grad():
            torch.testing.assert_close(cut(example), expected, msg=lambda text, g=group: f"{g.name}: {text}")


@each_structure
def test_recipe_makes_the_same_model_again(name: str) -> None:
    model, example = structure(name)
    pruned, cuts = model, ()
    for share in (0.7, 0.6):
        widths = {g.name: int(g.width * share) or 1 for g in find_groups(pruned, example).groups}
        pruned, more = structured_prune(pruned, example, widths, CRITERIA.get("l2"), seed=0)
        cuts = (*cuts, *more)
    assert pruned(example).shape == model(example).shape
    again = rebuild(model, example, PruningRecipe(cuts=cuts))
    expected = pruned.state_dict()
    assert all(torch.equal(values, expected[key]) for key, values in again.state_dict().items())
    assert _numbers(again) == _numbers(pruned) != _numbers(model)


def _numbers(model: nn.Module) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for name, module in model.named_modules():
        numbers = {k: v for k, v in vars(module).items() if isinstance(v, int | list | tuple)}
        # Recurrent layers keep their weights in lists too.
        found[name] = {k: v for k, v in numbers.items() if not k.startswith("_flat_weight")}
    return found


def test_key_and_value_heads_go_with_the_query_heads_that_read_them() -> None:
    model, example = structure("decoder")
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"attention.q_proj": range(8, 16)})
    attention = model.attention
    assert isinstance(attention, GroupedQueryAttention)
    assert (attention.num_heads, attention.num_kv_heads, attention.head_dim) == (2, 1, 4)
    assert torch.equal(attention.q_proj.weight, before["attention.q_proj.weight"][:8])
    assert torch.equal(attention.k_proj.weight, before["attention.k_proj.weight"][:4])
    assert torch.equal(attention.v_proj.weight, before["attention.v_proj.weight"][:4])
    assert torch.equal(attention.o_proj.weight, before["attention.o_proj.weight"][:, :8])


def test_gate_and_what_it_gates_go_together() -> None:
    model, example = structure("decoder")
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"gate_up": [3, 13]})
    assert torch.equal(model.gate_up.weight, before["gate_up.weight"][[r for r in range(20) if r not in {3, 13}]])
    assert torch.equal(model.down.weight, before["down.weight"][:, [c for c in range(10) if c != 3]])


def test_packed_query_key_and_value_lose_the_same_head() -> None:
    model, example = structure("packed")
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"qkv": [4, 5, 6, 7, 16, 17, 18, 19, 28, 29, 30, 31]})
    rows = [12 * part + r for part in range(3) for r in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert model.num_heads == 2
    assert torch.equal(model.qkv.weight, before["qkv.weight"][rows])
    assert torch.equal(model.proj.weight, before["proj.weight"][:, [0, 1, 2, 3, 8, 9, 10, 11]])


def test_sizes_of_a_split_follow_the_cut() -> None:
    model, example = structure("split")
    cut_groups_(model, example, {"conv": [1, 7, 8], "right": [2, 6]})
    assert model.sizes == [5, 2]
    assert (model.left.in_channels, model.right.in_channels) == (5, 2)
    # One channel from before the slice, one from within.
    assert (model.slow, model.head.in_features) == (4, 7)


class _Sliced(nn.Module):
    """The code says where the slice begins."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x))[:, 5:])


def test_a_slice_whose_place_is_fixed_is_refused() -> None:
    found = find_groups(seeded(_Sliced), torch.randn(1, 4))
    assert found.groups == ()
    assert found.refused[0].name == "first"
    assert "after a trial cut the model does not run" in found.refused[0].reason


def test_four_channels_make_one_of_four_times_the_pixels() -> None:
    model, example = structure("upscaler")
    cut_groups_(model, example, {"first": range(4, 8)})
    assert model.first.out_channels == 12
    assert model.second.in_channels == 3
    assert model(example).shape == (1, 1, 24, 24)


def test_hidden_unit_goes_from_every_gate_layer_and_direction() -> None:
    model, example = structure("recurrent")
    before = copy.deepcopy(model.state_dict())
    cut_groups_(model, example, {"lstm": [2]})
    rows = [5 * gate + unit for gate in range(4) for unit in (0, 1, 3, 4)]
    assert model.lstm.hidden_size == 4
    assert torch.equal(model.lstm.weight_ih_l0_reverse, before["lstm.weight_ih_l0_reverse"][rows])
    assert torch.equal(model.lstm.weight_hh_l1, before["lstm.weight_hh_l1"][rows][:, [0, 1, 3, 4]])
    both = [0, 1, 3, 4, 5, 6, 8, 9]
    assert torch.equal(model.lstm.weight_ih_l1, before["lstm.weight_ih_l1"][rows][:, both])
    assert torch.equal(model.gru.weight_ih_l0, before["gru.weight_ih_l0"][:, both])


class _Given(nn.Module):
    """A state made of zeros, as wide as the code says."""

    def __init__(self, **options: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True, **options)
        self.head = nn.Linear(options.get("proj_size", 6), 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None if self.lstm.proj_size else (torch.zeros(1, len(x), 6), torch.zeros(1, len(x), 6))
        return self.head(self.lstm(x, state)[0].mean(dim=1))


@pytest.mark.parametrize(
    ("options", "reason"),
    [({}, "layer 'lstm' is given a state of fixed width"), ({"proj_size": 2}, "a LSTM with a projection")],
)
def test_recurrent_layers_that_stay_tell_why(options: dict[str, int], reason: str) -> None:
    found = find_groups(seeded(lambda: _Given(**options)), torch.randn(1, 5, 4))
    assert found.groups == ()
    assert reason in found.refused[0].reason


@pytest.mark.parametrize("batch_first", [True, False])
def test_embeddings_are_kept_unless_asked_for(*, batch_first: bool) -> None:
    model, example = encoder(batch_first=batch_first)
    found = find_groups(model, example)
    assert {(g.kind, g.width, g.unit) for g in found.groups} == {("attention", 48, 12), ("linear", 24, 1)}
    assert "embedding 'embedding' has the same features" in found.refused[0].reason
    asked = find_groups(model, example, embeddings=True)
    assert asked.refused == ()
    stream = next(g for g in asked.groups if "embedding" in g.layers)
    cut_groups_(model, example, {stream.name: [0, 7]})
    assert (model.embedding.embedding_dim, model.position.shape, model.head.in_features) == (14, (6, 14), 14)
    assert model(example).shape == (1, 3)


class _Table(nn.Module):
    """An encoder's stream over a bare table of token numbers, and one of positions. Input [n, 6], integers under 20."""

    def __init__(self, look_up: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.table, self.position = nn.Parameter(torch.randn(20, 16)), nn.Parameter(torch.randn(6, 16))
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 3)
        self.look_up = look_up

    def forward(self, x: Tensor) -> Tensor:
        y = self.look_up(x, self.table) + self.position
        return self.head((y + self.down(self.up(y).relu())).mean(dim=1))


LOOKUPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "F.embedding": functional.embedding,
    "table[numbers]": lambda x, table: table[x % 20],
    "index_select": lambda x, table: table.index_select(0, x.flatten()).unflatten(0, x.shape),
    "scaled": lambda x, table: functional.embedding(x, 4 * table),
}


@pytest.mark.parametrize("how", LOOKUPS)
def test_a_bare_table_that_the_input_looks_up_is_an_embedding(how: str) -> None:
    model, example = seeded(lambda: _Table(LOOKUPS[how])), encoder()[1]
    found = find_groups(model, example)
    assert [g.name for g in found.groups] == ["up"]
    assert [r.reason.split(",")[0] for r in found.refused] == ["embedding 'table' has the same features"]
    asked = find_groups(model, example, embeddings=True)
    assert ([g.name for g in asked.groups], asked.refused) == (["up", "down"], ())
    cut_groups_(model, example, {"down": [0, 7]})
    assert (model.table.shape, model.position.shape, model.head.in_features) == ((20, 14), (6, 14), 14)
    assert model(example).shape == (1, 3)


class _Placed(nn.Module):
    """Positions by their numbers. Input [n, 6, 4]."""

    def __init__(self, look_up: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.position, self.look_up = nn.Parameter(torch.randn(6, 16)), look_up
        self.into, self.head = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x) + self.look_up(torch.arange(x.shape[1]), self.position)
        return self.head(y.relu().mean(dim=1))


@pytest.mark.parametrize("how", LOOKUPS)
def test_a_table_that_constants_look_up_is_none(how: str) -> None:
    found = find_groups(seeded(lambda: _Placed(LOOKUPS[how])), torch.randn(1, 6, 4))
    assert ([g.name for g in found.groups], found.refused) == (["into"], ())


class _Attending(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(dim=1))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"add_bias_kv": True}, "'attention': torch's MultiheadAttention can only be cut"),
        ({"add_zero_attn": True}, "they meet a tensor whose width is fixed"),
    ],
)
def test_attention_with_additions_is_refused_by_name(options: dict[str, bool], reason: str) -> None:
    found = find_groups(seeded(lambda: _Attending(**options)), torch.randn(1, 5, 4))
    assert "attention" not in {g.name for g in found.groups}
    assert reason in {r.name: r.reason for r in found.refused}["attention"]


def _headwise(whole: nn.MultiheadAttention) -> HeadwiseAttention:
    return HeadwiseAttention(copy.deepcopy(whole)).eval()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("averaged", [True, False])
def test_attention_of_all_heads_is_torch_s(*, batch_first: bool, averaged: bool) -> None:
    whole = seeded(lambda: nn.MultiheadAttention(8, 2, batch_first=batch_first))
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(shape, generator=generator) for shape in ((3, 4, 8), (3, 5, 8)))
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    hidden[1, 3:] = True
    causal = torch.ones(4, 5, dtype=torch.bool).triu(1)
    a_head = torch.randn(6, 4, 5, generator=generator)
    for masks in ({}, {"attn_mask": causal, "key_padding_mask": hidden}, {"attn_mask": a_head}):
        expected = whole(query, key, key, average_attn_weights=averaged, **masks)
        found = _headwise(whole)(query, key, key, average_attn_weights=averaged, **masks)
        torch.testing.assert_close(found, expected)
    alone = whole(query[0], query[0], query[0])
    torch.testing.assert_close(_headwise(whole)(query[0], query[0], query[0]), alone)


class _WeightNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
        self.second = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).mean(dim=(2, 3)))


def test_computed_weights_keep_their_layer_and_spare_the_others() -> None:
    found = find_groups(seeded(_WeightNormed), torch.randn(1, 3, 6, 6))
    assert [g.name for g in found.groups] == ["second"]


class _Unfollowed(nn.Module):
    """A Fourier transform over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.rfft(self.first(x)).abs().repeat(1, 2)[:, :8])


def test_operation_that_is_not_followed_is_named() -> None:
    (refused,) = find_groups(seeded(_Unfollowed), torch.randn(2, 4)).refused
    assert refused.name == "first"
    assert "_fft_r2c mixes them in a way that is not followed" in refused.reason


def test_removed_heads_leave_the_mask_for_the_others() -> None:
    """In a whole encoder, heads whose output nobody reads can go without a change."""
    model, example = encoder()
    assert isinstance(model, EncoderClassifier)
    with torch.no_grad():
        model.encoder.layers[1].self_attn.out_proj.weight[:, 4:12] = 0.0
    with torch.no_grad():
        expected = model(example)
    rows = [16 * part + row for part in range(3) for row in range(4, 12)]
    cut_groups_(model, example, {"encoder.layers.1.self_attn": rows})
    assert isinstance(model.encoder.layers[1].self_attn, HeadwiseAttention)
    assert isinstance(model.encoder.layers[0].self_attn, nn.MultiheadAttention)
    with torch.no_grad():
        torch.testing.assert_close(model(example), expected)
