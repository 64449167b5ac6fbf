"""The probe over a device that is made up: what it measures, in which order, and what it calls a gain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.profiling.sparsity import (
    PATTERNS,
    MicroKind,
    Variant,
    can_hold,
    kept_weights,
    kind_of,
    micro_model,
    probe_gains,
    variants_of,
)
from edgeprune.records.sparsity import GainStatus
from edgeprune.zero_patterns import parse_pattern


def device(
    p50_ms: Callable[[Variant | None], float], *, rounds: int
) -> tuple[Callable[[Sequence[Variant | None]], list[list[float]]], list[str]]:
    looks: list[str] = []

    def look(variants: Sequence[Variant | None]) -> list[list[float]]:
        looks.extend([v.name if v else "dense" for v in variants] * rounds)
        return [[p50_ms(v) for v in variants] for _ in range(rounds)]

    return look, looks


def test_where_zeros_buy_nothing_only_the_strongest_are_looked_at() -> None:
    look, looks = device(lambda _: 10.0, rounds=2)
    found = probe_gains(variants_of(PATTERNS), look)
    assert looks == ["dense", "unstructured-95", "block4x1-95", "nm2of4-50", "dense"] * 2
    by_name = {(g.pattern, g.share): g for g in found.gains}
    assert by_name["unstructured", 0.95].status is GainStatus.NONE
    assert by_name["unstructured", 0.95].ratio == 1.0
    assert by_name["unstructured", 0.9].status is GainStatus.NOT_MEASURED
    assert by_name["unstructured", 0.9].reason == "95% zeros gained nothing"
    assert len(found.gains) == 11


def test_a_threshold_as_xnnpacks_is_found() -> None:
    def p50_ms(variant: Variant | None) -> float:
        if variant is None or variant.share <= 2 / 3:
            return 10.0
        return 20.0 * (1 - variant.share)

    look, looks = device(p50_ms, rounds=3)
    found = probe_gains(variants_of(("unstructured", "2:4")), look)
    gained = {g.share: g.ratio for g in found.gains if g.status is GainStatus.GAIN}
    assert gained == pytest.approx({0.7: 10 / 6, 0.8: 2.5, 0.9: 5.0, 0.95: 10.0})
    assert looks.count("unstructured-50") == 3
    assert found.dense_p50_ms == 10.0


def test_a_gain_must_be_above_what_the_dense_file_differs_by_from_itself() -> None:
    dense = iter([10.0, 12.0, 10.0, 10.0])
    look, _ = device(lambda variant: next(dense) if variant is None else 9.0, rounds=2)
    found = probe_gains([Variant(pattern="unstructured", share=0.9)], look)
    # 11 / 9 and 10 / 9, and 1.2 is not passed by both.
    assert found.noise == pytest.approx(1.2)
    (gain,) = found.gains
    assert (gain.status, gain.lowest, gain.highest) == (GainStatus.NONE, pytest.approx(10 / 9), pytest.approx(11 / 9))
    assert "not above 1.20x in every round" in gain.reason


def test_exhaustive_looks_at_all() -> None:
    look, looks = device(lambda _: 1.0, rounds=1)
    found = probe_gains(variants_of(PATTERNS), look, exhaustive=True)
    assert len(looks) == 13
    assert all(g.status is GainStatus.NONE for g in found.gains)


def test_what_does_not_fit_together_has_dense_files_of_its_own() -> None:
    # The device grows slower from trip to trip: against another trip's dense file, zeros would seem to cost time.
    slower = iter([1.0, 2.0, 3.0])
    trips: list[int] = []

    def look(variants: Sequence[Variant | None]) -> list[list[float]]:
        trips.append(len(variants))
        factor = next(slower)
        return [[factor * (10.0 if v is None else 5.0) for v in variants] for _ in range(3)]

    found = probe_gains(variants_of(("unstructured",)), look, together=2, exhaustive=True)
    assert trips == [4, 4, 3]
    assert {g.ratio for g in found.gains} == {2.0}
    assert found.noise == 1.0


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(variants_of((*PATTERNS, "4:8", "block1x4", "block16x1"))), st.integers(0, 1000))
def test_zeros_lie_in_their_pattern(variant: Variant, seed: int) -> None:
    weight = torch.randn(16, 24, 1, 1, generator=torch.Generator().manual_seed(seed))
    kept = kept_weights(weight, variant).bool()
    assert kept.shape == weight.shape
    # Of blocks that are a large part of the weights, the nearest whole number.
    assert 1 - kept.float().mean() == pytest.approx(variant.share, abs=0.03)
    if variant.pattern == "unstructured":
        assert weight[kept].abs().min() >= weight[~kept].abs().max()
    if variant.pattern.startswith("block"):
        rows, columns = parse_pattern(variant.pattern).block
        blocks = kept.reshape(16 // rows, rows, 24 // columns, columns)
        assert (blocks.all(dim=3).all(dim=1) | ~blocks.any(dim=3).any(dim=1)).all()
    if ":" in variant.pattern:
        of = int(variant.pattern[-1])
        assert (kept.reshape(16, 24).reshape(16, -1, of).sum(dim=2) == of // 2).all()


def test_which_patterns_a_micro_model_can_hold() -> None:
    micro = MicroKind(kind="pointwise", width=64)
    assert all(can_hold(micro, p) for p in ("unstructured", "2:4", "1:16", "block4x1", "block16x1", "block1x64"))
    assert not any(can_hold(micro, p) for p in ("3:5", "block3x1", "block1x7", "block128x1"))


@pytest.mark.parametrize("kind", ["pointwise", "conv", "conv1d", "linear"])
def test_micro_models_run_and_have_the_zeros(kind: str) -> None:
    micro = MicroKind(kind=kind, width=64)
    model = micro_model(micro, Variant(pattern="unstructured", share=0.9))
    with torch.no_grad():
        assert model(torch.zeros(micro.input_shape)).isfinite().all()
    # Of a micro-model of one kind, that kind is what it is.
    assert kind_of(model) == micro
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv1d | nn.Linear):
            zeros = float((layer.weight == 0).float().mean())
            is_stem_or_depthwise = not isinstance(layer, nn.Linear) and (layer.groups > 1 or layer.in_channels == 3)
            assert zeros == (0.0 if is_stem_or_depthwise else pytest.approx(0.9, abs=0.01))


def test_the_models_kind_is_what_holds_most_of_its_weights() -> None:
    assert kind_of(nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(9999, 10))) == MicroKind(
        kind="conv", width=32
    )
    separable = nn.Sequential(nn.Conv2d(128, 128, 3, groups=128), nn.Conv2d(128, 128, 1), nn.Linear(128, 1000))
    assert kind_of(separable) == MicroKind(kind="pointwise", width=128)
    assert kind_of(nn.Sequential(nn.Linear(256, 256))) == MicroKind(kind="linear", width=256)
    assert kind_of(nn.Sequential(nn.ReLU())) is None
