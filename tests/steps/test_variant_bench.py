"""What one way to quantize is made and ranked from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compressors import compressor, compressor_of
from records_for_tests import make_block
from targets_for_tests import make_target
from task_targets import SCENES, TASKS

from edgeprune.records.quantization import DEFAULT_VARIANT, Calibration
from edgeprune.records.rung import Limits, Precision, Rung
from edgeprune.records.verdict import Floors
from edgeprune.steps import variants
from edgeprune.steps.compiling import scheme_of
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.looks import Look
from edgeprune.steps.variants import Quantizable, VariantBench
from edgeprune.steps.workbench import Workbench

INT8 = Rung(runtime="onnxruntime", precision=Precision.INT8)
UNTRAINED = {"training.epochs": 0}

# The second head has large weights for what is always zero: they take the steps from its others, and from nothing else.
UNEVEN = SCENES.replace(
    "    return Detector()",
    """    model = Detector()
    with torch.no_grad():
        model.deep.bias[0] = -1e3
        model.centre.weight[:, :36] = 100.0
    return model""",
)


def bench_of(one: Compressor, scratch: Path) -> VariantBench:
    subject = Quantizable(rung=INT8, model=one.dense, floors=Floors(), limits=Limits())
    return VariantBench(one.bench, one, subject, scratch)


def test_a_layer_that_hurts_the_second_output_alone_is_found(tmp_path: Path) -> None:
    made = make_target(tmp_path, target={**TASKS["scenes"][1], **UNTRAINED}, code=UNEVEN)
    (tmp_path / "scratch").mkdir()
    with compressor_of(made) as one:
        trials = bench_of(one, tmp_path / "scratch")
        ranking = trials.ranking(DEFAULT_VARIANT)
        (*_, centre) = scheme_of(INT8).layers(trials._float(DEFAULT_VARIANT))
    assert ranking.worst(1) == (centre,)


def test_variants_are_timed_beside_the_default_at_the_pace_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes twice as long as when the plan looked, because all does there, is not late."""
    times_ms, looked = list[float](), list[str]()

    def look(_: Workbench, __: Rung, path: str, ___: str) -> Look:
        looked.append(path)
        assert Path(path).is_file()
        return Look(make_block((round(1e6 * times_ms.pop(0)),) * 60))

    monkeypatch.setattr(variants, "quick_look", look)
    as_fast, slower, resumed = (replace(DEFAULT_VARIANT, calibration=c) for c in list(Calibration)[1:4])
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with compressor(tmp_path, target=UNTRAINED) as one:
        subject = replace(bench_of(one, tmp_path).subject, limits=Limits(p50_ms=0.12), p50_ms=0.10)
        trials = VariantBench(one.bench, one, subject, tmp_path / "first")
        times_ms += [0.20, 0.22, 0.20, 0.15, 0.10]
        found = [trials.trial(variant) for variant in (DEFAULT_VARIANT, as_fast)]
        # Others may take its place in the device's cache.
        shutil.rmtree(Path(looked[0]).parent)
        found.append(trials.trial(slower))
        assert [trial.p50_ms for trial in found] == pytest.approx([0.10, 0.11, 0.15])
        assert [bool(trial.over) for trial in found] == [False, False, True]
        assert looked[0] == looked[2] == looked[4]
        assert len(set(looked)) == 3
        # A build that goes on has the default's trial, and makes its file again to stand beside.
        later = VariantBench(one.bench, one, subject, tmp_path / "second")
        times_ms += [0.11, 0.10]
        assert later.trial(DEFAULT_VARIANT) == found[0]
        assert later.trial(resumed).p50_ms == pytest.approx(0.11)
        assert looked[-1] == looked[0]


def test_ranges_and_ranks_are_taken_from_training_examples_alone(tmp_path: Path) -> None:
    def rows(inputs: np.ndarray) -> set[bytes]:
        return {row.tobytes() for row in inputs}

    with compressor(tmp_path, target=UNTRAINED) as one:
        bench, data = one.bench, one.bench.data
        calibration, ranked = rows(bench.calibration), rows(bench_of(one, tmp_path)._held_out)
        train, validation, test = (rows(bench.prepared(s)) for s in (data.train, data.validation, data.test))
    assert (len(calibration), len(ranked)) == (16, 128)
    assert calibration | ranked <= train
    assert not (calibration | ranked) & (validation | test)
    assert not calibration & ranked
