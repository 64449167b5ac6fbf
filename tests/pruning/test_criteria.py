"""Every file of `pruning/criteria` keeps the same contract, and gives what its paper's formula gives by hand."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import EXAMPLES, example_of, seeded
from structures import encoder, structure
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import InputError
from edgeprune.protocols import Granularity, ScoringData, ScoringTask
from edgeprune.pruning import gates
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.maskable import find_maskable
from edgeprune.pruning.scoring import weight_scores

CASES = [(n, g) for n in CRITERIA.names() for g in sorted(CRITERIA.get(n).granularities)]
every = pytest.mark.parametrize(("name", "granularity"), CASES, ids=[f"{n}-{g}" for n, g in CASES])

SCORED = nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d


@pytest.fixture(autouse=True)
def few_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What learns its masks learns for a moment only, but where it must come to something."""
    if "learned" not in request.node.name:
        monkeypatch.setattr(gates, "_STEPS", 2)


class Mixed(nn.Module):
    """A bit of all: plain, grouped, strided and dilated convolutions, a norm, linear layers. Input [n, 4, 6, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, 3, padding=1, dtype=torch.float32)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2)
        self.dilated = nn.Conv2d(4, 5, (1, 3), padding="same", dilation=2, bias=False)
        self.hidden = nn.Linear(5 * 9, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu_(self.norm(self.first(x)))
        x = functional.relu_(self.dilated(functional.relu_(self.grouped(x))))
        return self.head(functional.relu_(self.hidden(x.flatten(1))))


def mixed() -> nn.Module:
    model = seeded(Mixed)
    generator = torch.Generator().manual_seed(3)
    for values in (model.norm.running_mean, model.norm.running_var, model.norm.weight.data, model.norm.bias.data):
        values.uniform_(0.5, 1.5, generator=generator)
    return model


def some_data(shape: tuple[int, ...] = (4, 6, 6), classes: int = 3, sizes: tuple[int, ...] = (5, 3)) -> ScoringData:
    drawn = torch.Generator().manual_seed(7)
    batches = tuple(
        (torch.randn(n, *shape, generator=drawn), torch.randint(0, classes, (n,), generator=drawn)) for n in sizes
    )
    return ScoringData(batches=batches, loss=functional.cross_entropy)


def task_of(model: nn.Module, granularity: Granularity, **changes: Any) -> ScoringTask:
    layers = tuple(n for n, m in model.named_modules() if isinstance(m, SCORED))
    return ScoringTask(**{"model": model, "layers": layers, "granularity": granularity, "data": some_data(), **changes})


def score(name: str, model: nn.Module, granularity: Granularity, **changes: Any) -> Mapping[str, Tensor]:
    return CRITERIA.get(name).score(task_of(model, granularity, **changes))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[n], other[n]) for n in one)


@every
def test_scores_have_the_shape_of_what_is_scored_without_a_gradient(name: str, granularity: Granularity) -> None:
    model = mixed()
    found = score(name, model, granularity)
    assert found
    for layer, scores in found.items():
        module = model.get_submodule(layer)
        weight = module.weight
        channels = module.in_channels if isinstance(module, nn.Conv2d) else weight.shape[-1]
        assert (
            scores.shape
            == {
                Granularity.WEIGHT: weight.shape,
                Granularity.OUT_CHANNEL: (len(weight),),
                Granularity.IN_CHANNEL: (channels,),
            }[granularity]
        )
        assert scores.dtype == torch.float32
        assert not scores.requires_grad
        assert bool(scores.isfinite().all())


@every
def test_order_of_the_layers_does_not_matter(name: str, granularity: Granularity) -> None:
    model = mixed()
    task = task_of(model, granularity)
    backwards = task_of(model, granularity, layers=task.layers[::-1])
    found, other = (CRITERIA.get(name).score(t) for t in (task, backwards))
    assert set(found) == set(other)
    for layer in found:
        torch.testing.assert_close(found[layer], other[layer], rtol=1e-4, atol=1e-7)


@every
def test_same_seed_same_scores_and_the_model_is_left_alone(name: str, granularity: Granularity) -> None:
    model = mixed().train()
    model.norm.eval()
    model.head.weight.requires_grad_(requires_grad=False)
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    generator = torch.random.get_rng_state()
    assert same(score(name, model, granularity, seed=3), score(name, model, granularity, seed=3))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.head.parameters()] == [False, True]
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(generator, torch.random.get_rng_state())


SCALED_AS: dict[tuple[str, Granularity], float] = {
    ("l1", Granularity.WEIGHT): 4,
    ("l1", Granularity.OUT_CHANNEL): 4,
    ("l2", Granularity.WEIGHT): 16,
    ("l2", Granularity.OUT_CHANNEL): 4,
    ("geometric_median", Granularity.OUT_CHANNEL): 4,
}
"""What happens to a layer's scores when its weights are four times as large and its readers' a quarter."""


@every
def test_only_magnitudes_see_a_scale_that_the_model_does_not(name: str, granularity: Granularity) -> None:
    model = mixed()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.grouped.weight *= 4
        scaled.grouped.bias *= 4
        scaled.dilated.weight /= 4
    inputs = some_data().batches[0][0]
    torch.testing.assert_close(model(inputs), scaled(inputs))
    # Without steps: one of movement's would take another one for a weight of another size.
    data = ScoringData(batches=some_data().batches[:1], loss=functional.cross_entropy)
    found, other = (score(name, m, granularity, data=data) for m in (model, scaled))
    judged = sorted(set(found) & {"grouped", "dilated"})
    # It scores norms alone: see below.
    assert judged or name == "batchnorm_scale"
    for layer in judged:
        factor = SCALED_AS.get((name, granularity), 1.0)
        reads = (name, layer) == ("activation_mean", "dilated")
        factor = 4.0 if reads else factor if layer == "grouped" else 1 / factor
        torch.testing.assert_close(other[layer], factor * found[layer], rtol=1e-3, atol=1e-9)


def test_the_scale_of_a_norm_is_that_of_its_weight_whatever_its_sign() -> None:
    model = mixed()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.norm.weight *= -4
    found, other = (score("batchnorm_scale", m, Granularity.OUT_CHANNEL)["norm"] for m in (model, scaled))
    torch.testing.assert_close(other, 4 * found)


@pytest.mark.parametrize("name", [n for n in CRITERIA.names() if CRITERIA.get(n).needs_data])
def test_missing_data_are_told(name: str) -> None:
    criterion = CRITERIA.get(name)
    with pytest.raises(InputError, match=r"expected ScoringTask\.data"):
        criterion.score(task_of(mixed(), next(iter(criterion.granularities)), data=None))


def test_seed_changes_what_is_drawn_only() -> None:
    changed = {n for n, g in CASES if not same(score(n, mixed(), g, seed=1), score(n, mixed(), g, seed=2))}
    # OBC draws the positions that it looks at.
    assert changed == {"random", "hard_concrete", "obc"}


@pytest.mark.parametrize("model", sorted(EXAMPLES))
@every
def test_every_model_can_be_scored(name: str, granularity: Granularity, model: str) -> None:
    net, example = example_of(model)
    data = some_data(tuple(example.shape[1:]), sizes=(4,))
    found = score(name, net, granularity, data=data)
    assert all(bool(scores.isfinite().all()) for scores in found.values())


ATTENDING_OR_RECURRENT = {
    "packed": lambda: structure("packed"),
    "encoder": encoder,
    "recurrent": lambda: structure("recurrent"),
}


def data_like(example: Tensor) -> ScoringData:
    """Six examples, as different as the example's values are."""
    drawn = torch.Generator().manual_seed(4)
    flat = example.flatten()[torch.randint(example.numel(), (6 * example[0].numel(),), generator=drawn)]
    batches = tuple(zip(flat.reshape(6, *example.shape[1:]).split(4), (torch.arange(6) % 3).split(4), strict=True))
    return ScoringData(batches=batches, loss=functional.cross_entropy)


