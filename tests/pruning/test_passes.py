"""What is told of single examples is that of single examples, wherever a layer has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from models import seeded
from structures import encoder
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from edgeprune.data.splits import VOID
from edgeprune.graph.slicing import output_first
from edgeprune.protocols import Granularity, ScoringData, ScoringTask
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.passes import input_contributions
from edgeprune.recovery.losses import counted_labels, resolve_loss


class FlatTokens(nn.Module):
    """Examples and tokens in one axis, in the middle of the model. Input [n, 5, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.wide, self.head = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = functional.relu(self.wide(functional.gelu(self.embed(x)).reshape(-1, 8)))
        return self.head(tokens.reshape(len(x), -1, 12).mean(dim=1))


class Windows(nn.Module):
    """Four windows an example, each with attention and a convolution of its own. Input [n, 4, 6, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.local = nn.Conv2d(8, 6, 3, padding=1, groups=2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).reshape(-1, 8, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, 8)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = functional.relu(self.local(x.transpose(1, 2).reshape(-1, 8, 3, 3)))
        return self.head(x.reshape(-1, 4, *x.shape[1:]).mean(dim=(1, 3, 4)))


class Constant(nn.Module):
    """One layer reads the same for all examples, one is called twice, one never. Input [n, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("position", torch.randn(1, 6))
        self.place, self.twice, self.unused, self.head = (nn.Linear(6, n) for n in (6, 6, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.twice(functional.gelu(self.twice(x))) + self.place(self.position))


class Scattered(nn.Module):
    """Windows in an order of their own: those of an example lie apart, or together from the last to the first.

    Input [n, 2, 12].
    """

    def __init__(self, *, inner: bool) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(4, 3)
        circular = nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular")
        self.first = nn.ConvTranspose1d(2, 4, 3, 2, groups=2) if inner else circular

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unflatten(2, (3, 4)).movedim(2, 0) if self.inner else x.unflatten(2, (3, 4)).movedim(2, 1).flip(1)
        made = self.first(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]).sum(dim=0 if self.inner else 1)
        return self.head(functional.relu(made).mean(dim=2))


class Pixels(nn.Module):
    """Classes of each pixel, and one layer that reads the same for all examples. Input [n, 2, 4, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("position", torch.randn(1, 4))
        self.conv, self.place, self.head = nn.Conv2d(2, 6, 3, padding=1), nn.Linear(4, 6), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.gelu(self.conv(x) + self.place(self.position)[:, :, None, None]))


def masks_with_void(sizes: tuple[int, ...]) -> ScoringData:
    """Seven masks in batches, of which no, some or all pixels count for nothing."""
    masks = torch.arange(7 * 16).reshape(7, 4, 4) % 3
    for mask, rows in zip(masks, (0, 3, 4, 1, 4, 0, 2), strict=True):
        mask[:rows] = VOID
    batches = tuple(zip(drawn(7, 2, 4, 4)().split(sizes), masks.split(sizes), strict=True))
    loss = resolve_loss("cross_entropy")
    return ScoringData(batches=batches, loss=loss, counted=partial(counted_labels, loss))


def tokens() -> Tensor:
    return torch.randint(20, (7, 6), generator=torch.Generator().manual_seed(2))


def drawn(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape, generator=torch.Generator().manual_seed(2))


# Norms first: a gate before what the residual reads as well would count with that.
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "examples first": (lambda: encoder(norm_first=True)[0], tokens),
    "tokens first": (lambda: encoder(batch_first=False, norm_first=True)[0], tokens),
    "flat tokens": (lambda: seeded(FlatTokens), drawn(7, 5, 6)),
    "windows": (lambda: seeded(Windows), drawn(7, 4, 6, 6)),
    "constant": (lambda: seeded(Constant), drawn(7, 6)),
    "windows within": (lambda: seeded(lambda: Scattered(inner=True)), drawn(7, 2, 12)),
    "windows backwards": (lambda: seeded(lambda: Scattered(inner=False)), drawn(7, 2, 12)),
}


def of_single_examples(model: nn.Module, data: ScoringData, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Gradients of each example's loss by the weights, [examples, out_channels, ...]: one pass an example."""
    weights = {name: model.get_submodule(name).weight for name in layers}
    slopes: dict[str, list[Tensor]] = {name: [] for name in layers}
    for inputs, labels in data.batches:
        for i in range(len(inputs)):
            found = torch.autograd.grad(data.loss(model(inputs[i : i + 1]), labels[i : i + 1]), list(weights.values()))
            for name, slope in zip(layers, found, strict=True):
                slopes[name].append(output_first(model.get_submodule(name), slope))
    return {name: torch.stack(each) for name, each in slopes.items()}


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_single_examples(name: str) -> None:
    model, inputs, sizes = CASES[name][0](), CASES[name][1](), (4, 1, 2)
    batches = tuple(zip(inputs.split(sizes), (torch.arange(7) % 3).split(sizes), strict=True))
    data = ScoringData(batches=batches, loss=functional.cross_entropy)
    before = inputs.clone()
    check_fisher(model, data)
    assert torch.equal(inputs, before)
    assert not any(part.requires_grad for part, _ in batches)


def test_losses_of_single_examples_are_over_the_labels_that_count() -> None:
    # A batch's mean is over labels: an example with a few has a smaller say in it, and one without any has none.
    check_fisher(seeded(Pixels), masks_with_void((4, 1, 2)))


def test_batches_add_up_to_the_loss_over_all_labels_that_count() -> None:
    model = seeded(Pixels)
    apart, whole = (
        CRITERIA.get("snip").score(
            ScoringTask(model=model, layers=("conv", "head"), granularity=Granularity.WEIGHT, data=masks_with_void(s))
        )
        for s in ((4, 1, 2), (7,))
    )
    for layer, expected in whole.items():
        torch.testing.assert_close(apart[layer], expected, rtol=1e-3, atol=1e-8)


def check_fisher(model: nn.Module, data: ScoringData) -> None:
    """Scores are those of one example after the other, of all layers that are called."""
    layers = tuple(n for n, m in model.named_modules() if isinstance(m, nn.Linear | _ConvNd) and n != "unused")
    # torch's own attention has the gradients of its output projection, though it never calls it.
    slopes = of_single_examples(model, data, layers)
    for granularity in (Granularity.WEIGHT, Granularity.IN_CHANNEL):
        asked = tuple(n for n, _ in model.named_modules() if n in layers or n == "unused")
        task = ScoringTask(model=model, layers=asked, granularity=granularity, data=data)
        fisher = CRITERIA.get("fisher").score(task)
        assert set(fisher) == set(layers)
        for layer, each in slopes.items():
            module = model.get_submodule(layer)
            change = each * output_first(module, module.weight.detach())
            if granularity is Granularity.IN_CHANNEL:
                change = of_gates(module, change)
            torch.testing.assert_close(fisher[layer], change.square().mean(dim=0) / 2, rtol=1e-3, atol=1e-9)


def of_gates(layer: nn.Module, change: Tensor) -> Tensor:
    """[examples, in_channels]: gradient times weight, summed over all weights that read a channel."""
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    return change.reshape(len(change), groups, -1, change.shape[2], change[0, 0, 0].numel()).sum(dim=(2, 4)).flatten(1)


@pytest.mark.parametrize(
    ("name", "layers", "one_by_one"),
    [
        ("tokens first", ("encoder.layers.0.linear1", "head"), 0),
        ("flat tokens", ("embed", "wide"), 0),
        ("windows", ("local", "attention.out_proj"), 0),
        ("constant", ("place", "twice"), 6),
    ],
)
def test_examples_run_together_wherever_an_axis_is_theirs(name: str, layers: tuple[str, ...], one_by_one: int) -> None:
    # Of the sentences there are as many as tokens: their number alone would not tell.
    model, inputs = CASES[name][0](), CASES[name][1]()[:6]
    runs: list[int] = []
    data = ScoringData(batches=((inputs, torch.arange(6) % 3),), loss=functional.cross_entropy)
    model.register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))
    task = ScoringTask(model=model, layers=layers, granularity=Granularity.IN_CHANNEL, data=data)
    assert {len(each) for each in input_contributions(task).values()} == {6}
    # Two to look at what the layers read, the batch, and each example for a layer that reads the same for all.
    assert runs == [1, 2, 6, *[1] * one_by_one]
