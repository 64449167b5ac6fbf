"""Models with several outputs, and models that take token ids: every runtime compiles them, and the agent runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from models import seeded
from torch import Tensor, nn

from edgeprune.benchmarking.agent.device import sessions
from edgeprune.libraries import refuse_telemetry
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact
from edgeprune.steps.evaluating import noise_of, torch_outputs

each_runtime = pytest.mark.parametrize("runtime", RUNTIMES.names())


@pytest.fixture(autouse=True)
def _no_telemetry() -> None:
    refuse_telemetry()


class Heads(nn.Module):
    """Two outputs whose names are not in the order of the alphabet, of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(1, 8, 3, padding=1)
        self.scores = nn.Linear(8, 3)
        self.map = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.trunk(x))
        return {"scores": self.scores(x.mean(dim=(2, 3))), "map": self.map(x)}


class Tuple(Heads):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        found = super().forward(x)
        return found["scores"], found["map"]


class Words(nn.Module):
    """The mean of the words that are no padding, which is what the last half of an input may be."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids != 0).unsqueeze(-1).float()
        return self.head((self.embed(ids) * mask).sum(dim=1) / mask.sum(dim=1))


def test_outputs_are_of_eval_mode_and_each_module_keeps_its_own() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    net[1].eval()
    samples = np.random.default_rng(0).standard_normal((6, 4), dtype=np.float32)
    found = torch_outputs(net, samples)
    assert [module.training for module in net.modules()] == [True, True, False, True]
    with torch.no_grad():
        np.testing.assert_array_equal(found, net.eval()(torch.from_numpy(samples)).numpy())


def _ran(runtime: str, precision: Precision, model: nn.Module, samples: np.ndarray, folder: Path) -> list[np.ndarray]:
    job = CompileJob(model, (1, *samples.shape[1:]), samples)
    artifact = compile_artifact(job, Rung(runtime=runtime, precision=precision), folder)
    session = sessions.load(runtime, str(folder / artifact.files[0].name), precision.value, 1)
    rows = [session.results(session.run(session.prepare(sample))) for sample in samples[:, np.newaxis]]
    found = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    assert [spec.shape[1:] for spec in artifact.outputs] == [part.shape[1:] for part in found]
    assert artifact.inputs[0].dtype == samples.dtype.name
    return found


@pytest.mark.parametrize("precision", [Precision.FLOAT32, pytest.param(Precision.INT8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", [Heads, pytest.param(Tuple, marks=pytest.mark.slow)])
@each_runtime
def test_several_outputs_come_in_the_models_order(
    runtime: str, model: Callable[[], nn.Module], precision: Precision, tmp_path: Path
) -> None:
    net = seeded(model)
    samples = np.random.default_rng(0).standard_normal((16, 1, 6, 6), dtype=np.float32)
    expected = torch_outputs(net, samples)
    assert isinstance(expected, tuple)
    found = _ran(runtime, precision, net, samples, tmp_path)
    assert noise_of(tuple(found), expected) < (1e-5 if precision is Precision.FLOAT32 else 0.3)


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
@pytest.mark.parametrize("dtype", ["int64", pytest.param("int32", marks=pytest.mark.slow)])
@each_runtime
def test_token_ids_pass_as_they_are_and_padding_is_still_masked(
    runtime: str, dtype: str, precision: Precision, tmp_path: Path
) -> None:
    net = seeded(Words)
    samples = np.random.default_rng(0).integers(1, 20, (16, 7)).astype(dtype)
    samples[::2, 3:] = 0
    expected = torch_outputs(net, samples)
    (found,) = _ran(runtime, precision, net, samples, tmp_path)
    assert noise_of(found, expected) < (1e-5 if precision is Precision.FLOAT32 else 0.3)