@pytest.mark.parametrize("model", ATTENDING_OR_RECURRENT)
@every
def test_attention_and_recurrent_layers_are_scored_or_left_out(name: str, granularity: Granularity, model: str) -> None:
    net, example = ATTENDING_OR_RECURRENT[model]()
    layers = tuple(n for n, m in net.named_modules() if any(True for _ in m.parameters(recurse=False)))
    data = data_like(example)
    found = score(name, net, granularity, layers=layers, data=data)
    assert all(bool(s.isfinite().all()) and s.dtype == torch.float32 for s in found.values())
    weighted = {n for n in layers if isinstance(net.get_submodule(n), nn.Linear | nn.Conv1d)}
    if granularity is not Granularity.OUT_CHANNEL:
        assert set(found) == weighted
    elif name != "batchnorm_scale":
        others = {
            n for n in layers if isinstance(net.get_submodule(n), nn.MultiheadAttention | nn.RNNBase | nn.RNNCellBase)
        }
        # Taylor has norms as well.
        assert weighted | others <= set(found)
    if granularity is Granularity.WEIGHT:
        masked = find_maskable(net, example).layers
        scores = weight_scores(net, masked, CRITERIA.get(name), data=data)
        assert {n: s.shape for n, s in scores.items()} == {n: net.get_submodule(n).weight.shape for n in masked}
        assert all(bool(s.any()) for s in scores.values())


