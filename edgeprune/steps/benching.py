"""Measuring one artifact for its own sake: `edgeprune bench`."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.clustering import ProcessSamples
from edgeprune.cpu_list import format_cpus
from edgeprune.errors import InputError, MeasurementError
from edgeprune.events import Noted, Reporter
from edgeprune.gating.judge import judge
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.result import BenchResult
from edgeprune.records.rung import Limits, Precision, Rung
from edgeprune.records.verdict import Evidence, Floors
from edgeprune.runtimes import RUNTIMES
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.statistics import percentile, quantile, summarise
from edgeprune.steps.health import ready_session
from edgeprune.steps.measuring import Campaign, Subject, measure
from edgeprune.steps.session import FROZEN_SAMPLES
from edgeprune.store.artifacts import MANIFEST, describe_files, read_manifest
from edgeprune.units import ms_from_ns

if TYPE_CHECKING:
    import numpy as np

ESTIMATE_RUNS = 20
"""Timed before anything is counted, for the length of a block."""


def bench_subject(path: Path, threads: int | None = None, cpus: tuple[int, ...] | None = None) -> Subject:
    """What a path names: an artifact folder of ours, or a model file of anybody's.

    Args:
        path: a folder or a file.
        threads: None for those of the manifest, or 1.
        cpus: cores to run on, as many as threads; empty for the last ones, None for those of the manifest.

    Raises:
        InputError: nothing there, no runtime opens such a file, or not as many cores as threads.
    """
    if path.is_dir():
        manifest = read_manifest(path)
        rung = manifest.rung
        if threads not in {None, rung.threads}:
            # The cores were chosen for another number of threads.
            rung = replace(rung, threads=threads, cpus=())
        rung = _placed(rung, cpus)
        return Subject(rung=rung, artifact=manifest.artifact, folder=path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file or folder; expected an artifact folder with {MANIFEST}, or a model file"
        )
    for name in RUNTIMES.names():
        opened = RUNTIMES.get(name).open_file(path)
        if opened is not None:
            rung = Rung(runtime=name, precision=Precision.FLOAT32, threads=threads or 1)
            artifact = describe_files(
                path.parent,
                opened.names,
                runtime=name,
                precision=rung.precision,
                inputs=opened.inputs,
                outputs=opened.outputs,
                file_format=opened.format,
            )
            return Subject(rung=_placed(rung, cpus), artifact=artifact, folder=path.parent)
    raise InputError(f"{path}: no runtime opens a {path.suffix or 'nameless'} file; expected .onnx, .tflite or .xml")


def _placed(rung: Rung, cpus: tuple[int, ...] | None) -> Rung:
    """On these cores; None leaves it where it is."""
    if cpus is None:
        return rung
    chosen = tuple(sorted(set(cpus)))
    if chosen and len(chosen) != rung.threads:
        raise InputError(f"cpus: expected as many cores as threads, {rung.threads}, got {format_cpus(chosen)}")
    return replace(rung, cpus=chosen)


def bench_artifact(
    subject: Subject, device: DeviceSpec, policy: MeasurementPolicy, limits: Limits, reporter: Reporter
) -> BenchResult:
    """Measure on a device and judge by the limits; seeded normal noise is the input.

    Raises:
        DeployError: the device could not be reached or could not take the files.
        MeasurementError: it does not run there, or no block could be taken in time.
    """
    return bench_with_evidence(subject, device, policy, limits, reporter)[0]


def bench_with_evidence(
    subject: Subject, device: DeviceSpec, policy: MeasurementPolicy, limits: Limits, reporter: Reporter
) -> tuple[BenchResult, Evidence]:
    """The same, and what it was judged by, to be judged again at another confidence.

    Raises:
        DeployError: the device could not be reached or could not take the files.
        MeasurementError: it does not run there, or no block could be taken in time.
    """
    samples = noise_inputs(subject)
    evidence = Evidence(limits=limits, floors=Floors(), artifact_bytes=subject.artifact.size_bytes)
    with ready_session(device) as session:
        session.require(subject.rung.runtime)
        samples_path = session.place_samples(samples)
        there = session.place(subject.folder, subject.artifact)
        with session.leased(lambda text: reporter.emit(Noted(message=text))):
            first = session.block(subject.rung, there, samples_path, ESTIMATE_RUNS)
            campaign = Campaign(
                session=session,
                policy=policy,
                samples_path=samples_path,
                estimate_ms=ms_from_ns(quantile(first.samples_ns, 0.5)),
                evidence=evidence,
                reporter=reporter,
            )
            measurement = measure(campaign, subject).candidate
            if limits.memory_bytes is not None:
                proof = session.prove_memory(subject.rung, there, samples_path, limits.memory_bytes, limits.memory_of)
                evidence = replace(evidence, memory_proof=proof)
    if not measurement.samples_ns and not measurement.disturbed:
        raise MeasurementError(f"device {device.name}: no block was measured within {policy.time_limit_s:g} s")
    taken = ProcessSamples(measurement.processes_ns) if measurement.samples_ns else None
    evidence = replace(evidence, measurement=measurement)
    result = BenchResult(
        artifact=subject.artifact,
        device=device.name,
        measurement=measurement,
        percentiles=tuple(percentile(taken, p, policy.confidence) for p in policy.percentiles) if taken else (),
        load_ms=ms_from_ns(statistics.median(b.load_ns for b in measurement.blocks)) if taken else None,
        judgement=judge(evidence),
        summary=summarise(taken) if taken else None,
    )
    return result, evidence


def noise_inputs(subject: Subject) -> np.ndarray:
    """Seeded normal noise, [samples, *input shape without the batch], float32; for token ids zeros and ones.

    Raises:
        InputError: not one input of a static shape.
    """
    import numpy as np

    wanted = _one_input(subject)
    shape, generator = (FROZEN_SAMPLES, *wanted.shape[1:]), np.random.default_rng(0)
    if wanted.dtype in {"int32", "int64"}:
        # Every vocabulary has these two.
        return generator.integers(0, 2, shape, dtype=wanted.dtype)
    return generator.standard_normal(shape, dtype=np.float32)


def _one_input(subject: Subject) -> TensorSpec:
    inputs, where = subject.artifact.inputs, subject.folder / subject.artifact.files[0].name
    if len(inputs) != 1:
        raise InputError(f"{where}: expected a model with one input, found {len(inputs)}")
    if any(size < 1 for size in inputs[0].shape):
        raise InputError(f"{where}: expected a static input shape, found {inputs[0].shape}")
    return inputs[0]
