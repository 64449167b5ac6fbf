"""What zeros buy on a device: whether sparse kernels run, and how much faster."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LEAST_SPARSE_GAIN = 1.05
"""Zeros must make a model this much faster than dense; less is within what the same file shows twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerZeros:
    """Zeros among the weights of one operator that the runtime's rule counts."""

    layer: str
    weights: int
    zeros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsePath:
    """Whether a runtime would run one compiled file by its sparse kernels.

    Attributes:
        reasons: why it would not, each enough by itself; empty where it would.
        layers: whose weights count.
        wrong: why the file would give wrong numbers there; such a file must not be shipped. Empty where it would not.
        source: where the rule is written.
        missing_zeros: how many more of their weights would have to be zero.
    """

    reasons: tuple[str, ...]
    wrong: str = ""
    layers: tuple[LayerZeros, ...] = ()
    source: str = ""
    missing_zeros: int = 0

    @property
    def taken(self) -> bool:
        """By the rule; only a measurement shows that it is so."""
        return not self.reasons and not self.wrong

    @property
    def share(self) -> float:
        """Of zeros among the weights that count; 0 where none do."""
        total = sum(x.weights for x in self.layers)
        return sum(x.zeros for x in self.layers) / total if total else 0.0


class GainStatus(StrEnum):
    """What a probe found out about one pattern at one share of zeros."""

    GAIN = "gain"
    NONE = "none"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsityGain:
    """What one pattern of zeros bought.

    Attributes:
        pattern: `unstructured`, `block4x1` (4 output channels by 1 input) or `2:4`.
        share: of zeros, in (0, 1).
        ratio: dense p50 over sparse p50, the median over the rounds; None where it was not measured.
        lowest, highest: over the rounds.
        reason: in words, with the figures.
    """

    pattern: str
    share: float
    status: GainStatus
    reason: str
    ratio: float | None = None
    lowest: float | None = None
    highest: float | None = None

    @property
    def seems_faster(self) -> bool:
        """In most rounds, whatever the noise."""
        return self.ratio is not None and self.ratio > LEAST_SPARSE_GAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsityProbe:
    """All that was measured of one runtime with micro-models of one kind.

    Attributes:
        fingerprint: of the device, as `DeviceFacts.fingerprint`.
        cpus: as for `Rung`.
        kind: of the micro-models, such as `pointwise-w128-e28`.
        compilers: (distribution, version) of what made the files.
        dense_p50_ms: the median over the rounds.
        noise: largest ratio of two looks at the same dense file in one round; a gain must be above it.
        rounds: of looks, the dense file first and last in each.
        disturbed: why too few rounds were quiet, so that gains may be hidden in noise; empty where enough were.
    """

    device: str
    fingerprint: str
    runtime: str
    runtime_version: str
    threads: int
    kind: str
    compilers: tuple[tuple[str, str], ...]
    dense_p50_ms: float
    noise: float
    rounds: int
    gains: tuple[SparsityGain, ...]
    taken_unix_s: float
    disturbed: str = ""
    cpus: tuple[int, ...] = ()

    def of(self, pattern: str) -> tuple[SparsityGain, ...]:
        """A pattern's gains, by ascending share."""
        return tuple(sorted((g for g in self.gains if g.pattern == pattern), key=lambda g: g.share))