def linear(*weights: list[list[float]]) -> nn.Module:
    """Linear layers without biases, one after the other, and no activations between them."""
    layers = [nn.Linear(len(w[0]), len(w), bias=False) for w in weights]
    for layer, values in zip(layers, weights, strict=True):
        layer.weight.data = torch.tensor(values)
    return nn.Sequential(*layers).eval()


def summed(outputs: Tensor, labels: Tensor) -> Tensor:
    """A loss whose gradient is the label: the mean over the examples of output times label."""
    return (outputs * labels).sum(dim=1).mean()


def by_hand(name: str, model: nn.Module, granularity: Granularity, *batches: Any, **changes: Any) -> list[Any]:
    """Scores of the first layer, or of what reads it, on batches of (inputs, labels)."""
    tensors = tuple((torch.tensor(x), torch.tensor(y)) for x, y in batches)
    data = ScoringData(batches=tensors, loss=summed, learning_rate=changes.pop("learning_rate", 0.01))
    found = score(name, model, granularity, data=data, **changes)
    return found["0"].tolist()


ROW = [[3.0, -4.0], [0.0, 1.0]]


def test_magnitudes_by_hand() -> None:
    assert by_hand("l1", linear(ROW), Granularity.OUT_CHANNEL) == [7.0, 1.0]
    assert by_hand("l1", linear(ROW), Granularity.WEIGHT) == [[3.0, 4.0], [0.0, 1.0]]
    assert by_hand("l2", linear(ROW), Granularity.OUT_CHANNEL) == [5.0, 1.0]
    assert by_hand("l2", linear(ROW), Granularity.WEIGHT) == [[9.0, 16.0], [0.0, 1.0]]


def test_geometric_median_drops_the_filter_in_the_middle() -> None:
    # On a line at 0, 1, 3 and 10: the sums of distances are 14, 12, 12, 26; the large filter matters most.
    model = linear([[0.0], [1.0], [3.0], [10.0]])
    assert by_hand("geometric_median", model, Granularity.OUT_CHANNEL) == pytest.approx([14.0, 12.0, 12.0, 26.0])


def test_lamp_by_hand() -> None:
    # Squares 1, 4, 9, 16 over what is not smaller: 30, 29, 25, 16.
    found = by_hand("lamp", linear([[1.0, -2.0], [4.0, 3.0]]), Granularity.WEIGHT)
    assert found == [pytest.approx([1 / 30, 4 / 29]), pytest.approx([1.0, 9 / 25])]


def test_scale_of_a_norm_by_hand() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)).eval()
    model[0].weight.data = torch.tensor([0.5, -2.0, 0.0])
    found = score("batchnorm_scale", model, Granularity.OUT_CHANNEL)
    assert {n: s.tolist() for n, s in found.items()} == {"0": [0.5, 2.0, 0.0]}


