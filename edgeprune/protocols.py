"""What two rooms agree on. A stage never imports another stage: it takes one of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from edgeprune.records.quantization import DEFAULT_VARIANT

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from edgeprune.records.artifact import TensorSpec
    from edgeprune.records.measurement import DeviceFacts
    from edgeprune.records.memory import Schedule
    from edgeprune.records.quantization import Preparation, QuantizationVariant
    from edgeprune.records.rung import Precision
    from edgeprune.records.sparsity import SparsePath
    from edgeprune.records.verdict import Evidence, GateResult
    from edgeprune.schema.device import DeviceSpec

Arrays: TypeAlias = "np.ndarray | tuple[np.ndarray, ...]"
"""One array, or a tuple of several: the outputs of a model, and the labels of its examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """A command that ended on the device. `returncode` is negative for a signal, -1 for an unknown one."""

    returncode: int
    stdout: str
    stderr: str


class Connection(Protocol):
    """A way to run commands and move files on one device. Paths there are POSIX strings."""

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_line: Callable[[str], None] | None = None
    ) -> CommandResult:
        """Run a command to its end, both streams read as they come.

        Args:
            argv: program and arguments; no shell interprets them.
            timeout_s: the command's whole process group is killed after this long, and when the client leaves.
            on_line: called with each line of stdout as it arrives, without its newline.

        Raises:
            DeviceTimeoutError: the deadline passed.
            DeployError: the connection broke, or the program could not be started at all (then the fact
                `program` names it).
        """
        ...

    def put(self, source: Path, destination: str, *, offset: int = 0) -> None:
        """Copy a file to the device under exactly this name; parent folders are made.

        Args:
            source: on this host.
            destination: on the device.
            offset: bytes of it that are there already and stay; the rest is sent after them.

        Raises:
            DeployError: with the reason: disk full, no permission, connection lost.
        """
        ...

    def get(self, source: str, destination: Path) -> None:
        """Copy a file from the device; the local file appears by atomic rename."""
        ...

    def close(self) -> None:
        """End the connection; calling it again does nothing."""
        ...


class Connector(Protocol):
    """One file of `deployment/connections/`, ending with `CONNECTOR: Final[Connector] = ...`."""

    def connect(self, device: DeviceSpec) -> Connection:
        """Open a connection.

        Raises:
            HostKeyError: the host key is not the pinned one.
            DeployError: unreachable, refused, or no usable identity.
        """
        ...


class Runtime(Protocol):
    """One file of `runtimes/`, ending with `RUNTIME: Final[Runtime] = ...`. Its name is the file's name.

    The part that runs on the device is `benchmarking/agent/device/<name>_session.py`.
    """

    def versions(self) -> tuple[tuple[str, str], ...]:
        """(distribution, version) of every library that has a say in the compiled file.

        Raises:
            NotInstalledError: one is missing on this host; the message has the `pip install` that brings it.
        """
        ...

    def precisions(self, device: DeviceFacts) -> tuple[Precision, ...]:
        """What it can compute in on that device, float32 first, cheapest in accuracy next.

        With `FLOAT32_W16` where its scheme can store weights in float16, and the runtime computes in float32 then.
        """
        ...

    def compile(self, model: nn.Module, inputs: TensorSpec, folder: Path) -> CompiledFiles:
        """Write a float32 artifact of an eval-mode torch model into an empty folder.

        The caller's model is left alone. Input and output names and shapes are those that the file declares.

        Raises:
            BuildError: the runtime's converter refuses the model; the message names the operator where it is known.
        """
        ...

    def open_file(self, path: Path) -> CompiledFiles | None:
        """Describe a model file that somebody else compiled; None where it is not of this runtime's format.

        Raises:
            NotInstalledError: the runtime is not installed on this host.
            BuildError: the file has the right suffix and cannot be read.
        """
        ...

    def int8_scheme(self) -> str:
        """Name of the file in `quantization/schemes/` that makes its other artifacts from its float32 one."""
        ...

    def sparse_form(self) -> SparseForm | None:
        """What its sparse kernels need; None where it has none that we know of, so that zeros stay in dense files."""
        ...


