"""What the steps of one build share: the inputs, the run folder, the device, and what is loaded only when needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edgeprune.data.preprocessing import preprocess
from edgeprune.data.splits import DataSplits, Split
from edgeprune.events import Noted, Reporter, StageFinished, StageStarted
from edgeprune.graph.blocks import Blocks, find_blocks
from edgeprune.graph.groups import Groups
from edgeprune.libraries import raise_if_interrupted
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.quantization.calibration import calibration_samples
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import DeviceProfile
from edgeprune.schema.target import TargetSpec
from edgeprune.steps.cuttable import cuttable_groups
from edgeprune.steps.feature_layers import compared_layers
from edgeprune.steps.inputs import Target, code_digest, tool_versions
from edgeprune.steps.session import FROZEN_SAMPLES, DeviceSession
from edgeprune.steps.task import Task, task_of
from edgeprune.store.run_folder import RunFolder, digest, step_name

if TYPE_CHECKING:
    from torch import Tensor, nn

Record = TypeVar("Record")

_OF_THE_DATA = (
    "data",
    "data_key",
    "train_inputs",
    "validation_inputs",
    "calibration",
    "frozen_samples",
    "samples_path",
)
"""What a bench has loaded that no other way to prune or train changes."""


@dataclass(slots=True)
class SeenShapes:
    """What untrained shapes showed in one session.

    One that was measured while the device was disturbed is not kept in the run folder, and must not give two answers
    to one search.

    Attributes:
        figures: by key.
        baseline: the dense model that a p50 speedup is of; None until the plan knows it, or where none is asked for.
    """

    figures: dict[str, ShapeFigures] = field(default_factory=dict)
    baseline: ShapeFigures | None = None


@dataclass(frozen=True)
class Workbench:
    """One build's shared things. Made by the loop, handed to every step.

    Attributes:
        device: the session on the device that is built for.
        host: the session on this host, where accuracy and parity are taken.
        workers: processes that train together.
        seen: what untrained shapes showed.
    """

    target: Target
    profile: DeviceProfile
    device_spec: DeviceSpec
    run: RunFolder
    reporter: Reporter
    device: DeviceSession
    host: DeviceSession
    workers: int = 1
    seen: SeenShapes = field(default_factory=SeenShapes, repr=False, compare=False)

    def with_spec(self, spec: TargetSpec) -> Workbench:
        """The same bench for a target that is pruned or trained otherwise; data that are loaded are shared."""
        other = replace(self, target=replace(self.target, spec=spec))
        other.__dict__.update({name: self.__dict__[name] for name in _OF_THE_DATA if name in self.__dict__})
        return other

    @cached_property
    def data(self) -> DataSplits:
        """The target's data, checked."""
        return self.target.load_data()

    @cached_property
    def task(self) -> Task:
        """What the model's outputs are judged by."""
        return task_of(self.target, self.data)

    @cached_property
    def data_key(self) -> str:
        """Identity of the data, of what is done to it before the model sees it, and of what it is judged by."""
        spec = self.target.spec
        parts = [part.model_dump(mode="json") for part in (spec.preprocessing, spec.task)]
        # A metric of the target's own is code; nobody knows which of its files it uses.
        code = self.target.identity if ".py:" in spec.task.metric else ()
        return digest(self.data.identity(), *parts, [f for f in code if f[0].endswith(".py")])

    @cached_property
    def train_inputs(self) -> np.ndarray:
        """The training split as the model takes it."""
        return self.prepared(self.data.train)

    @cached_property
    def validation_inputs(self) -> np.ndarray:
        """The validation split as the model takes it."""
        return self.prepared(self.data.validation)

    @cached_property
    def calibration(self) -> np.ndarray:
        """What quantizers look at: a part of the training split, never validation or test."""
        spec = self.target.spec
        count = spec.quantization.calibration_samples
        return calibration_samples(self.data.train, spec.preprocessing, count, spec.seed)

    @cached_property
    def frozen_samples(self) -> np.ndarray:
        """Real inputs that a benchmark cycles through."""
        return self.calibration[:FROZEN_SAMPLES]

    @cached_property
    def samples_path(self) -> str:
        """Where those inputs lie on the device."""
        return self.device.place_samples(self.frozen_samples)

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Of the model's input, with the batch of 1 in front."""
        return (1, *self.frozen_samples.shape[1:])

    @cached_property
    def example(self) -> Tensor:
        """One real input."""
        import torch

        return torch.from_numpy(self.frozen_samples[:1].copy())

    @cached_property
    def groups(self) -> Groups:
        """The channel groups that can be cut, each proved by a trial cut and scored by the criterion."""
        return cuttable_groups(self.fresh_model(), self.example, self.target.spec.pruning)

    @cached_property
    def blocks(self) -> Blocks:
        """The residual blocks that can be removed whole; none where the target forbids it."""
        spec = self.target.spec
        if not spec.pruning.blocks:
            return Blocks()
        model, groups, needed = self.fresh_model(), self.groups.groups, compared_layers(spec)
        return find_blocks(model, self.example, groups, spec.pruning.ignored, needed=needed)

    @cached_property
    def model_key(self) -> str:
        """Identity of the model's code, weights and seed, and of the torch that runs them."""
        files = [(n, h) for n, h in self.target.identity if n != "target.toml"]
        spec = self.target.spec
        parts = [part and part.model_dump(mode="json") for part in (spec.model, spec.teacher)]
        return digest(files, *parts, spec.seed, dict(tool_versions()).get("torch"))

    def fresh_model(self) -> nn.Module:
        """The factory's model, with pretrained weights where the target names some."""
        from edgeprune.graph.weights import load_weights_

        model = self.target.build_model()
        weights = self.target.weights_path()
        if weights is not None:
            load_weights_(model, weights)
        return model

    def prepared(self, split: Split) -> np.ndarray:
        """A split's inputs as the model takes them, [examples, ...]."""
        return preprocess(split.inputs, self.target.spec.preprocessing)

    def note(self, message: str, level: str = "info") -> None:
        """Tell the person something."""
        self.reporter.emit(Noted(message=message, level=level))

    def has_step(self, stage: str, subject: str, key: str) -> bool:
        """Whether `step` would take it from the run folder."""
        return self.run.is_done(step_name(stage, subject), digest(key, code_digest()))

    def step(
        self,
        stage: str,
        subject: str,
        key: str,
        kind: type[Record],
        make: Callable[[Path], Record],
        summary: Callable[[Record], str] = lambda _: "",
    ) -> Record:
        """Make a step, or take it from the run folder; either way the person is told.

        Args:
            stage: what is done, such as `measure`.
            subject: to what, such as a rung's name.
            key: digest of all that the outcome depends on.
            kind: class of the record.
            make: called with an empty folder; returns the record.
            summary: one short figure for the line that is shown.

        Raises:
            KeyboardInterrupt: there was a Ctrl-C before; and what `make` raises.
        """
        raise_if_interrupted()
        name = step_name(stage, subject)
        key = digest(key, code_digest())
        cached = self.run.is_done(name, key)
        with self._told(stage, subject, cached=cached) as tell:
            record = self.run.step(name, key, kind, make)
            tell(summary(record))
        return record

    @contextmanager
    def _told(self, stage: str, subject: str, *, cached: bool) -> Iterator[Callable[[str], None]]:
        started = time.monotonic()
        said: list[str] = []
        if not cached:
            self.reporter.emit(StageStarted(stage=stage, subject=subject))
        yield said.append
        self.reporter.emit(
            StageFinished(
                stage=stage,
                subject=subject,
                summary="".join(said),
                seconds=time.monotonic() - started,
                cached=cached,
            )
        )
