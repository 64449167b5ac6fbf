"""The sparsity probe: do zeros buy time on this device, in which pattern, and from which share on?

Micro-models of the model's own kind, dense and with zeros, are timed in turn, in the storage that the runtime's sparse
kernels need. The strongest share comes first: where it buys nothing, fewer zeros are not measured (that a kernel should
gain from fewer zeros and not from more was never seen).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeprune.records.sparsity import LEAST_SPARSE_GAIN, GainStatus, SparsityGain
from edgeprune.units import format_ms
from edgeprune.zero_patterns import parse_pattern

if TYPE_CHECKING:
    from torch import Tensor, nn

SHARES: Final = (0.5, 0.7, 0.8, 0.9, 0.95)
PATTERNS: Final = ("unstructured", "block4x1", "2:4")
ROUNDS: Final = 5
DENSE: Final = "dense"

_EXTENT: Final = 28
_ROWS: Final = 16
_CLASSES: Final = 64
_IMAGE_CHANNELS: Final = 3
_STEP: Final = 32
_WIDTHS: Final[Mapping[str, tuple[int, int]]] = {"linear": (64, 1024)}
_CONVOLUTION_WIDTHS: Final = (32, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroKind:
    """What a micro-model is made of: `pointwise` (depthwise-separable blocks), `conv` (3x3), `conv1d` or `linear`."""

    kind: str
    width: int

    @property
    def name(self) -> str:
        """Such as `pointwise-w128`."""
        return f"{self.kind}-w{self.width}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """With the batch of 1."""
        match self.kind:
            case "linear":
                return (1, _ROWS, self.width)
            case "conv1d":
                return (1, _IMAGE_CHANNELS, _EXTENT * _EXTENT)
        return (1, _IMAGE_CHANNELS, 2 * _EXTENT, 2 * _EXTENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A pattern of zeros at a share."""

    pattern: str
    share: float

    @property
    def name(self) -> str:
        """Fit for a folder: `unstructured-90`, `nm2of4-50`."""
        pattern = f"nm{self.pattern.replace(':', 'of')}" if ":" in self.pattern else self.pattern
        return f"{pattern}-{100 * self.share:g}"


def kind_of(model: nn.Module) -> MicroKind | None:
    """The kind that holds most of a model's weights, at their typical width; None for a model without such layers.

    Linear layers count only where there is no convolution: behind one they are the classifier.
    """
    from torch import nn

    found: dict[str, list[tuple[int, float]]] = {}
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            kind, ends = "linear", layer.in_features * layer.out_features
        elif isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == 1:
            is_image = isinstance(layer, nn.Conv2d)
            kind = "conv1d" if not is_image else "pointwise" if layer.kernel_size == (1, 1) else "conv"
            ends = layer.in_channels * layer.out_channels
        else:
            continue
        found.setdefault(kind, []).append((layer.weight.numel(), ends**0.5))
    if set(found) - {"linear"}:
        found.pop("linear", None)
    if not found:
        return None
    kind, layers = max(found.items(), key=lambda item: sum(weights for weights, _ in item[1]))
    typical = sum(weights * width for weights, width in layers) / sum(weights for weights, _ in layers)
    least, most = _WIDTHS.get(kind, _CONVOLUTION_WIDTHS)
    return MicroKind(kind=kind, width=min(max(_STEP * round(typical / _STEP), least), most))


def micro_model(kind: MicroKind, variant: Variant | None) -> nn.Module:
    """A model of that kind, the same at every call, with zeros in the variant's pattern; None for dense.

    Ungrouped layers have the zeros, but for one that reads the image. The convolutional kinds begin with a 3x3 stride-2
    convolution of 3 channels and end in a spatial mean and a classifier: what sparse kernels ask for (XNNPACK).
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(*_layers(kind)).eval()
    if variant is not None:
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d) and _takes_zeros(layer):
                layer.weight.data *= kept_weights(layer.weight.data, variant)
    return model


def can_hold(kind: MicroKind, pattern: str) -> bool:
    """Whether all layers of that kind's micro-model that have zeros can have them in a pattern."""
    import torch

    layers = torch.nn.Sequential(*_layers(kind)).modules()
    kinds = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d
    weights = [layer.weight for layer in layers if isinstance(layer, kinds) and _takes_zeros(layer)]
    return all(parse_pattern(pattern).fits(len(w), w[0].numel()) for w in weights)


def _takes_zeros(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> bool:
    from torch import nn

    return isinstance(layer, nn.Linear) or (layer.groups == 1 and layer.in_channels > _IMAGE_CHANNELS)


def _layers(kind: MicroKind) -> Iterable[nn.Module]:
    from torch import nn

    width = kind.width
    inner: list[nn.Module]
    if kind.kind == "linear":
        return [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.ReLU())]
    if kind.kind == "conv1d":
        inner = [layer for _ in range(3) for layer in (nn.Conv1d(width, width, 3, padding=1), nn.ReLU())]
        stem: list[nn.Module] = [nn.Conv1d(_IMAGE_CHANNELS, width, 3, stride=2, padding=1), nn.ReLU()]
        return [*stem, *inner, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, _CLASSES)]
    if kind.kind == "pointwise":
        inner = [layer for _ in range(3) for layer in _separable(width)]
    else:
        inner = [layer for _ in range(3) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
    stem = [nn.Conv2d(_IMAGE_CHANNELS, width, 3, stride=2, padding=1), nn.ReLU()]
    return [*stem, *inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, _CLASSES)]


