"""Groups that can be cut are groups that can be scored: what is not refused by name has scores when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from models import seeded
from structures import encoder, structure
from torch import Tensor, nn

from edgeprune.graph.groups import ChannelGraph, find_groups
from edgeprune.protocols import Granularity, ScoringData
from edgeprune.pruning import gates
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.scoring import channel_scores, groups_without_scores
from edgeprune.schema.compression import Pruning
from edgeprune.steps.cuttable import cuttable_groups

BY_CHANNEL = [n for n in CRITERIA.names() if CRITERIA.get(n).granularities - {Granularity.WEIGHT}]
BY_READERS = [n for n in BY_CHANNEL if Granularity.OUT_CHANNEL not in CRITERIA.get(n).granularities]


def upscaling() -> tuple[nn.Module, Tensor]:
    layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, 2), nn.ReLU(), nn.Conv2d(6, 2, 1))
    return seeded(lambda: nn.Sequential(*layers)), torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "packed": lambda: structure("packed"),
    "decoder": lambda: structure("decoder"),
    "encoder": encoder,
    "tokens first": lambda: encoder(batch_first=False),
    "recurrent": lambda: structure("recurrent"),
    "cell": lambda: structure("cell"),
    "upscaling": upscaling,
}


def without_scores(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """By criterion the groups that it is said to have no score for, once it has scored all the others."""
    monkeypatch.setattr(gates, "_STEPS", 2)
    model, example = MODELS[name]()
    graph, groups = ChannelGraph(model, example[:1]), find_groups(model, example[:1]).groups
    data = ScoringData(batches=((torch.cat([example] * 2),) * 2,), loss=lambda y, _: y.square().mean())
    missing: dict[str, tuple[str, ...]] = {}
    for criterion in map(CRITERIA.get, BY_CHANNEL):
        without = groups_without_scores(model, graph, [g.name for g in groups], criterion)
        widths = {g.name: g.width for g in groups if g.name not in without}
        scores = channel_scores(model, graph, widths, criterion, data=data)
        assert {group: len(each) for group, each in scores.items()} == widths
        assert all(bool(each.isfinite().all()) and bool(each.any()) for each in scores.values())
        missing[BY_CHANNEL[len(missing)]] = without
    assert groups
    return missing


@pytest.mark.parametrize("name", ["packed", "decoder", "encoder", "tokens first", "upscaling"])
def test_every_group_with_attention_or_transposed_convolutions_is_scored(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {c: w for c, w in without_scores(name, monkeypatch).items() if w and c != "batchnorm_scale"} == {}


@pytest.mark.parametrize(("name", "read_by_recurrent"), [("recurrent", ("conv", "lstm")), ("cell", ("embed",))])
def test_what_only_recurrent_layers_read_has_no_scores_by_readers(
    name: str, read_by_recurrent: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = without_scores(name, monkeypatch)
    del missing["batchnorm_scale"]
    assert missing == {c: read_by_recurrent if c in BY_READERS else () for c in missing}


def test_groups_without_scores_are_refused_by_name() -> None:
    model, example = MODELS["cell"]()
    for criterion, refused in (("taylor", []), ("fisher", ["embed"])):
        found = cuttable_groups(model, example, Pruning(criterion=criterion))
        assert [g.name for g in found.refused] == refused
        assert all(f"the criterion '{criterion}' scores none of its layers" in g.reason for g in found.refused)
        assert [g.name for g in found.groups] == [n for n in ("embed", "cell") if n not in refused]