def test_activations_by_hand() -> None:
    # Channel 0 reads 1, -3, 0, 0 and channel 1 reads 2, 0, 5, 1.
    batches = (([[1.0, 2.0], [-3.0, 0.0]], [[0.0, 0.0]] * 2), ([[0.0, 5.0], [0.0, 1.0]], [[0.0, 0.0]] * 2))
    assert by_hand("activation_mean", linear(ROW), Granularity.IN_CHANNEL, *batches) == [1.0, 2.0]
    assert by_hand("activation_zeros", linear(ROW), Granularity.IN_CHANNEL, *batches) == [0.5, 0.75]


# One example each: the gradient of weight (o, i) is label o times input i.
FIRST = ([[1.0, 2.0]], [[1.0, 0.5]])
SECOND = ([[-1.0, 1.0]], [[1.0, 0.0]])


def test_taylor_by_hand() -> None:
    # Gradient times weight: 3, -8 / 0, 1 in the first batch and -3, -4 / 0, 0 in the second.
    assert by_hand("taylor", linear(ROW), Granularity.WEIGHT, FIRST, SECOND) == [[9.0, 40.0], [0.0, 0.5]]
    assert by_hand("taylor", linear(ROW), Granularity.OUT_CHANNEL, FIRST, SECOND) == [(25 + 49) / 2, 0.5]


def test_taylor_of_a_norm_is_that_of_a_gate_behind_it() -> None:
    # Scale 2, shift 3, a normalised input of 1: gradients 1 and 1, so (2 + 3)^2.
    model = nn.Sequential(nn.BatchNorm1d(1, eps=0.0)).eval()
    model[0].weight.data, model[0].bias.data = torch.tensor([2.0]), torch.tensor([3.0])
    data = ScoringData(batches=((torch.ones(1, 1), torch.ones(1, 1)),), loss=summed)
    found = CRITERIA.get("taylor").score(
        ScoringTask(model=model, layers=("0",), granularity=Granularity.OUT_CHANNEL, data=data)
    )
    assert found["0"].tolist() == [25.0]


def test_snip_by_hand() -> None:
    # The mean gradient over both is 0, 1.5 / 0.25, 0.5; times weight 0, 6 / 0, 0.5.
    found = by_hand("snip", linear(ROW), Granularity.WEIGHT, FIRST, SECOND)
    assert found == [pytest.approx([0.0, 6 / 6.5]), pytest.approx([0.0, 0.5 / 6.5])]
    channels = by_hand("snip", linear(ROW), Granularity.OUT_CHANNEL, FIRST, SECOND)
    assert channels == pytest.approx([6 / 6.5, 0.5 / 6.5])


def test_movement_by_hand() -> None:
    # After a step of 0.5 the weights are 2.5, -5 / -0.25, 0.5; what moved away from zero has a positive score.
    found = by_hand("movement", linear(ROW), Granularity.WEIGHT, FIRST, SECOND, learning_rate=0.5)
    assert found == [[-0.5 * 3 + 0.5 * 2.5, 0.5 * 8 + 0.5 * 5], [0.0, -0.5]]


def test_fisher_by_hand() -> None:
    # Half of weight^2 times the mean of the squared gradients of single examples, which share a batch here.
    together = ([*FIRST[0], *SECOND[0]], [*FIRST[1], *SECOND[1]])
    found = by_hand("fisher", linear(ROW), Granularity.WEIGHT, together)
    assert found == [[9 * (1 + 1) / 4, 16 * (4 + 1) / 4], [0.0, 1 * (1 + 0) / 4]]
    # Gates of the inputs: 1 * 3 and 2 * (-4 + 0.5) in the first example, -1 * 3 and 1 * -4 in the second.
    closed = by_hand("fisher", linear(ROW), Granularity.IN_CHANNEL, together)
    assert closed == [(9 + 9) / 4, (49 + 16) / 4]
    assert by_hand("fisher", linear(ROW), Granularity.IN_CHANNEL, FIRST, SECOND) == closed


def test_head_importance_by_hand() -> None:
    together = ([*FIRST[0], *SECOND[0]], [*FIRST[1], *SECOND[1]])
    assert by_hand("head_importance", linear(ROW), Granularity.IN_CHANNEL, together) == [3.0, (7 + 4) / 2]
    # Both inputs as one head: |3 - 7| and |-3 - 4|.
    heads = by_hand("head_importance", linear(ROW), Granularity.IN_CHANNEL, together, heads=(("0", 1),))
    assert heads == [5.5, 5.5]


