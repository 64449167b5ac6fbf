"""The nets of `bench_cost_model.py`, and their configurations: random widths, the same for the same seed."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.graph.groups import Groups
from edgeprune.steps.fresh_weights import draw_norms_

if TYPE_CHECKING:
    from torch import Tensor, nn

_TARGET = Path(__file__).parents[1] / "targets" / "cifar10-resnet20" / "model.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A net of the bench: its factory, its input's shape, and the step between widths."""

    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    step: int


def resnet20() -> nn.Module:
    """The target's own definition."""
    spec = importlib.util.spec_from_file_location("cifar10_resnet20", _TARGET)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{_TARGET}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: nn.Module = module.build_model()
    return made


def separable() -> nn.Module:
    """Depthwise-separable blocks as in MobileNet, small."""
    from torch import nn

    def norm(layer: nn.Module, width: int) -> list[nn.Module]:
        return [layer, nn.BatchNorm2d(width), nn.ReLU6()]

    layers = norm(nn.Conv2d(3, 16, 3, 2, 1, bias=False), 16)
    width = 16
    for after, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        layers += norm(nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), width)
        layers += norm(nn.Conv2d(width, after, 1, bias=False), after)
        width = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def encoder() -> nn.Module:
    """Four transformer layers of width 128 over 64 tokens; the feed-forward widths are the groups."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Layer(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.project = nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.project(self.attend(self.norm1(x)))
            made: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
            return made

        def attend(self, x: Tensor) -> Tensor:
            batch, tokens, _ = x.shape
            q, k, v = (
                layer(x).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            scores = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
            # As wide as the heads that are left, not as the input.
            joined: Tensor = (scores @ v).transpose(1, 2).reshape(batch, tokens, -1)
            return joined

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(16, 128)
            self.layers = nn.Sequential(*(Layer(128, 4) for _ in range(4)))
            self.head = nn.Linear(128, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layers(self.embed(x))
            logits: Tensor = self.head(x[:, 0])
            return logits

    return Encoder()


NETS: Mapping[str, Net] = {
    "resnet20": Net(make=resnet20, input_shape=(1, 3, 32, 32), step=8),
    "separable": Net(make=separable, input_shape=(1, 3, 64, 64), step=8),
    "encoder": Net(make=encoder, input_shape=(1, 64, 16), step=32),
}


def make(net: Net) -> nn.Module:
    """The net at full widths, with the same weights every time."""
    import torch

    torch.manual_seed(0)
    model = net.make().eval()
    draw_norms_(model)
    return model


def with_ends(groups: Groups, net: Net, count: int, seed: int) -> tuple[Mapping[str, int], ...]:
    """The full widths, the narrowest, and so many others by lot, each width a multiple of the net's step."""
    generator = random.Random(seed)  # noqa: S311 - nothing secret
    ends = ({g.name: g.width for g in groups.groups}, {g.name: net.step for g in groups.groups})
    found: dict[str, Mapping[str, int]] = {key_of(widths): widths for widths in ends}
    while len(found) < 2 + count:
        widths = {g.name: generator.choice(range(net.step, g.width + 1, net.step)) for g in groups.groups}
        found.setdefault(key_of(widths), widths)
    return tuple(found.values())


def key_of(widths: Mapping[str, int]) -> str:
    """The widths as text."""
    return "-".join(map(str, widths.values()))
