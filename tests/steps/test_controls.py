"""Controls of the chosen model's size, made on the tiny target."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compressors import compressor
from targets_for_tests import BLOCK_CODE, MODEL_CODE, make_target
from torch import nn
from torch.nn import functional

from edgeprune.errors import BuildError, InputError
from edgeprune.events import NullReporter
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Artifact
from edgeprune.records.quantization import QuantizationVariant
from edgeprune.records.recipe import Cut, PruningRecipe
from edgeprune.records.rung import GroupWidth, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.recovery.finetune import FitSettings, Workers, fit_
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.controls import ControlMaker
from edgeprune.steps.fresh_weights import fresh_model
from edgeprune.steps.held_zeros import ZeroHolder
from edgeprune.steps.inputs import load_target
from edgeprune.steps.outcome import check_controls

DENSE = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
HALF = replace(DENSE, pruning=PruningKind.STRUCTURED, pruning_ratio=0.5)
MASKED = replace(DENSE, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.8)
# What is positive passes the first block's last ReLU as well, so that either block can be removed.
TWO_BLOCKS = BLOCK_CODE.replace("self.stem(x)", "torch.relu(self.stem(x))")
WIDTHS = (GroupWidth(group="conv1", before=16, after=8), GroupWidth(group="conv2", before=32, after=16))


def planned(rung: Rung) -> PlannedRung:
    widths = WIDTHS if rung.pruning is PruningKind.STRUCTURED else ()
    return PlannedRung(rung=rung, status=RungStatus.PLANNED, reason="", accuracy_cost=0.0, widths=widths)


def without_blocks(stem: int, first: int, second: int) -> PlannedRung:
    """Of the net with blocks: channels left of 16 each, 0 where the block is removed."""
    left = {"stem": stem, "first.conv1": first, "second.conv1": second}
    out = tuple(name.removesuffix(".conv1") for name, after in left.items() if not after)
    rung = replace(DENSE, pruning=PruningKind.STRUCTURED, blocks_out=len(out))
    widths = tuple(GroupWidth(group=name, before=16, after=after) for name, after in left.items())
    return replace(planned(rung), widths=widths, removed_blocks=out)


def weights(made: Compressor, subject: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(made.bench.run.path(f"compressed/{subject}/compress") / "model.safetensors")


def test_both_controls_have_the_results_size_and_are_tested_when_asked(tmp_path: Path) -> None:
    with compressor(tmp_path) as made:
        result = made.compressed(planned(HALF))
        maker = ControlMaker(made)
        random, scratch = (maker.made(name, planned(HALF)) for name in ("random", "scratch"))
        again = made.compressed(planned(HALF))
        recipes = {
            p.parent.parent.name: p.read_text() for p in made.bench.run.root.glob("compressed/*/compress/recipe.json")
        }
    for control in (random.control, scratch.control):
        assert control.reason == ""
        assert (control.parameters, control.macs) == (result.parameters, result.macs)
        assert control.validation is not None
        assert control.validation.total == 96
        assert control.test is None
    assert (random.control.epochs, scratch.control.epochs) == (2, 2)
    assert "channels as the result, chosen by lot (seed 0); the same recovery, 2 epochs in all" in random.control.how
    assert "the dense model trained for 2, and the result had 2 of recovery" in scratch.control.how
    assert random.control.artifact_digest != scratch.control.artifact_digest
    # The result stays as it was. The lot cut other channels; from scratch, the result's shape is made.
    assert again == result
    assert len(recipes) == 4
    assert recipes.pop("dense") not in recipes.values()
    assert recipes[result.subject] == recipes[f"{result.subject}-scratch"]
    assert len(set(recipes.values())) == 2
    read: list[str] = []

    def split(subject: str, _: Artifact) -> Accuracy:
        read.append(subject)
        return Accuracy(split="test", confusion=((3, 1), (0, 4)), class_names=("a", "b"))

    tested = [m.tested(split) for m in (random, scratch)]
    assert read == [f"{HALF.name}-random-control", f"{HALF.name}-scratch-control"]
    assert all(c.test is not None and c.test.overall == 7 / 8 for c in tested)


@pytest.mark.parametrize(
    ("width", "how"),
    [
        (8, "as many blocks out as in the result, by lot others: second, and as many channels as the result, chosen"),
        (16, "as many blocks out as in the result, by lot others: second (seed 0); the same recovery, 2 epochs in all"),
    ],
    ids=["blocks and channels", "blocks alone"],
)
def test_blocks_are_drawn_by_lot_as_well(tmp_path: Path, width: int, how: str) -> None:
    with compressor(tmp_path, code=TWO_BLOCKS) as made:
        wanted = without_blocks(stem=16, first=0, second=width)
        result, (by_lot, model) = made.compressed(wanted), ControlMaker(made)._by_lot(wanted)
        control = ControlMaker(made).made("random", wanted).control
        left = by_lot.load(model)
    assert (result.recipe.removed_blocks, model.recipe.removed_blocks) == (("first",), ("second",))
    # What comes back is as wide as what went.
    assert left.first.conv1.out_channels == width
    assert (control.parameters, control.macs) == (result.parameters, result.macs)
    assert control.reason == ""
    assert control.how.startswith(how)


def test_a_lot_over_blocks_has_to_have_others(tmp_path: Path) -> None:
    with compressor(tmp_path, code=TWO_BLOCKS) as made:
        maker = ControlMaker(made)
        found = maker.made("random", without_blocks(stem=16, first=0, second=0)).control
        told = list(maker._lots(without_blocks(stem=8, first=0, second=0)))
        mixed = QuantizationVariant(float_layers=("MatMul_14",))
        another = maker.made("random", without_blocks(stem=16, first=0, second=8), mixed).control
    assert found.reason.startswith("no channels were cut, and no other blocks can be removed")
    assert another.reason.startswith("the layers that stay in float are named by the result's file")
    assert told == [
        "the result's own blocks out, as no others can go: first, second",
        "as many channels as the result, chosen by lot",
    ]


def test_from_scratch_has_as_many_epochs_with_rounding_as_the_result(tmp_path: Path) -> None:
    changes = {"quantization.order": "quantize_first", "quantization.qat_epochs": 1, "recovery.rounds": 1}
    int8 = planned(replace(HALF, precision=Precision.INT8))
    with compressor(tmp_path, target=changes) as made:
        found = ControlMaker(made).made("scratch", int8, QuantizationVariant(qat_epochs=1)).control
        result = made.quantization_aware(made.compressed(int8), 1)
    had = (result.qat_epochs_before, result.epochs, result.qat_epochs)
    assert [len(epochs) for epochs in had] == [1, 2, 1]
    assert (found.reason, found.epochs, found.qat_epochs) == ("", 2, 4)
    assert found.how.endswith("then 4 with INT8 rounding for those that the result had from before its cut on")


def test_scratch_of_a_masked_model_holds_its_zeros(tmp_path: Path) -> None:
    with compressor(tmp_path) as made:
        result = made.compressed(planned(MASKED))
        control = made.from_scratch(result)
        ours, theirs = weights(made, control.subject), weights(made, result.subject)
    zero = theirs["conv2.weight"] == 0
    assert 0.5 < float(zero.float().mean()) < 1
    assert torch.equal(ours["conv2.weight"] == 0, zero)
    assert not torch.equal(ours["conv2.weight"], theirs["conv2.weight"])
    assert control.sparsity == result.sparsity


@pytest.mark.slow
def test_scratch_of_a_masked_model_is_trained_by_two_workers_too(tmp_path: Path) -> None:
    with compressor(tmp_path, workers=2) as made:
        control = ControlMaker(made).made("scratch", planned(MASKED)).control
    assert (control.reason, control.epochs) == ("", 2)
    assert control.sparsity > 0.5


@pytest.mark.parametrize(
    ("name", "rung", "changes", "reason"),
    [
        ("random", DENSE, {}, "onnxruntime-float32-t1 was not pruned"),
        ("random", HALF, {"pruning.criterion": "random"}, "the result itself was pruned by lot"),
        ("random", MASKED, {"pruning.weight_criterion": "random"}, "the result itself was pruned by lot"),
        ("scratch", HALF, {"training.epochs": 0}, "training.epochs is 0: the target has no recipe"),
        (
            "scratch",
            HALF,
            {"teacher.factory": "model.py:build_model", "teacher.features": ["gone.conv1"]},
            "teacher.features names 'gone.conv1', which went with its block",
        ),
    ],
)
def test_a_control_that_would_say_nothing_says_why(
    tmp_path: Path, name: str, rung: Rung, changes: dict[str, object], reason: str
) -> None:
    with compressor(tmp_path, target=changes) as made:
        removed = ("gone",) if "teacher.features" in changes else ()
        found = ControlMaker(made).made(name, replace(planned(rung), removed_blocks=removed))
    assert found.control.reason.startswith(reason)
    assert found.artifact is None
    assert found.tested(lambda *_: pytest.fail("nothing to read")) == found.control


def test_a_factory_that_gives_trained_weights_has_no_fresh_ones(tmp_path: Path) -> None:
    code = MODEL_CODE.replace("    return TinyNet()", "    torch.manual_seed(3)\n    return TinyNet()")
    with compressor(tmp_path, code=code) as made:
        found = ControlMaker(made).made("scratch", planned(HALF))
        assert "gives the same weights at any seed" in found.control.reason
        with pytest.raises(BuildError, match=r"name the pretrained weights in model\.weights"):
            fresh_model(made.bench.target, made.bench.example, PruningRecipe())


def test_fresh_weights_are_the_factorys_scaled_to_the_inputs_that_are_left(tmp_path: Path) -> None:
    target = load_target(make_target(tmp_path).folder)
    begun = dict(target.build_model().named_parameters())
    other = replace(target, spec=target.spec.model_copy(update={"seed": target.spec.seed + 1}))
    dense = dict(other.build_model().named_parameters())
    cut = PruningRecipe(cuts=(Cut(group="conv1", removed=tuple(range(8, 16))),))
    fresh = dict(fresh_model(target, torch.zeros(1, 1, 12, 12), cut).named_parameters())
    torch.testing.assert_close(fresh["conv1.weight"], dense["conv1.weight"][:8])
    # Eight of sixteen inputs are left.
    torch.testing.assert_close(fresh["conv2.weight"], math.sqrt(2) * dense["conv2.weight"][:, :8])
    torch.testing.assert_close(fresh["head.weight"], dense["head.weight"])
    # What the dense model's training began with would be a ticket.
    assert not torch.equal(fresh["head.weight"], begun["head.weight"])


class Positioned(nn.Module):
    """A position embedding and a last layer that begin at zero, as those of vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 3, 2))
        self.body, self.body_norm, self.last = nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body_norm(self.body(x + self.position))).mean(1)


