"""Model cards: what they say, from the records of a build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from records_for_tests import make_build_result
from targets_for_tests import make_target
from torch import nn

from edgeprune.graph.layers import layer_weights
from edgeprune.records.accuracy import Accuracy, PartScore, Score
from edgeprune.records.codec import from_json
from edgeprune.records.control import Control
from edgeprune.records.model_card import LayerChange, LayerWeights, Making, ModelCard, Reading, SplitIdentity
from edgeprune.records.result import BuildResult
from edgeprune.records.rung import Precision, PruningKind, Rung
from edgeprune.records.shares import Share
from edgeprune.reporting.markdown import escape
from edgeprune.reporting.model_card import render_model_card
from edgeprune.reporting.quantities import NONE
from edgeprune.steps.compressing import TorchModel
from edgeprune.steps.inputs import load_target
from edgeprune.steps.model_card import card_of, making_of, write_cards

MAKING = Making(
    criterion="l2",
    schedule="linear",
    rounds=2,
    training_epochs=15,
    recovery_epochs=6,
    layers=(
        LayerChange(layer="conv", kind="Conv2d", weights_before=100, weights=60, zeros=10),
        LayerChange(layer="head", kind="Linear", weights_before=100, weights=100, zeros=0),
    ),
)


def result_with_facts(readings: int = 1) -> BuildResult:
    result = make_build_result()
    assert result.chosen is not None
    assert result.chosen.validation is not None
    night = Share(name="night", correct=38, total=40)
    chosen = replace(result.chosen, making=MAKING, validation=replace(result.chosen.validation, slices=(night,)))
    return replace(
        result,
        chosen=chosen,
        candidates=(*result.candidates[:-1], chosen),
        data=(SplitIdentity(split="test", examples=500, sha256="ab" * 32),),
        test_readings=tuple(
            Reading(number=k + 1, data="ab" * 32, models=((chosen.rung.name, "d"),)) for k in range(readings)
        ),
        controls=(Control(name="random", how="", reason="nothing was pruned"),),
    )


def test_layers_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4))
    first = model[0]
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        first.weight[0] = 0.0
    assert layer_weights(model) == (
        LayerWeights(layer="0", kind="Conv2d", weights=24, zeros=8),
        LayerWeights(layer="3", kind="Linear", weights=12, zeros=0),
    )


def test_a_shared_tensor_counts_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    assert [layer.layer for layer in layer_weights(nn.Sequential(first, second))] == ["0"]


def test_what_is_cut_zero_or_removed_is_gone(tmp_path: Path) -> None:
    spec = load_target(make_target(tmp_path).folder).spec
    dense = TorchModel(
        subject="dense", key="k", parameters=1, macs=1,
        layers=tuple(LayerWeights(layer=n, kind="Conv2d", weights=100, zeros=0) for n in ("a", "b", "c")),
    )  # fmt: skip
    left = (
        LayerWeights(layer="a", kind="Conv2d", weights=60, zeros=10),
        LayerWeights(layer="c", kind="Conv2d", weights=100, zeros=0),
    )
    rung = Rung(runtime="openvino", precision=Precision.INT8, pruning=PruningKind.STRUCTURED, pruning_ratio=0.5)
    making = making_of(rung, replace(dense, subject="pruned", layers=left), dense, spec)
    assert [round(layer.sparsity, 3) for layer in making.layers] == [0.5, 1.0, 0.0]
    assert making.sparsity == 0.5
    assert (making.criterion, making.schedule, making.rounds) == ("l2", "linear", 1)
    plain = making_of(replace(rung, pruning=PruningKind.NONE, pruning_ratio=0.0), dense, dense, spec)
    assert (plain.criterion, plain.schedule, plain.rounds, plain.sparsity) == ("", "", 0, 0.0)


def test_a_card_tells_parts_by_another_metric(tmp_path: Path) -> None:
    result, spec = result_with_facts(), load_target(make_target(tmp_path).folder).spec
    assert result.chosen is not None
    score = Score(metric="mean_iou", value=0.8, error=0.012, examples=40, higher_is_better=True, is_share=True)
    after = Accuracy(split="validation", score=score, slice_scores=(PartScore(name="a|b", score=score),))
    before = replace(after, slice_scores=(PartScore(name="a|b", score=replace(score, value=0.85)),))
    chosen = replace(result.chosen, validation=after)
    card = card_of(replace(result, dense=replace(result.dense, validation=before)), chosen, spec)
    assert card is not None
    page = render_model_card(card)
    assert (
        f"| {escape('validation, slice a|b, mean_iou')} | 85.00 % | 80.00 % | 40 examples, standard error 0.012 |"
        in page
    )


def test_a_card_says_all_that_an_audit_asks(tmp_path: Path) -> None:
    result, spec = result_with_facts(), load_target(make_target(tmp_path).folder).spec
    assert result.chosen is not None
    card = card_of(result, result.chosen, spec)
    assert card is not None
    page = render_model_card(card)
    for text in (
        "| validation | 96.40% | 96.00% | 480 of 500 (94.2% to 97.3%) |",
        "| test | 95.40% | 95.00% | 475 of 500",
        "| validation, worst class | 82.00% (class4) | 80.00% (class4) | 80 of 100",
        "**The test split was read once by builds in this run folder",
        f"| validation, slice night | {NONE} | 95.00% | 38 of 40",
        "25.0% of the dense model's weights are gone, by criterion l2, in 2 rounds (schedule linear), with 6 epochs",
        "| conv | Conv2d | 100 | 60 | 10 | 50.0% |",
        "| seed | 7 |",
        "| recovery.schedule | linear |",
        f"| test | 500 | {'ab' * 32} |",
        "| torch | 2.8.0 |",
        f"| random | {NONE} | {NONE} | none: nothing was pruned |",
    ):
        assert text in page, text


def test_epochs_with_rounding_are_told_apart_from_recovery(tmp_path: Path) -> None:
    result, spec = result_with_facts(), load_target(make_target(tmp_path).folder).spec
    assert result.chosen is not None
    made = replace(MAKING, qat_epochs_before=1, qat_epochs=2)
    card = card_of(result, replace(result.chosen, making=made), spec)
    assert card is not None
    page = render_model_card(card)
    assert (
        "with 6 epochs of recovery. The dense model was trained for 15 epochs. INT8 rounding was trained for 1" in page
    )
    assert "went on during recovery. At the end it was trained for 2 epochs with INT8 rounding." in page


def test_a_second_reading_is_told(tmp_path: Path) -> None:
    result, spec = result_with_facts(readings=2), load_target(make_target(tmp_path).folder).spec
    assert result.chosen is not None
    card = card_of(result, result.chosen, spec)
    assert card is not None
    assert "read 2 times by builds in this run folder" in render_model_card(card)


def test_every_artifact_has_one_and_texts_are_escaped(tmp_path: Path) -> None:
    result = replace(result_with_facts(), versions=(("torch", "2|<b>"),))
    spec = load_target(make_target(tmp_path / "target").folder).spec
    write_cards(tmp_path, result, spec)
    with_artifact = {c.folder for c in (result.dense, *result.candidates) if c.artifact is not None}
    assert len(with_artifact) > 1
    assert {str(p.parent.relative_to(tmp_path)) for p in tmp_path.rglob("model_card.json")} == with_artifact
    card = from_json(ModelCard, (tmp_path / result.dense.folder / "model_card.json").read_bytes())
    assert (card.verdict, card.controls) == (None, ())
    page = (tmp_path / result.dense.folder / "MODEL_CARD.md").read_text()
    assert "no gate judged it" in page
    assert r"2\|\<b\>" in page