def test_obc_by_hand() -> None:
    # The second moment of (1, 1), (1, -1), (2, 0) is diag(2, 2/3), damped by a hundredth of 4/3.
    model = linear([[3.0, -4.0]])
    inputs = [[1.0, 1.0], [1.0, -1.0], [2.0, 0.0]]
    found = by_hand("obc", model, Granularity.WEIGHT, (inputs, [[0.0]] * 3))
    power = 9 * 2 + 16 * 2 / 3
    damping = 0.01 * 4 / 3
    assert found[0] == pytest.approx([9 * (2 + damping) / power, 16 * (2 / 3 + damping) / power], rel=1e-5)


def test_obc_of_a_channel_is_what_the_best_refit_without_it_still_loses() -> None:
    torch.manual_seed(0)
    inputs, weight = torch.randn(200, 4) + 0.7 * torch.randn(200, 1), torch.randn(8, 4)
    model = linear(weight.tolist())
    data = ScoringData(batches=((inputs, torch.zeros(200, 8)),), loss=summed)
    found = score("obc", model, Granularity.IN_CHANNEL, data=data)["0"]
    wanted = inputs @ weight.T
    for channel in range(4):
        rest = inputs[:, [i for i in range(4) if i != channel]]
        left = wanted - rest @ torch.linalg.lstsq(rest, wanted).solution
        assert float(found[channel]) == pytest.approx(float(left.square().sum() / wanted.square().sum()), rel=0.03)


def test_learned_gates_close_where_nothing_is_lost() -> None:
    # The label is the first input; the second is noise that a large weight lets through.
    torch.manual_seed(0)
    inputs = torch.randn(64, 2)
    model = linear([[1.0, 1.0]])
    data = ScoringData(batches=((inputs, inputs[:, :1]),), loss=lambda y, t: 10 * functional.mse_loss(y, t))
    for granularity in (Granularity.WEIGHT, Granularity.IN_CHANNEL):
        needed, noise = score("hard_concrete", model, granularity, data=data)["0"].flatten().tolist()
        assert needed > 0.9
        assert noise < 0.2


@given(name=st.sampled_from(["mixed", *sorted(EXAMPLES)]))
@settings(max_examples=8, deadline=None)
def test_squared_gradients_are_those_of_single_examples(name: str) -> None:
    model, shape = (mixed(), (4, 6, 6)) if name == "mixed" else (example_of(name)[0], EXAMPLES[name][1][1:])
    data = some_data(shape)
    found = score("fisher", model, Granularity.WEIGHT, data=data)
    expected = {layer: torch.zeros_like(s) for layer, s in found.items()}
    for inputs, labels in data.batches:
        for i in range(len(inputs)):
            weights = [model.get_submodule(layer).weight for layer in found]
            slopes = torch.autograd.grad(data.loss(model(inputs[i : i + 1]), labels[i : i + 1]), weights)
            for layer, weight, slope in zip(found, weights, slopes, strict=True):
                expected[layer] += (weight.detach() * slope).square() / 16
    for layer, scores in found.items():
        torch.testing.assert_close(scores, expected[layer], rtol=1e-3, atol=1e-10)


def test_transposed_convolutions_are_scored_by_their_outputs() -> None:
    model = seeded(lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6 * 64, 3)))
    for name, granularity in CASES:
        if name == "batchnorm_scale":
            continue
        found = score(name, model, granularity)["0"]
        shapes = {Granularity.WEIGHT: (6, 2, 3, 3), Granularity.OUT_CHANNEL: (6,), Granularity.IN_CHANNEL: (4,)}
        assert found.shape == shapes[granularity], name
    # The gradient of one example is that of a batch of one.
    data = some_data(sizes=(1,))
    taylor, fisher = (score(n, model, Granularity.WEIGHT, data=data)["0"] for n in ("taylor", "fisher"))
    torch.testing.assert_close(fisher, taylor / 2)


def test_unknown_criterion_is_told_with_the_closest() -> None:
    with pytest.raises(InputError, match="did you mean 'random'"):
        CRITERIA.get("randon")
