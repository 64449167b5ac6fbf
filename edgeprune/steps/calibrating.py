"""Measuring an artifact against itself, to learn what a device can resolve: `edgeprune device calibrate`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeprune.comparison import resolution
from edgeprune.errors import InputError, NotInstalledError
from edgeprune.events import Reporter
from edgeprune.records.comparison import Calibration
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.steps.benching import bench_subject
from edgeprune.steps.calibrations import save_calibration
from edgeprune.steps.comparing import PERCENTS, ROUNDS, Duel, place, ratios, require_rounds, runs_per_process
from edgeprune.steps.compiling import CompileJob, compile_artifact
from edgeprune.steps.health import ready_session
from edgeprune.steps.measuring import Subject, Told
from edgeprune.steps.session import DeviceSession

LEAST_CAMPAIGNS = 3
_MODEL_INPUT = (1, 3, 32, 32)
_MODEL_WIDTH = 32


def calibrate(
    device: DeviceSpec,
    policy: MeasurementPolicy,
    reporter: Reporter,
    *,
    artifact: Path | None = None,
    campaigns: int,
    rounds: int = ROUNDS,
) -> Calibration:
    """Compare an artifact with itself in several campaigns, and keep what that shows.

    Args:
        device: to calibrate.
        policy: of each campaign; its time limit holds for each.
        reporter: hears how far it is.
        artifact: as `bench` takes it; None for a small model, compiled for the first runtime on the device that this
            host can compile for.
        campaigns: at least three; the false-alarm rate is known only as well as they are many.
        rounds: of each campaign; compare with as many, since more rounds resolve more.

    Raises:
        InputError: too few campaigns or rounds, or no such artifact.
        NotInstalledError: this host has no compiler for any runtime of the device.
        DeployError, MeasurementError: as for a comparison.
    """
    require_rounds(rounds)
    if campaigns < LEAST_CAMPAIGNS:
        raise InputError(f"campaigns: expected at least {LEAST_CAMPAIGNS}, got {campaigns}")
    with ready_session(device) as session, _subject(session, artifact) as subject:
        placed = place(session, subject)
        told = Told(reporter, f"{device.name} against itself", 2 * rounds * campaigns)
        with told:
            with session.leased(told.note):
                runs = runs_per_process(session, (placed,), policy)
            # Each campaign has a lease of its own: others take their turn in between.
            duel = Duel(session=session, policy=policy, rounds=rounds, runs=runs, told=told)
            found = tuple(ratios(*duel.fight(placed, placed)) for _ in range(campaigns))
        calibration = Calibration(
            device=device.name,
            fingerprint=session.facts.fingerprint,
            runtime=subject.rung.runtime,
            cpus=subject.rung.cpus,
            artifact_digest=subject.artifact.digest,
            p50_ms=found[0][0].first_ms,
            rounds=rounds,
            runs=runs,
            confidence=policy.confidence,
            resolutions=tuple(resolution([c[k] for c in found]) for k in range(len(PERCENTS))),
            campaigns=found,
            taken_unix_s=time.time(),
        )
    save_calibration(calibration)
    return calibration


@contextmanager
def _subject(session: DeviceSession, artifact: Path | None) -> Iterator[Subject]:
    if artifact is not None:
        yield bench_subject(artifact)
        return
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        yield _small_model(session, Path(folder))


def _small_model(session: DeviceSession, folder: Path) -> Subject:
    import numpy as np
    import torch
    from torch import nn

    width = _MODEL_WIDTH
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()
    missing = []
    for name, _ in session.facts.runtimes:
        if name not in RUNTIMES.names():
            continue
        rung = Rung(runtime=name, precision=Precision.FLOAT32)
        into = folder / name
        into.mkdir()
        try:
            job = CompileJob(model, _MODEL_INPUT, np.zeros((1, *_MODEL_INPUT[1:]), np.float32))
            artifact = compile_artifact(job, rung, into)
        except NotInstalledError as error:
            missing.append(error.message)
            continue
        return Subject(rung=rung, artifact=artifact, folder=into)
    there = "; ".join(missing) or "it has none"
    raise NotInstalledError(
        f"device {session.spec.name}: this host can compile for none of its runtimes ({there}); "
        "give a compiled model with --artifact"
    )
