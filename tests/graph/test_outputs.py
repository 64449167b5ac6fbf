"""Which layers make the output is found by the run, whatever the order in which they were registered."""

from __future__ import annotations

import pytest
import torch
from models import EXAMPLES, example_of, seeded
from structures import STRUCTURES, structure
from torch import Tensor, nn

from edgeprune.graph.outputs import output_layers


def of(model: nn.Module, *shape: int) -> set[str]:
    return set(output_layers(seeded(lambda: model), torch.randn(1, *shape)))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_net_has_a_last_layer(name: str) -> None:
    model, example = example_of(name)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    found = output_layers(model, example)
    assert found
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    named = {"plain": {"head"}, "resnet": {"fc"}, "densenet": {"head"}}
    assert found == named.get(name, found)


@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_uncommon_structures_have_one_too(name: str) -> None:
    assert output_layers(*structure(name))


class HeadFirst(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(16, outputs)
        self.body = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu())


# A single output has no channels to be followed by their numbers.
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_head_may_be_registered_first(outputs: int) -> None:
    assert of(HeadFirst(outputs), 8) == {"head"}


class Detector(nn.Module):
    def __init__(self, *, joined: bool) -> None:
        super().__init__()
        self.box, self.body, self.kind = nn.Conv2d(8, 4, 1), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1)
        self.joined = joined

    def forward(self, x: Tensor) -> object:
        features = self.body(x).relu()
        both = self.box(features), self.kind(features).softmax(dim=1)
        return torch.cat(both, dim=1) if self.joined else {"box": both[0], "kind": both[1].argmax(dim=1)}


@pytest.mark.parametrize("joined", [False, True])
def test_every_head_of_a_detector(*, joined: bool) -> None:
    assert of(Detector(joined=joined), 3, 6, 6) == {"box", "kind"}


class Stream(nn.Module):
    """Blocks that add to a stream, which is the output, through a norm and a learned scale."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.scale = nn.LayerNorm(8), nn.Parameter(torch.ones(1, 8))
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3))
        self.stem = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.norm(x) * self.scale


def test_of_a_stream_the_last_layer_that_adds_to_it() -> None:
    assert of(Stream(), 4) == {"blocks.2.2"}


class Supervised(nn.Module):
    """An early output that a later one is computed from."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.early, self.late = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x).relu()
        early = self.early(features)
        return early, self.late(torch.cat([features, early], dim=1))


def test_an_output_that_is_read_again_is_one_all_the_same() -> None:
    assert of(Supervised(), 8) == {"early", "late"}


class Written(nn.Module):
    """Outputs written into a tensor, by a bare weight and by a layer with a computed one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fixed = nn.Linear(8, 6), nn.Parameter(torch.randn(6, 2))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x).relu()
        out = torch.zeros(len(x), 5)
        out[:, :2] = features @ self.fixed
        out[:, 2:] = self.normed(features)
        return out


def test_bare_and_computed_weights_make_an_output_too() -> None:
    assert of(Written(), 8) == {"", "normed.parametrizations.weight"}


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.head, self.recurrent = nn.Linear(6, 2), kind(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_recurrent_layers(kind: type[nn.GRU | nn.LSTM]) -> None:
    assert of(Recurrent(kind), 5, 4) == {"head"}
    assert of(nn.Sequential(nn.Linear(4, 4), Recurrent(kind).recurrent), 5, 4) == {"1"}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.embedding, self.body = nn.Linear(8, 20, bias=False), nn.Embedding(20, 8), nn.Linear(8, 8)
        self.embedding.weight = self.decoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.body(self.embedding(tokens)).relu())


def test_a_weight_that_is_shared_is_known_by_all_its_layers() -> None:
    assert output_layers(Tied(), torch.zeros(1, 5, dtype=torch.int64)) == {"decoder", "embedding"}


def test_attention_whose_projections_are_one_operation() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    assert of(nn.Sequential(encoder, nn.Linear(8, 3)), 5, 8) == {"1"}
    assert of(nn.Sequential(nn.Linear(8, 8), encoder), 5, 8) == {"1.linear2"}
