from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from compressors import compressor
from hypothesis import given
from hypothesis import strategies as st
from models import example_of, seeded
from torch import nn

import edgeprune
from edgeprune.data.splits import VOID
from edgeprune.errors import InputError
from edgeprune.events import Event, StageFinished, StageProgress, StageStarted
from edgeprune.protocols import ScoringData
from edgeprune.records.sensitivity import CurvePoint, GroupCurve
from edgeprune.steps.sensitivity import SensitivityBench, probe_widths


def _curve(*points: tuple[int, float], width: int = 64) -> GroupCurve:
    found = tuple(CurvePoint(width=w, loss_increase=loss, accuracy=0.9) for w, loss in sorted(points))
    return GroupCurve(group="g", width=width, points=found)


def test_loss_is_linear_between_the_points() -> None:
    curve = _curve((16, 1.0), (32, 0.4))
    assert curve.loss_at(64) == 0.0
    assert curve.loss_at(48) == pytest.approx(0.2)
    assert curve.loss_at(32) == pytest.approx(0.4)
    assert curve.loss_at(24) == pytest.approx(0.7)
    assert curve.loss_at(8) == 1.0


def test_a_cut_that_seems_to_help_counts_as_free() -> None:
    assert _curve((16, 0.5), (32, -0.1)).loss_at(32) == 0.0


points = st.lists(st.tuples(st.integers(1, 63), st.floats(-1, 5)), max_size=6, unique_by=lambda p: p[0])


@given(points, st.integers(1, 64), st.integers(1, 64))
def test_fewer_channels_never_lose_less(found: list[tuple[int, float]], one: int, other: int) -> None:
    curve = _curve(*found)
    narrow, wide = sorted((one, other))
    assert curve.loss_at(narrow) >= curve.loss_at(wide) - 1e-12
    assert curve.loss_at(wide) >= 0.0


def test_widths_to_probe() -> None:
    assert probe_widths(32, (0.25, 0.5, 0.75)) == (8, 16, 24)
    assert probe_widths(32, (0.25, 0.375, 0.5, 0.625, 0.75)) == (8, 16, 24)
    assert probe_widths(32, (0.5,)) == (16,)
    assert probe_widths(2, (0.25, 0.5, 0.75)) == (1,)
    assert probe_widths(1, (0.5,)) == ()


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        if getattr(event, "stage", "") == "sensitivity":
            self.events.append(event)


def test_how_many_curves_are_taken_is_told_and_kept_ones_are_taken_over(tmp_path: Path) -> None:
    kept: list[bool] = []
    for _ in range(2):
        heard = Heard()
        with compressor(tmp_path, heard) as made:
            found = SensitivityBench(made).measure()
        total = len(found.curves) + len(found.blocks)
        assert total > 1
        assert StageStarted(stage="sensitivity", total=total, unit="groups and blocks") in heard.events
        done = [e.done for e in heard.events if isinstance(e, StageProgress)]
        assert done == list(range(1, total + 1))
        ended = [e for e in heard.events if isinstance(e, StageFinished)]
        assert [e.subject for e in ended][-1] == ""
        kept.append(ended[-1].cached)
    assert kept == [False, True]


def test_the_curves_of_a_build_are_those_that_anybody_can_take(tmp_path: Path) -> None:
    with compressor(tmp_path) as made:
        wanted = SensitivityBench(made).measure()
        bench, model = made.bench, made.dense_module
    train = (torch.from_numpy(bench.train_inputs), torch.from_numpy(bench.data.train.labels))
    data = ScoringData(batches=(train,), loss=torch.nn.functional.cross_entropy)
    found = edgeprune.sensitivity(
        model, bench.validation_inputs, bench.data.validation.labels, ratios=(0.5,), data=data
    )
    assert found.curves
    assert found == wanted


def test_curves_of_masks_have_errors_where_an_example_has_no_label_that_counts() -> None:
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)))
    generator = torch.Generator().manual_seed(0)
    inputs, masks = torch.randn(6, 3, 8, 8, generator=generator), torch.randint(2, (6, 8, 8), generator=generator)
    masks[0] = VOID
    cross_entropy = torch.nn.functional.cross_entropy
    found = edgeprune.sensitivity(net, inputs, masks, ratios=(0.5,), loss=cross_entropy, metric="mean_iou")
    assert [0 < point.error < 1 for point in found.curve("0").points] == [True]


def test_curves_alone_leave_the_model_alone_and_refuse_what_means_nothing() -> None:
    model, _ = example_of("resnet")
    data = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 5
    before = copy.deepcopy(model.state_dict())
    found = edgeprune.sensitivity(model, *data, ratios=(0.25, 0.75), ignored=["stem"])
    assert [p.width for p in found.curve("layer2.0.conv1").points] == [4, 12]
    assert "stem" not in {c.group for c in found.curves}
    assert "layer1.0" in {b.block for b in found.blocks}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for wrong, message in (
        ({"ratios": (0.5, 1.0)}, "ratios: expected numbers between 0 and 1"),
        ({"criterion": "tailor"}, "did you mean 'taylor'"),
        ({"criterion": "taylor"}, "at least one batch"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
    ):
        with pytest.raises(InputError, match=message):
            edgeprune.sensitivity(model, *data, **wrong)
