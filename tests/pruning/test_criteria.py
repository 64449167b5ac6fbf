from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.protocols import Criterion
from edgeprune.pruning.criteria import CRITERIA

SHAPES = ((8, 3, 3, 3), (6, 5), (4, 2, 3))


def _weight(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(dtype)


@pytest.fixture(params=CRITERIA.names())
def criterion(request: pytest.FixtureRequest) -> Criterion:
    return CRITERIA.get(request.param)


@pytest.fixture(params=[n for n in CRITERIA.names() if n != "random"])
def data_criterion(request: pytest.FixtureRequest) -> Criterion:
    return CRITERIA.get(request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_scores_are_one_float32_a_channel_without_gradient(
    criterion: Criterion, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    weight = _weight(shape, dtype).requires_grad_()
    scores = criterion.score(weight, seed=0)
    assert scores.shape == (shape[0],)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert bool(scores.isfinite().all())


def test_same_seed_same_scores_and_weight_untouched(criterion: Criterion) -> None:
    weight = _weight(SHAPES[0])
    before = weight.clone()
    assert torch.equal(criterion.score(weight, seed=3), criterion.score(weight, seed=3))
    assert torch.equal(weight, before)


def test_global_generator_is_left_alone(criterion: Criterion) -> None:
    before = torch.random.get_rng_state()
    criterion.score(_weight(SHAPES[0]), seed=3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_order_does_not_depend_on_the_scale(criterion: Criterion) -> None:
    weight = _weight((16, 4, 3, 3))
    assert torch.equal(criterion.score(weight, seed=1).argsort(), criterion.score(3 * weight, seed=1).argsort())


def test_permuted_channels_have_permuted_scores(data_criterion: Criterion) -> None:
    weight = _weight((16, 4, 3, 3))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    permuted = data_criterion.score(weight[order], seed=0)
    torch.testing.assert_close(permuted, data_criterion.score(weight, seed=0)[order])


def test_seed_changes_random_scores_only() -> None:
    weight = _weight(SHAPES[0])
    changed = {n for n in CRITERIA.names() if not torch.equal(*(CRITERIA.get(n).score(weight, seed=s) for s in (1, 2)))}
    assert changed == {"random"}


def test_norms_by_hand() -> None:
    weight = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
    assert CRITERIA.get("l1").score(weight, seed=0).tolist() == [7.0, 1.0]
    assert CRITERIA.get("l2").score(weight, seed=0).tolist() == [5.0, 1.0]


def test_geometric_median_drops_the_filter_in_the_middle() -> None:
    # On a line at 0, 1, 3 and 10: the sums of distances are 14, 12, 12, 26; the large filter matters most.
    weight = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    assert CRITERIA.get("geometric_median").score(weight, seed=0).tolist() == [14.0, 12.0, 12.0, 26.0]


def test_unknown_criterion_is_told_with_the_closest() -> None:
    with pytest.raises(InputError, match="did you mean 'random'"):
        CRITERIA.get("randon")