def test_zeros_of_masked_layers_are_taken_over_and_held() -> None:
    like, model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        for layer, other in zip(like, model, strict=True):
            layer.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
            layer.bias.zero_()
            other.weight.fill_(5.0)
            other.bias.fill_(5.0)
    hold = ZeroHolder(model, like, ["1"])
    hold()
    assert [layer.weight.tolist() for layer in model] == [[[5.0, 5.0], [5.0, 5.0]], [[0.0, 5.0], [5.0, 0.0]]]
    with torch.no_grad():
        model[1].weight.add_(1.0)
    hold()
    assert model[1].weight.tolist() == [[0.0, 6.0], [6.0, 0.0]]
    assert model[1].bias.tolist() == [5.0, 5.0]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_begins_at_zero_outside_of_masks_learns(workers: int) -> None:
    model, like = Positioned(), Positioned()
    with torch.no_grad():
        like.body.weight[0] = 0.0
    hold = ZeroHolder(model, like, ["body"])
    hold()
    inputs, labels = torch.randn(16, 3, 2), torch.arange(16) % 2
    settings = FitSettings(
        epochs=2, learning_rate=0.1, loss=functional.cross_entropy, batch_size=8, workers=Workers(count=workers)
    )
    fit_(model, inputs, labels, settings, reporter=NullReporter(), stage="train", after_step=hold)
    assert torch.equal(model.body.weight == 0, like.body.weight == 0)
    assert int(model.position.count_nonzero()) == 6
    assert int(model.last.weight.count_nonzero()) == 4


def test_unknown_controls_are_refused_and_each_is_made_once() -> None:
    assert check_controls(["scratch", "random", "scratch"]) == ("random", "scratch")
    with pytest.raises(InputError, match=r"unknown control 'scrach'.*did you mean 'scratch'"):
        check_controls(["scrach"])
