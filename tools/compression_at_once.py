"""The parts of `bench_compression.py` that train nothing: what a pretrained net has after a cut at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bench_parts import KeptRows, accuracies
from compression_engine import Engine, Row

from edgeprune.protocols import Granularity
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.maskable import Maskable, find_maskable
from edgeprune.pruning.masks import WeightMasks
from edgeprune.pruning.reconstruction import reconstruct_weights_
from edgeprune.pruning.scoring import weight_scores
from edgeprune.pruning.surgery import structured_prune
from edgeprune.zero_patterns import UNSTRUCTURED, parse_pattern

if TYPE_CHECKING:
    from torch import Tensor, nn

_OF_BLOCKS = 0.5
"""So many go."""
_OF_CHANNELS = frozenset({Granularity.OUT_CHANNEL, Granularity.IN_CHANNEL})


class _Zeros(NamedTuple):
    """Which are asked for; `pattern` is its name, empty for single weights."""

    share: float
    pattern: str = ""


def one_shot(engine: Engine, kept: KeptRows[Row]) -> None:
    """Zeros by each criterion that scores single weights: as they are; norms re-estimated; or weights refitted."""
    for name in (n for n in engine.options.criteria if Granularity.WEIGHT in CRITERIA.get(n).granularities):
        _zero(engine, kept, "one-shot", name, [_Zeros(share) for share in engine.options.one_shot_shares])


def patterns(engine: Engine, kept: KeptRows[Row]) -> None:
    """The same in patterns that hardware may skip: N:M, and half of the blocks of a shape."""
    for criterion in engine.options.refit:
        _zero(engine, kept, "patterns", criterion, [_Zeros(_share_of(name), name) for name in engine.options.patterns])


def _share_of(pattern: str) -> float:
    n_m = parse_pattern(pattern).n_m
    return _OF_BLOCKS if n_m is None else 1 - n_m[0] / n_m[1]


def channels(engine: Engine, kept: KeptRows[Row]) -> None:
    """The same share of every group's channels by each criterion that scores channels; then norms re-estimated."""
    compressor, bench = engine.cutting, engine.bench
    seed = bench.target.spec.seed
    for name in (n for n in engine.options.criteria if CRITERIA.get(n).granularities & _OF_CHANNELS):
        for share in engine.options.channel_shares:
            if ("channels", f"{name}, norms", share, seed) in kept.rows:
                continue
            widths = {g.name: math.ceil((1 - share) * g.width) for g in bench.groups.groups}
            cut, _ = structured_prune(
                compressor.dense_module,
                bench.example,
                widths,
                CRITERIA.get(name),
                seed=seed,
                data=compressor.scorer.data,
            )
            _keep(engine, kept, "channels", name, share, cut)
            compressor.settle_(cut)
            _keep(engine, kept, "channels", f"{name}, norms", share, cut)


def _zero(engine: Engine, kept: KeptRows[Row], part: str, criterion: str, wanted: Sequence[_Zeros]) -> None:
    """Zeros by one criterion, which scores once for all."""
    compressor, bench, refit = engine.cutting, engine.bench, criterion in engine.options.refit
    seed, last = bench.target.spec.seed, "refit" if refit else "norms"
    methods = {zeros: f"{criterion} {zeros.pattern}".rstrip() for zeros in wanted}
    missing = [z for z in wanted if (part, f"{methods[z]}, {last}", z.share, seed) not in kept.rows]
    if not missing:
        return
    dense = compressor.dense_module
    layers = find_maskable(dense, bench.example)
    scores = weight_scores(dense, layers.layers, CRITERIA.get(criterion), seed=seed, data=compressor.scorer.data)
    for zeros in missing:
        model = copy.deepcopy(dense)
        masks = _masks(model, layers, zeros, scores)
        for stage, zeroed in _stages(engine, model, masks, refit=refit):
            _keep(engine, kept, part, f"{methods[zeros]}{stage}", zeros.share, zeroed)


def _masks(model: nn.Module, layers: Maskable, zeros: _Zeros, scores: Mapping[str, Tensor]) -> WeightMasks:
    pattern = parse_pattern(zeros.pattern or UNSTRUCTURED)
    if pattern.n_m is not None:
        return WeightMasks.n_m(model, layers, *pattern.n_m, scores=scores)
    if pattern.block is not None:
        return WeightMasks.blocks(model, layers, zeros.share, pattern.block, scores=scores)
    return WeightMasks.unstructured(model, layers, zeros.share, scores=scores)


def _stages(engine: Engine, model: nn.Module, masks: WeightMasks, *, refit: bool) -> Iterator[tuple[str, nn.Module]]:
    compressor, dense = engine.cutting, engine.cutting.dense_module
    masks.apply_()
    yield "", model
    settled = copy.deepcopy(model)
    compressor.settle_(settled)
    yield ", norms", settled
    if refit:
        # Norms are not re-estimated after it, which costs points: it was fitted to the old ones.
        reconstruct_weights_(model, dense, masks, compressor.scorer.inputs, seed=engine.bench.target.spec.seed)
        yield ", refit", model


def _keep(engine: Engine, kept: KeptRows[Row], part: str, method: str, amount: float, model: nn.Module) -> None:
    validation, test = accuracies(engine.bench, model)
    seed = engine.bench.target.spec.seed
    kept.add(Row(part=part, method=method, amount=amount, seed=seed, validation=validation, test=test))
