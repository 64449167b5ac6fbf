"""Models of transformers, made small from their configurations with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import cut_groups_, seeded
from torch import Tensor, nn

from edgeprune.graph.blocks import find_blocks, remove_blocks
from edgeprune.graph.groups import ChannelGraph, find_groups
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.surgery import rebuild, structured_prune
from edgeprune.records.recipe import PruningRecipe

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
SENTENCE = torch.tensor([[5, 7, 3, 12, 9, 2]])
IMAGE = torch.randn((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))


class Logits(nn.Module):
    """A library's model that returns a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return Logits(BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=8, **SIZES)))


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return Logits(ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **SIZES)))


def _resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return Logits(ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[2, 1])))


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(vocab_size=20, num_key_value_heads=2, pad_token_id=0, use_cache=False, **SIZES)
    return Logits(LlamaForSequenceClassification(config))


def _swin() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[2, 1], num_heads=[2, 4], window_size=4)
    return Logits(SwinForImageClassification(config))


def _convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return Logits(ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1])))


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "bert": (_bert, SENTENCE),
    "vit": (_vit, IMAGE),
    "resnet": (_resnet, IMAGE),
    "llama": (_llama, SENTENCE),
    "swin": (_swin, IMAGE),
    "convnext": (_convnext, IMAGE),
}

WIDTHS: dict[str, dict[tuple[int, int], int]] = {
    "bert": {(16, 4): 2, (24, 1): 2, (16, 1): 1},
    "vit": {(16, 1): 1, (16, 4): 2, (24, 1): 2},
    "resnet": {(8, 1): 3, (16, 1): 1, (4, 1): 4, (32, 1): 1},
    # Two query heads of four features for each head of keys and values.
    "llama": {(16, 8): 2, (24, 1): 2},
    "swin": {(8, 1): 1, (8, 4): 2, (32, 1): 2, (16, 1): 1, (16, 4): 1, (64, 1): 1},
    "convnext": {(8, 1): 1, (16, 1): 3, (32, 1): 1, (64, 1): 3},
}
"""How many groups there are of each width and unit."""


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "name", ["bert", "llama", "vit", "resnet", *(pytest.param(n, marks=pytest.mark.slow) for n in ("swin", "convnext"))]
)
def test_groups_are_found_cut_and_cut_again_from_the_recipe(name: str) -> None:
    factory, example = MODELS[name]
    model = seeded(factory)
    found = find_groups(model, example)
    counts: dict[tuple[int, int], int] = {}
    for group in found.groups:
        counts[group.width, group.unit] = counts.get((group.width, group.unit), 0) + 1
    assert counts == WIDTHS[name]

    widths = {g.name: g.width // 2 for g in found.groups}
    pruned, cuts = structured_prune(model, example, widths, CRITERIA.get("l2"), seed=0)
    with torch.no_grad():
        assert pruned(example).shape == model(example).shape
    assert [(g.name, g.width) for g in find_groups(pruned, example).groups if g.width != widths[g.name]] == []
    again = rebuild(model, example, PruningRecipe(cuts=cuts))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in pruned.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(again(example), pruned(example))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("name", "embedding"), [("bert", "word_embeddings"), ("llama", "embed_tokens")])
def test_the_stream_of_a_language_model_is_kept_for_its_embeddings(name: str, embedding: str) -> None:
    factory, example = MODELS[name]
    (refused,) = find_groups(seeded(factory), example).refused
    assert f"{embedding}' has the same features" in refused.reason


BLOCKS: dict[str, tuple[str, ...]] = {
    "bert": ("model.bert.encoder.layer.0", "model.bert.encoder.layer.1"),
    "llama": ("model.model.layers.0", "model.model.layers.1"),
    "vit": ("model.vit.layers.0", "model.vit.layers.1"),
    # The first of each stage changes the extent or the channels.
    "resnet": ("model.resnet.encoder.stages.0.layers.1",),
    "convnext": tuple(f"model.convnext.encoder.stages.{stage}.layers.0" for stage in range(4)),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", BLOCKS)
def test_layers_and_residual_blocks_are_found_and_the_rest_runs_without_them(name: str) -> None:
    factory, example = MODELS[name]
    model = seeded(factory)
    found = find_blocks(model, example)
    assert (found.removable, found.refused) == (BLOCKS[name], ())
    with torch.no_grad():
        assert remove_blocks(model, found.removable)(example).shape == model(example).shape


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_heads_that_nobody_reads_go_without_a_change() -> None:
    model = seeded(_llama)
    layer = model.model.model.layers[0].self_attn
    with torch.no_grad():
        layer.o_proj.weight[:, 8:] = 0.0
        expected = model(SENTENCE)
    name = "model.model.layers.0.self_attn.q_proj"
    assert ChannelGraph(model, SENTENCE).units(name) == (tuple(range(8)), tuple(range(8, 16)))
    cut_groups_(model, SENTENCE, {name: range(8, 16)})
    assert layer.k_proj.out_features == 4
    with torch.no_grad():
        torch.testing.assert_close(model(SENTENCE), expected)


class _Transposed(nn.Module):
    """GPT-2's layers keep their weights the other way round."""

    def __init__(self) -> None:
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.first: Any = Conv1D(8, 4)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)))


def test_layer_of_an_unknown_kind_is_refused_by_name() -> None:
    found = find_groups(seeded(_Transposed), torch.randn(1, 4))
    assert found.groups == ()
    assert [(r.name, r.reason) for r in found.refused] == [("first", "no cut is known for a Conv1D")]
