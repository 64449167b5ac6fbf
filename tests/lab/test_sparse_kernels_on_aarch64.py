"""XNNPACK's sparse kernels on an emulated aarch64 device: taken where the rule says so, and not where it does not.

`make test-lab EDGELAB=path/to/edgelab`; `-o log_cli=true -o log_cli_level=INFO` shows the figures.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sparse_models import compile_sparse, separable_net, with_zeros
from torch import nn

from edgeprune.records.rung import Precision, Rung
from edgeprune.records.sparsity import SparsePath
from edgeprune.runtimes import RUNTIMES
from edgeprune.schema.device import DeviceSpec
from edgeprune.statistics import quantile
from edgeprune.steps.session import DeviceSession, open_session
from edgeprune.store.artifacts import describe_files

_log = logging.getLogger(__name__)
pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

IMAGE = (1, 3, 64, 64)
FLOAT = Rung(runtime="tflite", precision=Precision.FLOAT32)


@pytest.fixture(scope="module")
def device(arm_device: DeviceSpec) -> Iterator[DeviceSession]:
    with open_session(arm_device) as session:
        yield session


@dataclass(frozen=True)
class Seen:
    """One net on the device: dense against sparse file.

    Attributes:
        speedup: p50 of the dense file over that of the sparse one, the least of two turns; None where not timed.
        difference: largest one of their outputs, as a share of their range.
        identical: not a bit of the outputs differs, so that the same kernels ran.
    """

    path: SparsePath
    speedup: float | None
    difference: float
    identical: bool


def look(device: DeviceSession, model: nn.Module, folder: Path, *, turns: int = 0) -> Seen:
    sparse = compile_sparse(model, IMAGE, folder)
    form = RUNTIMES.get("tflite").sparse_form()
    assert form is not None
    samples = np.random.default_rng(0).standard_normal((2, *IMAGE[1:])).astype(np.float32)
    samples_there = device.place_samples(samples)
    there = {}
    for name in ("dense", "sparse"):
        artifact = describe_files(
            folder / name, sparse.names, runtime="tflite", precision=FLOAT.precision,
            inputs=sparse.inputs, outputs=sparse.outputs, file_format=sparse.format,
        )  # fmt: skip
        there[name] = device.place(folder / name, artifact)
    outputs = {name: device.infer(FLOAT, path, samples) for name, path in there.items()}
    ratios = []
    for _ in range(turns):
        p50 = {n: quantile(device.block(FLOAT, p, samples_there, 10).samples_ns, 0.5) for n, p in there.items()}
        ratios.append(p50["dense"] / p50["sparse"])
    difference = float(np.abs(outputs["dense"] - outputs["sparse"]).max() / np.ptp(outputs["dense"]))
    seen = Seen(
        path=form.check(sparse, device.facts),
        speedup=min(ratios, default=None),
        difference=difference,
        identical=bool((outputs["dense"] == outputs["sparse"]).all()),
    )
    _log.info("%s: %s, off by %.1e; %s %s", folder.name, ratios, difference, seen.path.reasons, seen.path.wrong)
    return seen


def test_a_mobilenet_with_nine_of_ten_weights_zero_runs_sparse(device: DeviceSession, tmp_path: Path) -> None:
    seen = look(device, with_zeros(separable_net(128, classes=100), 0.9), tmp_path / "good", turns=2)
    assert seen.path.taken
    # Another order of summation: other kernels.
    assert not seen.identical
    assert seen.difference < 1e-5
    assert seen.speedup is not None
    assert seen.speedup > 1.3


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        ("half", with_zeros(separable_net(128, classes=100), 0.5), "and more than two thirds must be"),
        (
            "dense-classifier",
            with_zeros(separable_net(64, classes=1000), 0.9, classifier=False),
            "which could come from #12 FULLY_CONNECTED 128->1000 (has 128,000 of 128,000 left)",
        ),
        (
            "stem-of-stride-1",
            with_zeros(separable_net(64, classes=100, stride=1), 0.9),
            "is a dense 3x3 convolution of 3 channels with stride (1, 1)",
        ),
    ],
)
def test_where_the_rule_is_missed_the_dense_kernels_run(
    device: DeviceSession, name: str, model: nn.Module, reason: str, tmp_path: Path
) -> None:
    seen = look(device, model, tmp_path / name)
    assert reason in "; ".join(seen.path.reasons)
    assert seen.identical


def test_an_image_that_leaves_a_cluster_is_wrong_there(device: DeviceSession, tmp_path: Path) -> None:
    # A defect of XNNPACK: when this fails, a newer one has mended it, and `_Clusters.spilt` can go.
    net = separable_net(64, classes=100, middle=nn.Conv2d(64, 64, 3, padding=1))
    seen = look(device, with_zeros(net, 0.9), tmp_path / "spilt")
    assert seen.path.wrong
    assert seen.difference > 1e-3
