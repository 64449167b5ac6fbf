"""Costs that are measured: a real model, quantized and run through its runtime on this host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compressors import compressor

from edgeprune.records.rung import GroupWidth, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.records.sensitivity import LossIncrease
from edgeprune.steps.costs import AccuracyCosts
from edgeprune.steps.dense_masks import DenseMasks
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.sensitivity import GroupLosses, SensitivityBench

FLOAT = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
INT8 = replace(FLOAT, precision=Precision.INT8)
ZEROS = replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.98)


def planned(rung: Rung, status: RungStatus = RungStatus.PLANNED, *after: tuple[str, int, int]) -> PlannedRung:
    widths = tuple(GroupWidth(group=g, before=b, after=a) for g, b, a in after)
    return PlannedRung(rung=rung, status=status, reason="", accuracy_cost=7.0, widths=widths)


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccuracyCosts]:
    with compressor(tmp_path_factory.mktemp("costs"), target={"pruning.sparsities": [0.5, 0.98]}) as made:
        yield AccuracyCosts(GroupLosses(made, may_train=True))


def test_float32_costs_nothing_and_int8_what_its_artifact_loses(costs: AccuracyCosts) -> None:
    assert (costs.priced(planned(FLOAT)).accuracy_cost, costs.priced(planned(FLOAT)).cost_error) == (0.0, 0.0)
    found = costs.precision(INT8)
    assert abs(found.loss) < 0.1
    assert 0.0 < found.error < 0.1
    assert 0.9 < found.accuracy <= 1.0
    # Threads do not change what is computed, and what is measured is kept.
    priced = costs.priced(planned(replace(INT8, threads=2)))
    assert (priced.accuracy_cost, priced.cost_error) == (max(0.0, found.loss), found.error)


def test_weights_of_16_bits_cost_next_to_nothing_and_are_measured_all_the_same(costs: AccuracyCosts) -> None:
    found = costs.precision(replace(FLOAT, precision=Precision.FLOAT32_W16))
    assert abs(found.loss) < 1e-3
    assert found.error < 1e-3
    # Of float32 nothing is known: it is not run.
    assert (found.accuracy > 0.9, costs.precision(FLOAT).accuracy) == (True, 0.0)


def test_a_cut_costs_the_sum_of_its_groups_and_its_precision(costs: AccuracyCosts) -> None:
    cut = replace(INT8, pruning=PruningKind.STRUCTURED, pruning_ratio=0.5)
    widths = (("conv1", 16, 8), ("conv2", 32, 16))
    losses = costs.losses
    parts = [losses(group, after) for group, _, after in widths]
    assert sum(parts) > 0.0
    priced = costs.priced(planned(cut, RungStatus.PLANNED, *widths))
    assert priced.accuracy_cost == pytest.approx(max(0.0, costs.precision(INT8).loss) + sum(parts))
    assert priced.cost_error > max(losses.error(group, after) for group, _, after in widths) > 0.0
    assert losses.error("conv1", 16) == 0.0
    # A refused one whose cost would take a measurement has none.
    assert costs.priced(planned(cut, RungStatus.REFUSED)).accuracy_cost is None
    assert costs.priced(planned(FLOAT, RungStatus.REFUSED)).accuracy_cost == 0.0


def test_zeros_cost_what_they_lose_and_never_less_than_fewer(costs: AccuracyCosts) -> None:
    few, many = (costs.priced(planned(replace(ZEROS, pruning_ratio=share))) for share in (0.5, 0.98))
    assert few.accuracy_cost is not None
    assert many.accuracy_cost is not None
    assert 0.0 <= few.accuracy_cost < many.accuracy_cost
    assert many.cost_error > 0.0
    n_m = costs.priced(planned(replace(FLOAT, pruning=PruningKind.N_M, pruning_ratio=0.5, n_m=(2, 4))))
    assert n_m.accuracy_cost is not None
    assert 0.0 <= n_m.accuracy_cost < many.accuracy_cost


def test_a_rung_says_how_its_zeros_are_spread_by_sensitivity(tmp_path: Path, costs: AccuracyCosts) -> None:
    assert costs.priced(planned(ZEROS)).zeros is None
    spread = {"pruning.mask_scope": "sensitivity", "pruning.weight_criterion": "l1"}
    n_m = replace(FLOAT, pruning=PruningKind.N_M, pruning_ratio=0.5, n_m=(2, 4))
    found = []
    for _ in range(2):
        with compressor(tmp_path, target=spread) as made:
            by_sensitivity = AccuracyCosts(GroupLosses(made, may_train=True))
            found.append(by_sensitivity.priced(planned(ZEROS)).zeros)
            assert by_sensitivity.priced(planned(n_m)).zeros is None
            assert found[-1] is not None
            assert found[-1].by_layer == pytest.approx(made.masks.shares(ZEROS, list(found[-1].by_layer)))
            asked = [o for o in made.bench.run.outcomes if "spread-" in o.name]
    # The build that goes on has it from the step.
    assert found[0] == found[1]
    assert [o.cached for o in asked] == [True]


def test_blocks_that_lose_less_by_chance_cost_what_fewer_of_them_do(
    costs: AccuracyCosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def falling(_: DenseMasks, rung: Rung) -> LossIncrease:
        return LossIncrease(loss=1.0 - rung.pruning_ratio, error=0.1, accuracy=0.5)

    monkeypatch.setattr(DenseMasks, "increase", falling)
    blocks = replace(ZEROS, pruning=PruningKind.BLOCK, block=(2, 1))
    found = [costs.priced(planned(replace(blocks, pruning_ratio=share))).accuracy_cost for share in (0.5, 0.98)]
    assert found == pytest.approx([0.5, 0.5])


def test_the_error_is_that_of_the_differences(costs: AccuracyCosts) -> None:
    losses = SensitivityBench(costs.losses.compressor).losses
    outputs = torch_outputs(losses.model, losses.inputs)
    same = losses.increase(outputs)
    assert (same.loss, same.error) == (0.0, 0.0)
    # Logits far off for a quarter of the examples: the mean and its error are theirs by hand.
    wrong = outputs.copy()
    wrong[::4] = np.roll(wrong[::4], 1, axis=1)
    found = losses.increase(wrong)
    labels = losses.labels
    logs = [np.take_along_axis(o - np.log(np.exp(o).sum(1, keepdims=True)), labels[:, None], 1)[:, 0]
            for o in (outputs, wrong)]  # fmt: skip
    differences = logs[0] - logs[1]
    assert found.loss == pytest.approx(differences.mean(), rel=1e-4)
    assert found.error == pytest.approx(differences.std(ddof=1) / np.sqrt(len(differences)), rel=1e-4)


def test_without_a_trained_model_nothing_is_measurable(tmp_path: Path) -> None:
    with compressor(tmp_path) as made:
        assert not AccuracyCosts(GroupLosses(made, may_train=False)).measurable
        assert AccuracyCosts(GroupLosses(made, may_train=True)).measurable
