"""Small networks that the tests cut, train and compile. All are made with a fixed seed by their `make_` function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.graph.groups import ChannelGraph
from edgeprune.graph.slicing import remove_channels_


def cut_groups_(model: nn.Module, example: Tensor, removed: Mapping[str, Sequence[int]]) -> None:
    """Take output channels of groups out of a model, in place, by one trace.

    Args:
        model: changed in place.
        example: one input, with its batch dimension.
        removed: by group, which is its root layer: indices into that layer's outputs as they are now.
    """
    graph = ChannelGraph(model, example)
    edits = [e for name, indices in removed.items() if len(indices) for e in graph.edits(name, indices)]
    remove_channels_(model, edits)


def seeded(factory: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build with a seed, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory().eval()


class PlainCnn(nn.Module):
    """Two convolutions and a flatten of 4x4 pixels a channel into a linear layer. Input [n, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 10, 3, stride=2, padding=1)
        self.hidden = nn.Linear(10 * 16, 14)
        self.head = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv1(x))
        x = torch.flatten(functional.relu(self.conv2(x)), 1)
        return self.head(functional.relu(self.hidden(x)))


class TwoConvolutions(nn.Module):
    """What stands beside the shortcut of a residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def convolved(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))


class Block(TwoConvolutions):
    """A residual block; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.convolved(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual net with 1x1 shortcut convolutions. Input [n, 3, 16, 16]."""

    def __init__(self, widths: tuple[int, int] = (8, 16), classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.layer1 = nn.Sequential(Block(widths[0], widths[0], 1), Block(widths[0], widths[0], 1))
        self.layer2 = nn.Sequential(Block(widths[0], widths[1], 2), Block(widths[1], widths[1], 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(functional.relu(self.bn(self.stem(x)))))
        return self.fc(torch.flatten(self.pool(x), 1))


class PadBlock(TwoConvolutions):
    """A residual block whose shortcut pads channels with zeros (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.pad = outputs // 4 if inputs != outputs else 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolved(x)
        if self.pad:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(y + x)


class PadResNet(nn.Module):
    """ResNet-20 with option A shortcuts and a third of its blocks. Input [n, 3, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = PadBlock(16, 16, 1)
        self.layer2 = PadBlock(16, 32, 2)
        self.layer3 = PadBlock(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean(dim=(2, 3)))


class DenseNet(nn.Module):
    """Concatenations of concatenations, and one that is read twice. Input [n, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.grow1 = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
        self.grow2 = nn.Sequential(nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 4, 3, padding=1))
        self.grow3 = nn.Sequential(nn.BatchNorm2d(14), nn.ReLU(), nn.Conv2d(14, 4, 3, padding=1))
        self.transition = nn.Conv2d(18, 8, 1)
        self.head = nn.Linear(8 + 18, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.grow1(x)], dim=1)
        x = torch.cat([x, self.grow2(x)], dim=1)
        x = torch.cat([self.grow3(x), x], dim=1)
        y = self.transition(x)
        return self.head(torch.cat([y.mean(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1))


class SeparableNet(nn.Module):
    """Depthwise-separable convolutions, as in MobileNet. Input [n, 3, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise1 = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise1 = nn.Conv2d(8, 16, 1)
        self.depthwise2 = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16)
        self.pointwise2 = nn.Conv2d(16, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.pointwise1(functional.relu(self.depthwise1(self.stem(x)))))
        x = functional.hardswish(self.pointwise2(functional.relu(self.depthwise2(x))))
        return self.head(x.mean(dim=(2, 3)))


class GroupedNet(nn.Module):
    """A convolution of two groups between plain ones. Input [n, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.last = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.last(functional.relu(self.grouped(functional.relu(self.first(x))))))
        return self.head(x.mean(dim=(2, 3)))


class TransformerBlock(nn.Module):
    """One encoder block over embedded tokens: attention heads by reshape, LayerNorm, MLP. Input [n, 6, 5]."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(5, width)
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 40)
        self.down = nn.Linear(40, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.project(self._attend(self.norm1(x)))
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(dim=1))

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = (
            layer(x).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = torch.softmax(q @ k.transpose(-2, -1) / 2.0, dim=-1)
        return (scores @ v).transpose(1, 2).reshape(batch, tokens, -1)


EXAMPLES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (PlainCnn, (1, 3, 8, 8)),
    "resnet": (ResNet, (1, 3, 16, 16)),
    "pad_resnet": (PadResNet, (1, 3, 16, 16)),
    "densenet": (DenseNet, (1, 3, 8, 8)),
    "separable": (SeparableNet, (1, 3, 16, 16)),
    "grouped": (GroupedNet, (1, 3, 8, 8)),
    "transformer": (TransformerBlock, (1, 6, 5)),
}


def example_of(name: str) -> tuple[nn.Module, Tensor]:
    """A seeded model and a batch of one for it."""
    factory, shape = EXAMPLES[name]
    return seeded(factory), torch.randn(shape, generator=torch.Generator().manual_seed(1))
