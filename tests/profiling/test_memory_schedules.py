from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from models import seeded
from torch import Tensor, nn

from edgeprune.errors import BuildError
from edgeprune.profiling.schedules import SCHEDULES
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.memory import LiveTensor, Schedule
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact

RUNTIME_NAMES = RUNTIMES.names()


class Residual(nn.Module):
    """A residual branch without norms: the peak is at its second convolution. Input [n, 3, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.conv2(torch.relu(self.conv1(x))))
        return self.head(x.mean(dim=(2, 3)))


def compiled(model: nn.Module, shape: tuple[int, ...], runtime: str, folder: Path) -> Path:
    files = RUNTIMES.get(runtime).compile(model, TensorSpec(name="input", shape=shape, dtype="float32"), folder)
    return files.folder / files.names[0]


def test_the_registry_has_a_reader_for_every_runtime() -> None:
    assert SCHEDULES.names() == RUNTIME_NAMES


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_the_peak_of_a_residual_branch_by_hand(runtime: str, tmp_path: Path) -> None:
    path = compiled(seeded(Residual), (1, 3, 16, 16), runtime, tmp_path)
    schedule = SCHEDULES.get(runtime).read(path, Precision.FLOAT32)
    # The input, which the caller holds; the stem's output, for the addition; both sides of the second convolution.
    assert schedule.peak_bytes == 4 * 256 * (3 + 8 + 16 + 8)
    weights = 8 * (27 + 1) + 16 * (72 + 1) + 8 * (144 + 1) + 5 * (8 + 1)
    # With a few small constants beside them: the shape of a flatten, the axes of a mean.
    assert 4 * weights <= schedule.weight_bytes <= 4 * weights + 200
    assert schedule.peak_bytes + schedule.weight_bytes >= max(t.size_bytes for t in schedule.tensors) + 4 * weights


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_tensors_of_an_int8_file_have_a_byte_an_element(runtime: str, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal((4, 3, 16, 16), dtype=np.float32)
    job = CompileJob(seeded(Residual), (1, 3, 16, 16), samples)
    artifact = compile_artifact(job, Rung(runtime=runtime, precision=Precision.INT8), tmp_path)
    schedule = SCHEDULES.get(runtime).read(tmp_path / artifact.files[0].name, Precision.INT8)
    # The first convolution's output: 8 channels of 16x16.
    first = next(t for t in schedule.tensors if t.elements == 8 * 256)
    assert first.size_bytes == 8 * 256
    assert schedule.weight_bytes < artifact.size_bytes
    # Some layers may stay in float, and copies are made for those; but not all of them.
    assert schedule.peak_bytes < 4 * 256 * (3 + 8 + 16 + 8)


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_a_file_that_is_none_is_told(runtime: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"no model")
    with pytest.raises(BuildError, match=f"{runtime}: cannot read the schedule of"):
        SCHEDULES.get(runtime).read(path, Precision.FLOAT32)


def test_live_bytes_by_hand() -> None:
    def tensor(elements: int, element_bytes: float, first: int, last: int) -> LiveTensor:
        return LiveTensor(name="", elements=elements, element_bytes=element_bytes, first=first, last=last)

    schedule = Schedule(
        steps=("a", "b", "c"),
        tensors=(tensor(10, 4, 0, 2), tensor(100, 1, 0, 1), tensor(50, 1, 1, 2), tensor(3, 0.5, 2, 2)),
        weight_bytes=7,
    )
    assert schedule.live_bytes == (140, 190, 91.5)
    assert schedule.peak_bytes == 190
    assert Schedule(steps=(), tensors=(), weight_bytes=0).peak_bytes == 0
