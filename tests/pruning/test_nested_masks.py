"""What is zero stays zero from round to round, whichever criterion chose it."""

from __future__ import annotations

import copy

import pytest
import torch
from models import seeded
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.protocols import Granularity, ScoringData
from edgeprune.pruning import gates
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.maskable import Maskable, find_maskable
from edgeprune.pruning.masks import Spread, WeightMasks
from edgeprune.pruning.scoring import weight_scores

BY_WEIGHT = [n for n in CRITERIA.names() if Granularity.WEIGHT in CRITERIA.get(n).granularities]


def some_data() -> ScoringData:
    drawn = torch.Generator().manual_seed(1)
    inputs = torch.randn(256, 20, generator=drawn)
    batches = tuple(zip(inputs.split(64), inputs[:, :5].argmax(dim=1).split(64), strict=True))
    return ScoringData(batches=batches, loss=functional.cross_entropy, learning_rate=0.01)


DATA = some_data()


def train_(model: nn.Module, rate: float, masks: WeightMasks | None = None) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for inputs, labels in DATA.batches * 5:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        if masks is not None:
            masks.apply_()
    return model


def trained() -> nn.Module:
    made = seeded(lambda: nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5)))
    return train_(made, 0.1)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return trained()


def next_masks(
    model: nn.Module, layers: Maskable, criterion: str, share: float, after: WeightMasks | None
) -> WeightMasks:
    found = CRITERIA.get(criterion)
    scores = weight_scores(model, layers.layers, found, data=DATA if found.needs_data else None)
    if criterion == "obc":
        return WeightMasks.blocks(model, layers, share, (1, 4), scores=scores, after=after)
    spread = Spread(scope="layer") if criterion == "l1" else Spread(shares={"2": share})
    return WeightMasks.unstructured(model, layers, share, scores=scores, spread=spread, after=after)


def revived(before: WeightMasks, now: WeightMasks) -> int:
    return sum(int((now.kept[n] & ~kept).sum()) for n, kept in before.kept.items())


@pytest.mark.parametrize("criterion", BY_WEIGHT)
def test_masks_nest_over_three_rounds(criterion: str, dense: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_STEPS", 5)
    model = copy.deepcopy(dense)
    layers = find_maskable(model, torch.zeros(1, 20))
    before: WeightMasks | None = None
    for share in (0.25, 0.5, 0.75):
        masks = next_masks(model, layers, criterion, share, before)
        assert before is None or revived(before, masks) == 0
        assert sum(int((~k).sum()) for k in masks.kept.values()) == round(share * (20 * 32 + 32 * 32))
        masks.apply_()
        train_(model, 0.01, masks)
        before = masks


def test_by_movement_alone_zeros_would_come_back(dense: nn.Module) -> None:
    """Why masks are told of those before: a weight that shrinks scores less than one that is zero already."""
    model = copy.deepcopy(dense)
    layers = find_maskable(model, torch.zeros(1, 20))
    first = next_masks(model, layers, "movement", 0.25, None)
    first.apply_()
    train_(model, 0.01, first)
    assert revived(first, next_masks(model, layers, "movement", 0.5, None)) > 0
    assert revived(first, next_masks(model, layers, "movement", 0.5, first)) == 0


def test_fewer_zeros_than_before_are_some_of_those() -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 1))
    layers = find_maskable(model, torch.zeros(1, 4))

    def masks(scores: list[float], share: float, after: WeightMasks | None = None) -> WeightMasks:
        by_layer: dict[str, Tensor] = {"0": torch.tensor([scores])}
        return WeightMasks.unstructured(model, layers, share, scores=by_layer, after=after)

    first = masks([1.0, 2.0, 3.0, 4.0], 0.5)
    assert first.kept["0"].tolist() == [[False, False, True, True]]
    assert masks([9.0, 8.0, -1.0, 0.0], 0.75, first).kept["0"].tolist() == [[False, False, False, True]]
    assert masks([9.0, 8.0, -1.0, 0.0], 0.25, first).kept["0"].tolist() == [[False, True, True, True]]
    kept = WeightMasks.n_m(model, layers, 2, 4, scores={"0": torch.tensor([[9.0, 8.0, 1.0, 0.0]])}, after=first).kept
    assert kept["0"].tolist() == [[False, False, True, True]]
