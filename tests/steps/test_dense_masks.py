"""Zeros spread over the layers by what each of them minds, on a model that was really trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from compressors import compressor
from targets_for_tests import MODEL_CODE

from edgeprune.events import Event, Noted, StageFinished, StageStarted
from edgeprune.records.rung import PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.records.sensitivity import CurvePoint, GroupCurve
from edgeprune.steps.controls import ControlMaker
from edgeprune.steps.dense_masks import PROBED, DenseMasks
from edgeprune.steps.pruning_rounds import PruningRounds

ZEROS = Rung(
    runtime="openvino", precision=Precision.FLOAT32, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.8
)  # fmt: skip
BLOCKS = Rung(
    runtime="openvino", precision=Precision.FLOAT32, pruning=PruningKind.BLOCK, pruning_ratio=0.5, block=(4, 1)
)
SPREAD = {"pruning.mask_scope": "sensitivity", "pruning.weight_criterion": "l1"}
LAYERS = ("conv1", "conv2")


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


def test_each_layer_has_its_own_share_and_all_together_the_rungs(tmp_path: Path) -> None:
    with compressor(tmp_path, target=SPREAD) as made:
        spread = made.masks
        shares = spread.shares(ZEROS, LAYERS)
        masks = spread.masker.masks(made.dense_module, ZEROS, 0.8)
        found = {x.layer: x for x in masks.sparsities()}
        assert {name: found[name].sparsity for name in LAYERS} == pytest.approx(shares, abs=0.01)
        zeros = sum(found[name].sparsity * found[name].weights for name in LAYERS)
        assert zeros / sum(found[name].weights for name in LAYERS) == pytest.approx(0.8, abs=0.005)
        assert found["head"].sparsity == 0.0
        # On the way there each layer has as much of its own share.
        half = spread.masker.masks(made.dense_module, ZEROS, 0.4)
        assert [x.sparsity for x in half.sparsities()][:2] == pytest.approx([s / 2 for s in shares.values()], abs=0.01)


def test_who_minds_more_gets_fewer_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def curve(_: DenseMasks, __: Rung, layer: str) -> GroupCurve:
        steep = 9.0 if layer == "conv2" else 1.0
        points = tuple(
            CurvePoint(width=round(1000 * (1 - share)), loss_increase=steep * share, accuracy=0.5)
            for share in reversed(PROBED)
        )
        return GroupCurve(group=layer, width=1000, points=points)

    monkeypatch.setattr(DenseMasks, "_curve", curve)
    with compressor(tmp_path, target=SPREAD) as made:
        shares = made.masks.shares(ZEROS, LAYERS)
        # 0.98 is the most, and what is left of 0.8 falls to the other.
        assert shares == pytest.approx({"conv1": 0.98, "conv2": 0.62}, abs=0.01)
    told = {**SPREAD, "pruning.layer_sparsities.conv2": 0.25}
    with compressor(tmp_path / "told", target=told) as made:
        masks = made.masks.masker.masks(made.dense_module, ZEROS, 0.8)
        assert [x.sparsity for x in masks.sparsities()][:2] == pytest.approx([0.8, 0.25], abs=0.01)


def test_curves_are_told_kept_and_shared_by_all_rungs_of_a_pattern(tmp_path: Path) -> None:
    told: list[bool] = []
    for ratio in (0.8, 0.5):
        heard = Heard()
        with compressor(tmp_path, heard, target=SPREAD) as made:
            rung = replace(ZEROS, pruning_ratio=ratio)
            shares = made.masks.shares(rung, LAYERS)
            assert sum(shares.values()) > 0
        assert StageStarted(stage="sensitivity", total=2, unit="layers") in heard.events
        ends = [e for e in heard.events if isinstance(e, StageFinished) and e.stage == "sensitivity" and not e.subject]
        told.append(ends[-1].cached)
        notes = [e.message for e in heard.events if isinstance(e, Noted)]
        assert any(f"{rung.pruning_name}: zeros by sensitivity: " in note for note in notes)
    assert told == [False, True]


def test_blocks_that_do_not_fit_a_layer_leave_the_share_to_the_others(tmp_path: Path) -> None:
    code = MODEL_CODE.replace("nn.Conv2d(1, 16", "nn.Conv2d(1, 18").replace("nn.Conv2d(16, 32", "nn.Conv2d(18, 32")
    code = code.replace("BatchNorm2d(16)", "BatchNorm2d(18)")
    with compressor(tmp_path, target=SPREAD, code=code) as made:
        spread = made.masks
        assert spread.shares(BLOCKS, LAYERS) == pytest.approx({"conv2": 0.5})
        masks = spread.masker.masks(made.dense_module, BLOCKS, 0.5)
        assert {x.layer: round(x.sparsity, 2) for x in masks.sparsities()}["conv1"] == 0.0


def test_rounds_end_at_the_shares(tmp_path: Path) -> None:
    with compressor(tmp_path, target=SPREAD) as made:
        pruned = PruningRounds(made).masked(ZEROS, "zeros")
        shares = made.masks.shares(ZEROS, LAYERS)
        model = pruned.model
        for name in LAYERS:
            weight = model.get_submodule(name).weight
            assert float((weight == 0).float().mean()) == pytest.approx(shares[name], abs=0.01)


UNUSED = MODEL_CODE.replace(
    "        self.head = nn.Linear", "        self.unused = nn.Conv2d(32, 64, 3)\n        self.head = nn.Linear"
)


def test_a_layer_that_is_never_called_takes_no_zeros_from_the_others(tmp_path: Path) -> None:
    """LAMP scores it, and it loses nothing at any share."""
    with compressor(tmp_path, target={**SPREAD, "pruning.weight_criterion": "lamp"}, code=UNUSED) as made:
        assert set(made.masks.shares(ZEROS, (*LAYERS, "unused"))) == set(LAYERS)
        masks = made.masks.masker.masks(made.dense_module, ZEROS, 0.8)
        found = {x.layer: x for x in masks.sparsities()}
        live = sum(found[name].sparsity * found[name].weights for name in LAYERS)
        assert live / sum(found[name].weights for name in LAYERS) == pytest.approx(0.8, abs=0.005)
        assert found["unused"].sparsity == pytest.approx(0.8, abs=0.005)


def test_no_layer_loses_all_its_blocks_while_others_have_some(tmp_path: Path) -> None:
    wide = replace(BLOCKS, pruning_ratio=0.9, block=(8, 9))
    with compressor(tmp_path, target=SPREAD) as made:
        masks = made.masks.masker.masks(made.dense_module, wide, 0.9)
        # The first has two such blocks of weights, one for each 8 of its outputs.
        assert {x.layer: x.sparsity for x in masks.sparsities()}["conv1"] <= 0.5


def test_criteria_that_look_at_data_and_those_of_a_price(tmp_path: Path) -> None:
    with compressor(tmp_path, target={**SPREAD, "pruning.weight_criterion": "fisher"}) as made:
        few, many = (made.masks.increase(replace(ZEROS, pruning_ratio=share)).loss for share in (0.5, 0.98))
        assert many > few
        curves = made.bench.run.root.glob("candidates/*-conv2/sensitivity")
        assert [p.parent.name for p in curves] == ["zeros-fisher-conv2"]


def test_a_control_by_lot_has_the_results_zeros_in_each_layer(tmp_path: Path) -> None:
    rung = PlannedRung(rung=replace(ZEROS, pruning_ratio=0.9), status=RungStatus.PLANNED, reason="", accuracy_cost=0.0)
    with compressor(tmp_path, target=SPREAD) as made:
        result, (by_lot, control) = made.compressed(rung), ControlMaker(made)._by_lot(rung)
        models = made.load(result), by_lot.load(control)
        ours, theirs = ({n: m.get_submodule(n).weight == 0 for n in LAYERS} for m in models)
    assert {n: z.sum() for n, z in ours.items()} == {n: z.sum() for n, z in theirs.items()}
    assert not ours["conv2"].equal(theirs["conv2"])
