"""What one way to quantize is made and ranked from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from compressors import compressor, compressor_of
from targets_for_tests import make_target
from task_targets import SCENES, TASKS

from edgeprune.records.quantization import DEFAULT_VARIANT
from edgeprune.records.rung import Limits, Precision, Rung
from edgeprune.records.verdict import Floors
from edgeprune.steps.compiling import scheme_of
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.variants import Quantizable, VariantBench

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