def _separable(width: int) -> list[nn.Module]:
    from torch import nn

    depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
    return [depthwise, nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU()]


def kept_weights(weight: Tensor, variant: Variant) -> Tensor:
    """1 where a weight stays and 0 where it goes; the largest magnitudes stay.

    Args:
        weight: [out_channels, in_channels, *kernel].
        variant: N:M counts along the inputs, block4x1 takes four output channels at a time.
    """
    from edgeprune.zero_masks import block_sums, highest, n_of_m, of_blocks

    pattern, scores = parse_pattern(variant.pattern), weight.abs()
    if pattern.n_m is not None:
        kept = n_of_m(scores, *pattern.n_m)
    elif pattern.block is not None:
        blocks = highest(block_sums(scores, pattern.block).flatten(), variant.share)
        kept = of_blocks(blocks, weight.shape, pattern.block)
    else:
        kept = highest(scores.flatten(), variant.share).reshape(weight.shape)
    return kept.to(weight.dtype)


def variants_of(patterns: Sequence[str], shares: Sequence[float] = SHARES) -> tuple[Variant, ...]:
    """Every share of every pattern; N:M has one."""
    found = []
    for pattern in patterns:
        n_m = parse_pattern(pattern).n_m
        if n_m is not None:
            found.append(Variant(pattern=pattern, share=1 - n_m[0] / n_m[1]))
        else:
            found += [Variant(pattern=pattern, share=share) for share in shares]
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """What `probe_gains` found; the fields are those of `records.sparsity.SparsityProbe`."""

    dense_p50_ms: float
    noise: float
    gains: tuple[SparsityGain, ...]


def probe_gains(
    variants: Sequence[Variant],
    look: Callable[[Sequence[Variant | None]], Sequence[Sequence[float]]],
    *,
    together: int = len(PATTERNS) * len(SHARES),
    exhaustive: bool = False,
) -> Gains:
    """Time variants in turn with the dense model, the strongest share of each pattern first.

    Args:
        variants: to measure.
        look: times files (None is the dense one) in turn and returns a round after the other, in each the p50 of every
            file in milliseconds. The dense file comes first and last.
        together: variants that are timed in turn with one another at most; the others have dense files of their own.
        exhaustive: measure the weaker shares too where the strongest gained nothing.
    """
    strongest = {
        v.pattern: max((w for w in variants if w.pattern == v.pattern), key=lambda w: w.share) for v in variants
    }
    taken = _Taken(look, together)
    found = taken.gains(list(variants) if exhaustive else list(strongest.values()))
    found |= taken.gains([v for v in variants if v not in found and found[strongest[v.pattern]].seems_faster])
    for variant in variants:
        if variant not in found:
            found[variant] = SparsityGain(
                pattern=variant.pattern,
                share=variant.share,
                status=GainStatus.NOT_MEASURED,
                reason=f"{strongest[variant.pattern].share:.0%} zeros gained nothing",
            )
    return Gains(dense_p50_ms=taken.dense_p50_ms, noise=taken.noise, gains=tuple(found[v] for v in variants))


class _Taken:
    """Looks of several rounds: at the dense file before and after, and at each variant between."""

    def __init__(self, look: Callable[[Sequence[Variant | None]], Sequence[Sequence[float]]], together: int) -> None:
        self._look = look
        self._together = together
        self._dense: list[tuple[float, float]] = []

    @property
    def dense_p50_ms(self) -> float:
        """The median over all rounds so far."""
        return statistics.median(ms for pair in self._dense for ms in pair)

    @property
    def noise(self) -> float:
        """Largest ratio of two looks at the dense file in one round so far."""
        return _noise(self._dense)

    def gains(self, variants: Sequence[Variant]) -> dict[Variant, SparsityGain]:
        """What each bought, against the dense looks of its own rounds."""
        found = {}
        for first in range(0, len(variants), self._together):
            part = variants[first : first + self._together]
            rounds = self._look([None, *part, None])
            dense = [(looks[0], looks[-1]) for looks in rounds]
            self._dense += dense
            for number, variant in enumerate(part, start=1):
                found[variant] = _gain(variant, dense, [looks[number] for looks in rounds])
        return found


def _noise(dense: Sequence[tuple[float, float]]) -> float:
    return max(max(pair) / min(pair) for pair in dense)


def _gain(variant: Variant, dense: Sequence[tuple[float, float]], sparse: Sequence[float]) -> SparsityGain:
    """A gain is one in every round, above what two looks at the dense file differ by."""
    ratios = [statistics.mean(pair) / ms for pair, ms in zip(dense, sparse, strict=True)]
    needed = max(LEAST_SPARSE_GAIN, _noise(dense))
    gained = min(ratios) > needed
    ratio, dense_ms = statistics.median(ratios), statistics.median(ms for pair in dense for ms in pair)
    return SparsityGain(
        pattern=variant.pattern,
        share=variant.share,
        status=GainStatus.GAIN if gained else GainStatus.NONE,
        reason=(
            f"{variant.share:.0%} {variant.pattern} zeros: {ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f} in "
            f"{len(ratios)} rounds; {format_ms(dense_ms)} dense, {format_ms(statistics.median(sparse))} with zeros), "
            f"{'above' if gained else 'not above'} {needed:.2f}x in every round"
        ),
        ratio=ratio,
        lowest=min(ratios),
        highest=max(ratios),
    )
