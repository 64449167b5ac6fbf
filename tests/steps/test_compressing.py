"""The torch side of a candidate, with a real run folder and the build host as the device."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compressors import compressor
from targets_for_tests import BLOCK_CODE
from torch import Tensor, nn

from edgeprune.errors import BuildError
from edgeprune.events import Event, Noted, StageFinished
from edgeprune.graph.blocks import remove_blocks
from edgeprune.records.rung import GroupWidth, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.recovery.batchnorm import reestimate_
from edgeprune.recovery.finetune import FitSettings
from edgeprune.schema.training import Recovery
from edgeprune.steps import compressing
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.pruning_rounds import recovery_rounds

FLOAT = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
WIDTHS = (GroupWidth(group="conv1", before=16, after=6), GroupWidth(group="conv2", before=32, after=12))


class Heard:
    """Keeps the stages that ended, whether they had been kept, and what was told."""

    def __init__(self) -> None:
        self.finished: list[tuple[str, bool]] = []
        self.notes: list[str] = []

    def emit(self, event: Event) -> None:
        if isinstance(event, StageFinished):
            self.finished.append((event.stage, event.cached))
        if isinstance(event, Noted):
            self.notes.append(event.message)


def planned(rung: Rung, widths: tuple[GroupWidth, ...] = ()) -> PlannedRung:
    return PlannedRung(rung=rung, status=RungStatus.PLANNED, reason="", accuracy_cost=0.0, widths=widths)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {n: p for n, p in model.state_dict().items() if p.ndim > 1}


def test_structured_model_is_the_same_when_it_is_loaded_again(tmp_path: Path) -> None:
    rung = replace(FLOAT, pruning=PruningKind.STRUCTURED, pruning_ratio=0.625)
    heard = Heard()
    with compressor(tmp_path) as first:
        model = first.compressed(planned(rung, WIDTHS))
        one = first.load(model)
        example = first.bench.example
    with compressor(tmp_path, heard) as second:
        assert second.compressed(planned(rung, WIDTHS)) == model
        two = second.load(model)
        dense = second.load(second.dense)
    assert heard.finished == [("compress", True), ("compress", True)]
    assert torch.equal(one(example), two(example))
    assert {n: tuple(p.shape) for n, p in weights(two).items()} == {
        "conv1.weight": (6, 1, 3, 3), "conv2.weight": (12, 6, 3, 3), "head.weight": (4, 108),
    }  # fmt: skip
    assert weights(dense)["conv1.weight"].shape == (16, 1, 3, 3)
    assert len(model.epochs) == 2
    assert model.parameters == sum(p.numel() for p in two.parameters())


@pytest.mark.parametrize(
    ("rung", "zeros"),
    [
        (replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.8), 0.8),
        (replace(FLOAT, pruning=PruningKind.N_M, pruning_ratio=0.5, n_m=(2, 4)), 0.5),
        (replace(FLOAT, pruning=PruningKind.BLOCK, pruning_ratio=0.5, block=(4, 1)), 0.5),
    ],
    ids=["unstructured", "2:4", "4x1"],
)
def test_masked_zeros_are_there_after_fine_tuning(tmp_path: Path, rung: Rung, zeros: float) -> None:
    with compressor(tmp_path) as made:
        model = made.compressed(planned(rung))
        loaded = weights(made.load(model))
        dense = weights(made.load(made.dense))
    weights_but_the_heads = [x for x in model.layers if x.layer != "head"]
    zeros_there, all_there = (sum(getattr(x, n) for x in weights_but_the_heads) for n in ("zeros", "weights"))
    assert zeros_there / all_there == pytest.approx(rung.pruning_ratio, abs=0.03)
    assert model.sparsity == pytest.approx(zeros_there / sum(x.weights for x in model.layers))
    found = loaded["conv2.weight"]
    assert (found == 0).float().mean().item() == pytest.approx(zeros, abs=0.15)
    if rung.n_m:
        # Four neighbours along the input channels.
        fours = found.permute(0, 2, 3, 1).reshape(-1, 4)
        assert int((fours != 0).sum(1).max()) <= 2
    if rung.block:
        # The weights that four neighbouring output channels have for the same input.
        fours = (found != 0).unflatten(0, (-1, 4))
        assert torch.equal(fours.all(dim=1), fours.any(dim=1))
    assert (dense["conv2.weight"] == 0).sum() == 0
    # What is left went on learning.
    left = found != 0
    assert not torch.equal(found[left], dense["conv2.weight"][left])


@pytest.mark.parametrize("stage", ["recover", "quantize", "train"])
def test_masked_weights_that_training_brought_back_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    trained = Compressor.fit_

    def careless(self: Compressor, model: nn.Module, settings: FitSettings, at: str, *rest: Any, **named: Any) -> Any:
        epochs = trained(self, model, settings, at, *rest, **named)
        if at == stage and "dense" not in rest:
            nn.init.ones_(model.conv2.weight)
        return epochs

    monkeypatch.setattr(Compressor, "fit_", careless)
    rung = replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.5)
    with compressor(tmp_path) as made, pytest.raises(BuildError, match=r"'conv2': \d+ masked weights are not zero"):
        made.from_scratch(made.quantization_aware(made.compressed(planned(rung)), 1))


def test_blocks_of_another_shape_are_another_model(tmp_path: Path) -> None:
    rung = replace(FLOAT, pruning=PruningKind.BLOCK, pruning_ratio=0.5)
    with compressor(tmp_path, target={"recovery.epochs": 0}) as made:
        found = [made.compressed(planned(replace(rung, block=block))) for block in ((4, 1), (1, 4))]
        one, other = (weights(made.load(model))["conv2.weight"] == 0 for model in found)
    assert found[0].key != found[1].key
    assert not torch.equal(one, other)


def test_rounds_that_nothing_recovers_from_are_told(tmp_path: Path) -> None:
    heard = Heard()
    with compressor(tmp_path, heard, {"recovery.rounds": 3, "recovery.epochs": 1}) as made:
        made.compressed(structured())
    (note,) = [n for n in heard.notes if "no epoch" in n]
    assert "2 of 3 rounds have no epoch of recovery" in note


@pytest.mark.parametrize("cuts", [False, True])
def test_norms_are_those_of_the_model_without_its_blocks_where_the_rest_is_refitted(
    tmp_path: Path, *, cuts: bool
) -> None:
    """A refit gives what the model gave before the cut: that must not be what it gave with norms of other inputs."""
    once = {"pruning.reconstruct": True, "recovery.rounds": 1, "recovery.epochs": 0, "pruning.scoring_samples": 64}
    rung = replace(FLOAT, pruning=PruningKind.STRUCTURED, pruning_ratio=0.5, blocks_out=1)
    widths = (GroupWidth(group="second.conv1", before=16, after=8 if cuts else 16),)
    with compressor(tmp_path, target=once, code=BLOCK_CODE) as made:
        wanted = remove_blocks(made.dense_module, ["first"])
        made.settle_(wanted)
        found = made.load(made.compressed(replace(planned(rung, widths), removed_blocks=("first",))))
    assert found.second.conv1.out_channels == (8 if cuts else 16)
    if not cuts:
        assert torch.equal(found.second.bn1.running_mean, wanted.second.bn1.running_mean)
        return
    # The refitted layer's outputs are near those that it had; those of stale norms are not.
    inputs = torch.from_numpy(made.bench.validation_inputs)
    stale = remove_blocks(made.dense_module, ["first"])
    with torch.no_grad():
        errors = [float((m(inputs) - found(inputs)).square().mean()) for m in (wanted.eval(), stale.eval())]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("kind", [PruningKind.STRUCTURED, PruningKind.UNSTRUCTURED])
def test_norms_are_reestimated_after_each_cut(
    kind: PruningKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[int] = []

    def watched_(model: nn.Module, inputs: Tensor) -> None:
        settled.append(_weights_left(model))
        reestimate_(model, inputs)

    monkeypatch.setattr(compressing, "reestimate_", watched_)
    rung = replace(FLOAT, pruning=kind, pruning_ratio=0.625)
    widths = WIDTHS if kind is PruningKind.STRUCTURED else ()
    with compressor(tmp_path, target={"recovery.epochs": 0}) as made:
        found = made.load(made.compressed(planned(rung, widths)))
        dense, again = made.load(made.dense), copy.deepcopy(found)
        first, last = settled  # One a round.
        made.settle_(again)
    assert _weights_left(dense) > first > last == _weights_left(found)
    assert torch.equal(found.bn1.running_mean, again.bn1.running_mean)


def _weights_left(model: nn.Module) -> int:
    return sum(int(weight.count_nonzero()) for weight in weights(model).values())


def test_layers_that_features_name_stay_and_may_be_narrower(tmp_path: Path) -> None:
    rung = replace(FLOAT, pruning=PruningKind.STRUCTURED, pruning_ratio=0.5, blocks_out=1)
    widths = (GroupWidth(group="second.conv1", before=16, after=8),)
    target = {"recovery.features": ["second.conv1", "second.bn1:first.bn1", "first"]}
    with compressor(tmp_path, target=target, code=BLOCK_CODE) as made:
        blocks = made.bench.blocks
        model = made.compressed(replace(planned(rung, widths), removed_blocks=("first",)))
    assert blocks.removable == ()
    assert [b.reason for b in blocks.refused] == ["recovery.features names its layer 'second.bn1'"]
    assert len(model.epochs) == 2


def test_other_recipe_is_another_model_and_the_dense_one_stays(tmp_path: Path) -> None:
    rung = replace(FLOAT, pruning=PruningKind.STRUCTURED, pruning_ratio=0.625)
    with compressor(tmp_path) as made:
        before = made.compressed(planned(rung, WIDTHS))
    heard = Heard()
    with compressor(tmp_path, heard, {"recovery.epochs": 1}) as made:
        after = made.compressed(planned(rung, WIDTHS))
    assert before.subject != after.subject
    assert [cached for stage, cached in heard.finished if stage == "compress"] == [True, False]


def test_training_that_diverges_is_told(tmp_path: Path) -> None:
    with (
        compressor(tmp_path, target={"training.learning_rate": 1e30}) as made,
        pytest.raises(BuildError, match="train"),
    ):
        _ = made.dense
    assert not (tmp_path / "runs" / "tiny-bench-box-local" / "compressed" / "dense").exists()


def structured() -> PlannedRung:
    return planned(replace(FLOAT, pruning=PruningKind.STRUCTURED, pruning_ratio=0.625), WIDTHS)


@pytest.mark.parametrize(
    "target",
    [
        {"pruning.criterion": "taylor", "pruning.scoring_samples": 64},
        {"pruning.criterion": "fisher", "pruning.reconstruct": True, "recovery.epochs": 0},
        {"recovery.schedule": "geometric", "recovery.rewind": "learning_rate"},
        {"recovery.rewind": "weights", "recovery.rewind_to": 0.3},
        {"recovery.schedule": "steps", "recovery.steps": [[0, 0.5], [1, 1.0]]},
    ],
    ids=lambda t: "-".join(str(v) for v in t.values()),
)
def test_every_way_of_pruning_ends_at_the_widths_asked_for(tmp_path: Path, target: dict[str, object]) -> None:
    with compressor(tmp_path, target=target) as made:
        model = made.compressed(structured())
        loaded = weights(made.load(model))
    assert loaded["conv1.weight"].shape == (6, 1, 3, 3)
    assert loaded["conv2.weight"].shape == (12, 6, 3, 3)
    assert len(model.epochs) == target.get("recovery.epochs", 2)


def test_rewound_weights_are_those_of_the_early_step_where_nothing_is_trained_afterwards(tmp_path: Path) -> None:
    target = {"recovery.rewind": "weights", "recovery.rewind_to": 0.0, "recovery.epochs": 0, "recovery.rounds": 1}
    rung = replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.5)
    with compressor(tmp_path, target=target) as made:
        found = weights(made.load(made.compressed(planned(rung))))
        dense, fresh = weights(made.load(made.dense)), weights(made.bench.fresh_model())
    left = found["conv2.weight"] != 0
    assert 0.2 < left.float().mean() < 0.8
    assert torch.equal(found["conv2.weight"][left], fresh["conv2.weight"][left])
    assert not torch.equal(found["conv2.weight"][left], dense["conv2.weight"][left])


@pytest.mark.parametrize("rewind", ["weights", "learning_rate"])
def test_rewound_round_trains_what_was_left_at_the_rates_that_were_left(tmp_path: Path, rewind: str) -> None:
    target = {"recovery.rewind": rewind, "recovery.rewind_to": 0.7, "recovery.epochs": None, "training.epochs": 3}
    # The early step is reached, however soon the dense model's own training ends.
    with compressor(tmp_path, target={**target, "training.patience_epochs": 1}) as made:
        found = made.compressed(planned(replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.5)))
        settings = made.recovery_settings(1)
        assert settings.learning_rate == made.training_settings().learning_rate
        assert (settings.schedule.start, made.training_settings().schedule.start) == (0.7, 0.0)
    # 0.9 of an epoch are left, in whole ones, in each of two rounds.
    assert [count for _, count in recovery_rounds(made.recovery, 0.5, 3)] == [1, 1]
    assert len(found.epochs) == 2


@pytest.mark.parametrize(
    ("recovery", "counts"),
    [
        (Recovery(), [1, 2]),
        (Recovery(epochs=5), [2, 3]),
        (Recovery(rewind="learning_rate", rewind_to=0.1), [9, 9]),
        (Recovery(rewind="weights", rewind_to=0.4, rounds=3), [6, 6, 6]),
        (Recovery(rewind="weights", rewind_to=0.0), [10, 10]),
        (Recovery(rewind="learning_rate", epochs=4), [2, 2]),
    ],
)
def test_epochs_of_each_round(recovery: Recovery, counts: list[int]) -> None:
    assert [count for _, count in recovery_rounds(recovery, 0.5, 10)] == counts


def test_other_weights_go_by_another_criterion_and_the_rest_makes_up_for_them(tmp_path: Path) -> None:
    rung = replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.8)
    found = {}
    for name, target in {
        "lamp": {},
        "obc": {"pruning.weight_criterion": "obc", "pruning.reconstruct": False},
        "refitted": {"pruning.weight_criterion": "obc"},
    }.items():
        once = {"recovery.rounds": 1, "recovery.epochs": 0, "pruning.scoring_samples": 128}
        with compressor(tmp_path / name, target={**once, **target}) as made:
            found[name] = weights(made.load(made.compressed(planned(rung))))["conv2.weight"]
    zeros = {name: weight == 0 for name, weight in found.items()}
    assert not torch.equal(zeros["lamp"], zeros["obc"])
    assert torch.equal(zeros["obc"], zeros["refitted"])
    assert not torch.equal(found["obc"], found["refitted"])


def test_zeros_of_one_round_are_zeros_of_the_next(tmp_path: Path) -> None:
    rung = replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.75)
    # Nothing is trained after a cut, so that a zero in the place of another weight would still be one.
    target = {"pruning.weight_criterion": "movement", "recovery.rounds": 3, "recovery.epochs": 0}
    heard = Heard()
    with compressor(tmp_path, heard, target=target) as made:
        model = made.compressed(planned(rung))
    weights, zeros = sum(x.weights for x in model.layers), sum(x.zeros for x in model.layers)
    assert model.sparsity == pytest.approx(zeros / weights)
    # The classifier's are among the weights, and none of them among the zeros.
    (head,) = [x for x in model.layers if x.layer == "head"]
    assert head.zeros == 0
    assert zeros == round(0.75 * (weights - head.weights))
    (note,) = [n for n in heard.notes if "without zeros" in n]
    assert note.endswith("without zeros stay head (it makes the model's output, and pruning.classifier is false)")
