"""Small networks whose channels hang together in uncommon ways: heads, gates, shuffles, recurrence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from models import seeded
from torch import Tensor, nn
from torch.nn import functional


class EncoderClassifier(nn.Module):
    """Token numbers, an embedding, torch's encoder, a classifier. Input [n, 6], integers under 20."""

    def __init__(self, *, batch_first: bool = True, norm_first: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.position = nn.Parameter(torch.randn(6, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=batch_first, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first = batch_first
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) + self.position
        if not self.batch_first:
            return self.head(self.encoder(x.transpose(0, 1)).mean(dim=0))
        return self.head(self.encoder(x).mean(dim=1))


class RootMeanSquareNorm(nn.Module):
    """As Llama has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class GroupedQueryAttention(nn.Module):
    """Four query heads over two of keys and values, with rotary positions and norms of queries and keys."""

    def __init__(self, width: int, head_dim: int = 4) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = 4, 2, head_dim
        self.q_proj = nn.Linear(width, 4 * head_dim, bias=False)
        self.k_proj = nn.Linear(width, 2 * head_dim, bias=False)
        self.v_proj = nn.Linear(width, 2 * head_dim, bias=False)
        self.o_proj = nn.Linear(4 * head_dim, width, bias=False)
        self.q_norm, self.k_norm = RootMeanSquareNorm(head_dim), RootMeanSquareNorm(head_dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, tokens, self.num_heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, tokens, self.num_kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(batch, tokens, self.num_kv_heads, self.head_dim).transpose(1, 2)
        q, k = self._turned(q), self._turned(k)
        k, v = (t.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1) for t in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, tokens, self.num_heads * self.head_dim))

    def _turned(self, x: Tensor) -> Tensor:
        speeds = 10.0 ** -torch.arange(0, self.head_dim, 2)
        angles = torch.outer(torch.arange(x.shape[2]), speeds).repeat(1, 2)
        first, second = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()


class GatedDecoder(nn.Module):
    """A Llama-like block over features: grouped-query attention and a gated feed-forward. Input [n, 5, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 12)
        self.norm1, self.norm2 = RootMeanSquareNorm(12), nn.RMSNorm(12)
        self.attention = GroupedQueryAttention(12)
        self.gate_up = nn.Linear(12, 2 * 10)
        self.down = nn.Linear(10, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(self.norm1(x))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return self.head((x + self.down(functional.silu(gate) * up)).mean(dim=1))


class PackedAttention(nn.Module):
    """Query, key and value from one layer, as vision transformers have it. Input [n, 5, 12]."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 3
        self.qkv = nn.Linear(12, 36)
        self.proj = nn.Linear(12, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        shares = (q @ k.transpose(-2, -1) * 0.5).softmax(dim=-1)
        return self.head(self.proj((shares @ v).transpose(1, 2).flatten(2)).mean(dim=1))


class ShuffleUnit(nn.Module):
    """Half of the channels go through a branch, then both halves are shuffled (ShuffleNet V2). Input [n, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branch = nn.Sequential(
            nn.Conv2d(4, 4, 1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, groups=4),
            nn.Conv2d(4, 4, 1),
        )
        self.last = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.stem(x).chunk(2, dim=1)
        x = torch.cat((first, self.branch(second)), dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(functional.relu(self.last(x)).mean(dim=(2, 3)))


class NamedSplit(nn.Module):
    """Unequal parts, whose sizes are attributes. Input [n, 3, 6, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [6, 4]
        self.slow = 5
        self.conv = nn.Conv2d(3, 10, 3, padding=1)
        self.left = nn.Conv2d(6, 5, 1)
        self.right = nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(5 + 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(functional.relu(self.conv(x)), self.sizes, dim=1)
        left, right = self.left(left), self.right(right)
        right = right[:, self.slow :]
        return self.head(torch.cat((left, right), dim=1).mean(dim=(2, 3)))


class Upscaler(nn.Module):
    """Pixel shuffle, then a transposed convolution of two groups. Input [n, 3, 6, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.second = nn.Conv2d(4, 8, 3, padding=1)
        self.wider = nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2)
        self.last = nn.Conv2d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.second(self.shuffle(self.first(x))))
        return self.last(functional.relu(self.wider(x)))


class ManyNorms(nn.Module):
    """Group norm of four groups, instance norm, a learned slope, a multiplier of channels. Input [n, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.slope = nn.PReLU(16)
        self.second = nn.Conv2d(16, 6, 1)
        self.instance = nn.InstanceNorm2d(6, affine=True)
        self.multiplied = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.instance(self.second(self.slope(self.norm(self.first(x)))))
        return self.head(functional.relu(self.multiplied(x)).amax(dim=(2, 3)))


class AggregatedBlock(nn.Module):
    """A bottleneck with a convolution of four groups (ResNeXt). Input [n, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.narrow = nn.Conv2d(8, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.wide = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = x + self.wide(functional.relu(self.grouped(functional.relu(self.narrow(x)))))
        return self.head(x.mean(dim=(2, 3)))


class Recurrent(nn.Module):
    """A convolution over time, two layers of LSTM both ways, a GRU, its last step. Input [n, 4, 9]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, padding=1)
        self.lstm = nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(10, 7, batch_first=True)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(functional.relu(self.conv(x)).transpose(1, 2))
        _, last = self.gru(steps)
        return self.head(last[-1])


class SteppedCell(nn.Module):
    """A cell whose state is kept by hand. Input [n, 5, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.cell = nn.GRUCell(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state: Tensor | None = None
        for step in self.embed(x).unbind(1):
            state = self.cell(step, state)
        return self.head(state)


STRUCTURES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "decoder": (GatedDecoder, (2, 5, 6)),
    "packed": (PackedAttention, (1, 5, 12)),
    "shuffle": (ShuffleUnit, (1, 3, 8, 8)),
    "split": (NamedSplit, (1, 3, 6, 6)),
    "upscaler": (Upscaler, (1, 3, 6, 6)),
    "norms": (ManyNorms, (1, 3, 8, 8)),
    "aggregated": (AggregatedBlock, (2, 3, 8, 8)),
    "recurrent": (Recurrent, (1, 4, 9)),
    "cell": (SteppedCell, (1, 5, 4)),
}


def structure(name: str) -> tuple[nn.Module, Tensor]:
    """A seeded model and an input for it."""
    factory, shape = STRUCTURES[name]
    return seeded(factory), torch.randn(shape, generator=torch.Generator().manual_seed(1))


def encoder(**options: bool) -> tuple[nn.Module, Tensor]:
    """A seeded classifier of token numbers, and a sentence."""
    return seeded(lambda: EncoderClassifier(**options)), torch.tensor([[1, 5, 2, 9, 0, 3]])