class SparseForm(Protocol):
    """The storage that a runtime's sparse kernels need, and the rule by which they are taken."""

    def refusals(self, device: DeviceFacts) -> tuple[str, ...]:
        """Why no file at all runs sparse on that device, with the source; empty where one may."""
        ...

    def skips(self, layer: nn.Module) -> bool:
        """Whether zeros in this torch layer's weight are skipped by, or count for, the sparse kernels."""
        ...

    def store(self, source: CompiledFiles, folder: Path) -> CompiledFiles:
        """Write a compiled artifact again into an empty folder, its weights in sparse storage; it computes the same.

        Raises:
            BuildError: the file cannot be rewritten.
        """
        ...

    def check(self, files: CompiledFiles, device: DeviceFacts) -> SparsePath:
        """Whether this very file would run sparse on that device, and if not every reason why."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFiles:
    """What a compiler or a quantization scheme left in a folder; the first file is the one to open."""

    folder: Path
    names: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    format: str


class Scheme(Protocol):
    """One file of `quantization/schemes/`, ending with `SCHEME: Final[Scheme] = ...`."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """(distribution, version) of every library that has a say in the result.

        Raises:
            NotInstalledError: one is missing on this host.
        """
        ...

    def refusal(self, variant: QuantizationVariant) -> str | None:
        """Why it cannot make a variant, whatever the model; None where it can."""
        ...

    def needs(self, variant: QuantizationVariant) -> frozenset[Preparation]:
        """What it leaves to be done on the torch model before that is compiled."""
        ...

    def layers(self, source: CompiledFiles) -> Mapping[str, np.ndarray]:
        """The layers with weights of a float32 file, in its order, and their weights in the file's own layout.

        The names are what `QuantizationVariant.float_layers` may have. Weights that are computed have no elements.

        Raises:
            BuildError: the file cannot be read.
        """
        ...

    def quantize(
        self,
        source: CompiledFiles,
        calibration: np.ndarray,
        folder: Path,
        variant: QuantizationVariant = DEFAULT_VARIANT,
    ) -> CompiledFiles:
        """Write the quantized artifact of a float32 one into an empty folder; full-integer INT8 unless told otherwise.

        Args:
            source: what the runtime's `compile` returned, of a model that was prepared as `needs` says.
            calibration: [samples, *input shape without the batch], float32, preprocessed.
            folder: where to write; exists and is empty.
            variant: how.

        Raises:
            BuildError: the quantizer refuses the model or the variant.
        """
        ...


class Slicer(Protocol):
    """One file of `profiling/slicing/`, ending with `SLICER: Final[Slicer] = ...`; named as the runtime."""

    def slice(self, source: Path, folder: Path) -> int:
        """Cut a compiled model at its last concatenation into one model for each tensor that is joined.

        Args:
            source: the file to open, as the runtime's compiler or its quantizer wrote it; it has one input.
            folder: empty; a folder `0`, `1`, ... is made in it for each branch in the order of the concatenation, with
                files of the same names as the source's.

        Returns:
            How many branches there are.

        Raises:
            BuildError: the model has no concatenation, or cannot be read.
        """
        ...


class ScheduleReader(Protocol):
    """One file of `profiling/schedules/`, ending with `SCHEDULE: Final[ScheduleReader] = ...`; named as the runtime."""

    def read(self, source: Path, precision: Precision) -> Schedule:
        """The order in which the runtime runs the operators of a compiled file, and the tensors that live meanwhile.

        Args:
            source: the file to open.
            precision: that it is run in.

        Raises:
            NotInstalledError: the runtime is not installed on this host.
            BuildError: it does not run the file.
        """
        ...


class Granularity(StrEnum):
    """What a criterion gives a score to."""

    WEIGHT = "weight"
    """Each single weight: a tensor of the weight's shape."""
    OUT_CHANNEL = "output channel"
    """Each output channel of a layer, [out_channels]; of a norm, its channels."""
    IN_CHANNEL = "input channel"
    """Each channel that a layer reads, [in_channels]: a channel is worth what those who read it make of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoringData:
    """What criteria that look at data are given; from the training split, never validation or test.

    Attributes:
        batches: (inputs [examples, ...], labels [examples, ...] or a tuple of such), preprocessed.
        loss: of (what the model returns, labels), the mean over the examples of the batch, or over those of their
            labels that count.
        learning_rate: for criteria that train a copy.
        counted: of labels: over how many of each example's the loss is a mean, [examples], such as the pixels of a mask
            that are not VOID; None where all examples count alike.
    """

    batches: tuple[tuple[Tensor, Tensor | tuple[Tensor, ...]], ...]
    loss: Callable[..., Tensor]
    learning_rate: float = 0.01
    counted: Callable[[Tensor | tuple[Tensor, ...]], Tensor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoringTask:
    """What to score.

    Attributes:
        model: left alone, and in the mode it was in.
        layers: names of convolutions, linear layers and norms of it.
        granularity: one of the criterion's.
        data: for criteria with `needs_data`.
        seed: for criteria that draw at random; the others ignore it.
        heads: (layer, attention heads) of layers whose input channels are so many heads of equal width.
    """

    model: nn.Module
    layers: tuple[str, ...]
    granularity: Granularity
    data: ScoringData | None = None
    seed: int = 0
    heads: tuple[tuple[str, int], ...] = ()


class Criterion(Protocol):
    """One file of `pruning/criteria/`, ending with `CRITERION: Final[Criterion] = ...`."""

    @property
    def granularities(self) -> frozenset[Granularity]:
        """What it can score."""
        ...

    @property
    def needs_data(self) -> bool:
        """Whether the task must have data."""
        ...

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """Score a model's layers; a higher score means keep.

        Returns:
            By layer, float32, without a gradient. Weights are taken as [out_channels, in_channels, *kernel], those of
            transposed convolutions too. Layers that the criterion does not look at, such as norms, are left out.

        Raises:
            InputError: the task has no data and the criterion needs some.
            BuildError: a layer cannot be scored; the message names it.
        """
        ...


class Gate(Protocol):
    """One file of `gating/gates/`, ending with `GATE: Final[Gate] = ...`."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge from the evidence alone; None where no limit is set for this gate."""
        ...


class Metric(Protocol):
    """One file of `data/metrics/`, ending with `METRIC: Final[Metric] = ...`."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value is a better model."""
        ...

    @property
    def is_share(self) -> bool:
        """Whether values lie in [0, 1]: then they are told in percent, and lost in percentage points."""
        ...

    def values(self, outputs: Arrays, labels: Arrays) -> np.ndarray:
        """One number an example; the mean over the examples is what a model is judged by.

        Args:
            outputs: of the model, float32, the examples along the first dimension; a tuple where it has several.
            labels: as the target's data have them.

        Returns:
            [examples], float64.

        Raises:
            InputError: the shapes are none that the metric knows.
        """
        ...


class Validate(Protocol):
    """How good a model is on validation data: what the best epoch of a training is chosen by."""

    def __call__(self, model: nn.Module) -> float:
        """The higher, the better; the model may be in eval mode afterwards."""
        ...

    def told(self, quality: float) -> str:
        """What was called, for people: `accuracy 97.25 %`."""
        ...
