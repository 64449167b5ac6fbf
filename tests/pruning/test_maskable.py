"""What masks may touch: every layer with weights is in one list, masked or left dense with the reason."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from models import seeded
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.pruning.maskable import MAKES_OUTPUT, find_maskable
from edgeprune.pruning.masks import WeightMasks


class Tagger(nn.Module):
    """Tokens to classes, with all that masks leave alone; the head is registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.embedding = nn.Embedding(20, 8)
        self.position = nn.Parameter(torch.randn(5, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.recurrent = nn.GRU(8, 4, batch_first=True, bidirectional=True)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.hidden = nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position
        x = self.norm(x + self.attention(x, x, x)[0])
        x = self.conv(self.recurrent(x)[0].transpose(1, 2)).transpose(1, 2)
        return self.head(self.hidden(x.relu()).mean(dim=1))


TOKENS = torch.zeros(1, 5, dtype=torch.int64)


def test_every_weight_is_masked_or_has_a_reason() -> None:
    model = seeded(Tagger)
    found = find_maskable(model, TOKENS)
    assert found.layers == ("attention.out_proj", "conv", "hidden")
    assert {x.layer: x.reason for x in found.left_dense} == {
        "": "no criterion scores single weights of a Tagger",
        "head": MAKES_OUTPUT,
        "embedding": "embeddings are never masked",
        "attention": "no criterion scores single weights of a MultiheadAttention",
        "recurrent": "no criterion scores single weights of a GRU",
    }
    assert sum(x.weights for x in found.weighted) == sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert "head" in find_maskable(model, TOKENS, classifier=True).layers


def test_the_share_of_zeros_is_told_of_all_weights() -> None:
    model = seeded(Tagger)
    masks = WeightMasks.unstructured(model, find_maskable(model, TOKENS), 0.9)
    masks.make_permanent()
    weights = [p for p in model.parameters() if p.dim() > 1]
    zeros = sum(int((p == 0).sum()) for p in weights)
    masks = WeightMasks.unstructured(model, find_maskable(model, TOKENS), 0.9)
    assert masks.sparsity == pytest.approx(zeros / sum(p.numel() for p in weights))
    assert {x.layer for x in masks.sparsities() if not x.sparsity} == {x.layer for x in masks.left_dense}


class Tied(nn.Module):
    def __init__(self, *, with_embedding: bool) -> None:
        super().__init__()
        self.decoder, self.body, self.other = (
            nn.Linear(8, 20, bias=False),
            nn.Linear(8, 8),
            nn.Linear(8, 20, bias=False),
        )
        self.embedding = nn.Embedding(20, 8)
        (self.embedding if with_embedding else self.other).weight = self.decoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.body(self.embedding(tokens))
        return self.decoder(hidden.relu() + self.other(hidden).softmax(dim=-1) @ self.embedding.weight)


@pytest.mark.parametrize("classifier", [False, True])
def test_a_decoder_that_is_tied_to_an_embedding_is_never_masked(*, classifier: bool) -> None:
    model = seeded(lambda: Tied(with_embedding=True))
    found = find_maskable(model, TOKENS, classifier=classifier)
    assert found.layers == ("body", "other")
    assert [(x.layer, x.reason) for x in found.left_dense] == [
        ("decoder", "its weight is that of embedding 'embedding' too, and embeddings are never masked")
    ]
    WeightMasks.unstructured(model, found, 1.0).apply_()
    assert int((model.embedding.weight == 0).sum()) == 0


@pytest.mark.parametrize(
    ("ignored", "classifier", "expected"),
    [((), False, ("body",)), ((), True, ("decoder", "body")), (("other",), True, ("body",))],
)
def test_a_weight_of_two_layers_is_left_dense_for_the_sake_of_either(
    *, ignored: Sequence[str], classifier: bool, expected: tuple[str, ...]
) -> None:
    model = seeded(lambda: Tied(with_embedding=False))
    assert find_maskable(model, TOKENS, ignored, classifier=classifier).layers == expected


def test_a_reason_that_is_there_stays() -> None:
    found = find_maskable(seeded(Tagger), TOKENS).without({"conv": "for a reason", "head": "another"})
    reasons = {x.layer: x.reason for x in found.left_dense}
    assert (reasons["conv"], reasons["head"], found.layers[-1]) == ("for a reason", MAKES_OUTPUT, "hidden")


def test_a_misspelt_name_is_told() -> None:
    with pytest.raises(InputError, match=r"pruning.ignored: no layer is named 'hiden'; did you mean 'hidden'"):
        find_maskable(seeded(Tagger), TOKENS, ["hiden"])
