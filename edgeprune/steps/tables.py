"""Operator tables: what the model's own operators cost on the device, many measured in one trip, each only once.

An operator's latency is the difference of two micro-models (`profiling/micro.py`) that are timed side by side. Tables
are kept beside the inventory by device fingerprint, runtime, precision, threads, cores, compiler versions and the code
that measures (`steps/measuring_code.py`), and the operator's shape: a second model that shares shapes costs nothing.

Weights that are stored in 16 bits are made float32 when a file is loaded and run by the same kernels: those places have
float32's table (a residual net, x86, one thread: 1.50 and 1.51 ms in ONNX Runtime, 1.31 and 1.30 in OpenVINO, 2.69 and
2.69 in TFLite).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.deployment.inventory import config_folder
from edgeprune.errors import BuildError, MeasurementError
from edgeprune.libraries import library_call
from edgeprune.profiling.micro import Company, MicroModel, micro_model
from edgeprune.profiling.slicing import SLICERS
from edgeprune.records.operators import OperatorShape, TableEntry
from edgeprune.records.profiled import ProfileRequest, Timing
from edgeprune.records.rung import Rung
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions
from edgeprune.steps.measuring_code import measuring_key
from edgeprune.steps.profiles import time_beside
from edgeprune.steps.session import DeviceSession
from edgeprune.store.artifacts import describe_files
from edgeprune.store.run_folder import digest
from edgeprune.store.tables import TableFile

_MOST_BRANCHES = 48
"""In one module: exporters take more than twice the time for twice the nodes."""
_CALIBRATION = 2
# In each of three processes; together they take as long as nine rounds of 15 ms in one.
_ROUNDS = 4
_ROUND_S = 0.011


class OperatorTables:
    """Prices operators at places of one device.

    Args:
        session: on the device.
        tell: hears how far it is.
        folder: where tables are kept; None for the user's.
    """

    def __init__(
        self, session: DeviceSession, tell: Callable[[str], None] = lambda _: None, folder: Path | None = None
    ) -> None:
        self._session = session
        self._tell = tell
        self._folder = folder or config_folder() / "operators"
        self._entries: dict[str, dict[str, TableEntry]] = {}
        self._refused: dict[tuple[str, str], str] = {}

    def ensure(self, shapes: Iterable[OperatorShape], place: Rung) -> int:
        """Have these operators in the table of a place; what is missing is measured together.

        Args:
            shapes: any, repeated ones once.
            place: runtime, precision, threads and cores; its pruning is not looked at.

        Returns:
            How many were measured now.

        Raises:
            NotInstalledError: the runtime's compiler is not installed on this host.
            MeasurementError: the device is busy or went away, or lacks the runtime.
        """
        place = _priced_at(place)
        known = self._known(place)
        missing = {s.name: s for s in shapes if s.name not in known and (place.name, s.name) not in self._refused}
        if not missing:
            return 0
        self._tell(f"{place.name}: measuring {len(missing)} operators")
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            with _one_thread():
                jobs = dict(self._compiled(tuple(missing.values()), place, Path(folder)))
            request = ProfileRequest(
                runtime=place.runtime, threads=place.threads, cpus=place.cpus, rounds=_ROUNDS, round_s=_ROUND_S
            )
            models = sorted((m for m in jobs if m.shape is not None), key=lambda model: model.base.name)
            timings = time_beside(self._session, request, [(jobs[m], jobs[m.base]) for m in models])
        entries = [e for m, t in zip(models, timings, strict=True) if (e := self._entry(m, place, t)) is not None]
        known.update({e.operator: e for e in entries})
        # What was disturbed is good enough to go on with, not to keep.
        self._file(place).add(e for e in entries if not e.disturbed)
        return len(entries)

    def entry(self, shape: OperatorShape, place: Rung) -> TableEntry:
        """What was measured of an operator; it is measured now where it is missing.

        Raises:
            BuildError: the runtime's compiler or the runtime refuses the operator; the message says why.
            NotInstalledError, MeasurementError: as for `ensure`.
        """
        place = _priced_at(place)
        self.ensure((shape,), place)
        if shape.name not in self._known(place):
            reason = self._refused[place.name, shape.name]
            raise BuildError(f"{place.name} cannot run {shape.name}: {reason}", operator=shape.name)
        return self._known(place)[shape.name]

    def latency_ms(self, shape: OperatorShape, place: Rung) -> float:
        """What an operator adds to the latency of a model; arguments and errors are those of `entry`."""
        return self.entry(shape, place).latency_ms

    def least_ms(self, place: Rung) -> float | None:
        """What the smallest model that was measured at a place takes; None where none was.

        A head alone, or with a stem: the runtime's own time is at most this.
        """
        return min((entry.alone_ms for entry in self._known(_priced_at(place)).values()), default=None)

    def _known(self, place: Rung) -> dict[str, TableEntry]:
        if place.name not in self._entries:
            self._entries[place.name] = self._file(place).read()
        return self._entries[place.name]

    def _file(self, place: Rung) -> TableFile:
        key = digest(measuring_key(place), compiler_versions(place))[:12]
        return TableFile(self._folder / self._session.facts.fingerprint[:16] / f"{place.name}-{key}.json")

    def _compiled(
        self, shapes: Sequence[OperatorShape], place: Rung, folder: Path
    ) -> Iterator[tuple[MicroModel, ProfileJob]]:
        """All micro-models and their bases, those of one input shape compiled together."""
        by_input: dict[Company, list[MicroModel]] = {}
        for model in map(micro_model, shapes):
            by_input.setdefault(replace(model.company, channels=0, added=False, kernel=()), []).append(model)
        parts = [
            # Operators of one company lie together, and so share their base.
            models[first : first + _MOST_BRANCHES]
            for models in (sorted(alike, key=_by_company) for alike in by_input.values())
            for first in range(0, len(models), _MOST_BRANCHES)
        ]
        for number, part in enumerate(parts):
            self._tell(f"{place.name}: compiling {number + 1} of {len(parts)}")
            yield from self._compiled_part(part, place, _numbered(folder, number))

    def _compiled_part(
        self, models: Sequence[MicroModel], place: Rung, folder: Path
    ) -> Iterator[tuple[MicroModel, ProfileJob]]:
        """An operator that the compiler refuses is found by halves."""
        import numpy as np

        from edgeprune.profiling.branches import Branches

        branches = tuple(dict.fromkeys((*models, *(m.base for m in models))))
        input_shape = branches[0].company.input_shape
        samples = np.random.default_rng(0).standard_normal((_CALIBRATION, *input_shape[1:]), dtype=np.float32)
        whole, parts = folder / "whole", folder / "parts"
        whole.mkdir()
        parts.mkdir()
        try:
            with library_call(f"{place.runtime}: not an operator"):
                module = Branches(branches)
            artifact = compile_artifact(CompileJob(module, input_shape, samples), place, whole)
            SLICERS.get(place.runtime).slice(whole / artifact.files[0].name, parts)
        except BuildError as error:
            if len(models) == 1:
                self._refused[place.name, models[0].name] = error.message
                return
            for number, half in enumerate((models[: len(models) // 2], models[len(models) // 2 :])):
                yield from self._compiled_part(half, place, _numbered(folder, number))
            return
        for number, model in enumerate(branches):
            sliced = describe_files(
                parts / str(number),
                tuple(f.name for f in artifact.files),
                runtime=place.runtime,
                precision=place.precision,
                inputs=artifact.inputs,
                outputs=artifact.outputs,
                file_format=artifact.format,
            )
            yield model, ProfileJob(folder=parts / str(number), artifact=sliced, input_shape=input_shape)

    def _entry(
        self, model: MicroModel, place: Rung, timings: tuple[Timing, Timing] | MeasurementError
    ) -> TableEntry | None:
        if isinstance(timings, MeasurementError):
            self._refused[place.name, model.name] = str(timings)
            return None
        found, alone = timings
        return TableEntry(
            operator=model.name,
            latency_ms=max(0.0, found.latency_ms - alone.latency_ms),
            alone_ms=alone.latency_ms,
            measured_unix_s=time.time(),
            disturbed=found.disturbed or alone.disturbed,
        )


def _priced_at(place: Rung) -> Rung:
    """The place whose table holds: how weights are stored is no matter of the kernels."""
    return replace(place.unpruned, precision=place.precision.arithmetic)


def _by_company(model: MicroModel) -> tuple[object, ...]:
    company = model.company
    return company.channels, company.kernel, company.added


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tracing runs hundreds of tiny layers, whose threads would only wait for one another: 4x on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _numbered(folder: Path, number: int) -> Path:
    own = folder / str(number)
    own.mkdir()
    return own
