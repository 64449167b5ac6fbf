"""A target that trains in a second and a profile that is easy to meet, for the tests that build."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest

import edgeprune.cli
from edgeprune.errors import MeasurementError

Result = TypeVar("Result")

StartCommand = Callable[[list[str]], subprocess.Popen[str]]

DISTURBED = {6, 9}
"""Exit codes after which the same command is to be given again."""

MODEL_CODE = '''
import numpy as np
import torch
from torch import nn

from edgeprune import DataSplits, Split


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.head = nn.Linear(32 * 9, 4)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.head(torch.flatten(x, 1))


def build_model():
    return TinyNet()


def load_data(seed):
    return DataSplits(
        train=_split(256, 1), validation=_split(96, 2), test=_split(64, 3), class_names=("nw", "ne", "sw", "se")
    )


def _split(count, seed):
    """One bright quarter of a noisy 12x12 image; the class tells which."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = generator.normal(0.0, 0.3, (count, 1, 12, 12)).astype(np.float32)
    for image, label in zip(images, labels):
        row, column = 6 * (label // 2), 6 * (label % 2)
        image[0, row : row + 6, column : column + 6] += 1.0
    return Split(images, labels)
'''

BLOCK_CODE = (
    MODEL_CODE.replace("return TinyNet()", "return Blocks()")
    + """

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.first, self.second = Block(), Block()
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.second(self.first(self.stem(x))).mean((2, 3)))
"""
)
"""Two residual blocks of one shape, the second of which gives its input back without its layers; the same data."""

TARGET_KEYS: Mapping[str, object] = {
    "schema": 1,
    "name": "tiny",
    "profiles": ["../bench-box.toml"],
    "model.factory": "model.py:build_model",
    "data.factory": "model.py:load_data",
    "training.learning_rate": 0.05,
    "training.epochs": 2,
    "training.batch_size": 16,
    "recovery.rounds": 1,
    "recovery.epochs": 1,
    "pruning.ratios": [0.5],
    "pruning.ignored": ["*"],
    "quantization.calibration_samples": 16,
    "accuracy.max_drop_points": 10.0,
    "accuracy.min_class_recall": 0.5,
}

# Latency limits are passed, or missed, by orders of magnitude; what a test shall decide by is the size.
PROFILE_KEYS: Mapping[str, object] = {
    "schema": 1,
    "name": "bench-box",
    "hardware.arch": "any",
    "hardware.cores": 1,
    "runtimes.onnxruntime.int8": False,
    "budget.p50_ms": 500.0,
    "budget.p99_ms": 2000.0,
    # So many that p99 can be bounded whatever the processes have in common.
    "measurement.min_runs": 3000,
    "measurement.looks": 2,
}


@dataclass(frozen=True)
class MadeTarget:
    """Paths of what `make_target` made."""

    folder: Path
    profile: Path
    runs: Path

    @property
    def run(self) -> Path:
        """The run folder of a build on `local`."""
        return self.runs / "tiny-bench-box-local"

    def arguments(self, command: str, *more: str) -> list[str]:
        """`edgeprune COMMAND` for this target and the profile that it names."""
        return [command, str(self.folder), "--output", str(self.runs), *more]


def make_target(
    folder: Path,
    *,
    target: Mapping[str, object] | None = None,
    profile: Mapping[str, object] | None = None,
    code: str = MODEL_CODE,
) -> MadeTarget:
    """Write `tiny/` and `bench-box.toml` into a folder.

    Args:
        folder: made when missing.
        target, profile: by dotted key, what is different in the file; None takes the key out.
        code: of `model.py`.
    """
    made = MadeTarget(folder=folder / "tiny", profile=folder / "bench-box.toml", runs=folder / "runs")
    made.folder.mkdir(parents=True, exist_ok=True)
    (made.folder / "model.py").write_text(code)
    (made.folder / "target.toml").write_text(toml_text({**TARGET_KEYS, **(target or {})}))
    made.profile.write_text(toml_text({**PROFILE_KEYS, **(profile or {})}))
    return made


def target_module(folder: Path) -> ModuleType:
    """The `model.py` of a target, imported."""
    spec = importlib.util.spec_from_file_location(f"{folder.name}_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def toml_text(values: Mapping[str, object]) -> str:
    """Dotted keys, a line each; None leaves one out."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None)


def run_until_decided(arguments: list[str], attempts: int = 3) -> int:
    """Run the command line in this process, again while the machine's other work disturbs the measurement."""
    for _ in range(attempts):
        code = edgeprune.cli.run(arguments)
        if code not in DISTURBED:
            break
    return code


def until_quiet(call: Callable[[], Result], attempts: int = 3) -> Result:
    """The same for a function of the API."""
    for _ in range(attempts - 1):
        try:
            return call()
        except MeasurementError as error:
            if error.facts.get("kind") != "disturbed":
                raise
    return call()


def _listen_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start_command() -> Iterator[StartCommand]:
    """Starts `edgeprune ...` in a process of its own; what runs or is unread after the test is ended and closed."""
    with ExitStack() as at_the_end:

        def start(arguments: list[str]) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "edgeprune", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "2"},
                # A run in the background of a shell ignores SIGINT, and so would its children.
                preexec_fn=_listen_to_interrupts,  # noqa: PLW1509 - no threads of ours run then
            )
            at_the_end.enter_context(process)
            at_the_end.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Inventory and work folder of these tests are not the user's; imported by the conftest of each room that asks."""
    home = tmp_path_factory.getbasetemp() / "edgeprune-home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_HOME", str(home / "config"))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        yield home
