"""Giving a device a Python environment with runtimes: `edgeprune device provision`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from edgeprune.benchmarking.agent.device import sessions
from edgeprune.deployment.inventory import LOCAL, load_device, lock_file, save_device, write_private
from edgeprune.deployment.provisioning import Environment, Environments, Imported
from edgeprune.deployment.wheels import Fetched, Fetcher
from edgeprune.errors import DeployError, InputError
from edgeprune.events import Noted, Reporter, StageFinished, StageProgress, StageStarted
from edgeprune.records.provisioning import Provision, Wheel, environment_digest
from edgeprune.registry import suggest
from edgeprune.schema.device import DeviceSpec
from edgeprune.steps.inputs import load_profile
from edgeprune.steps.session import DeviceSession, open_session
from edgeprune.units import format_mb

_STAGE = "provision"
_NUMPY = "numpy"


def provision(name: str, runtimes: Sequence[str], reporter: Reporter, *, base_python: str = "") -> Provision:
    """Make an environment with exactly these runtimes on a device, and have the inventory point to it.

    Nothing happens on the device where its environment has the same wheels and still works.

    Args:
        name: of the device.
        runtimes: names; empty for those of the device's profile.
        reporter: hears how far it is.
        base_python: the interpreter there to make it with; empty for the one of the last time, or of the enrolment.

    Raises:
        InputError: unknown device or runtime, or `local`.
        NotInstalledError: this host's Python has no pip.
        BuildError: pip failed on this host.
        DeployError: no Python there, no wheel for it, too little disk, an import that fails, or the device went away;
            its earlier environment is in place.
        MeasurementError: others measured there for too long.
    """
    spec = load_device(name)
    if name == LOCAL:
        raise InputError("the device 'local' is this host's own Python: install with its pip, e.g. 'edgeprune[all]'")
    wanted = _known(runtimes or tuple(load_profile(spec.profile).runtimes))
    base = base_python or spec.base_python or spec.python
    with open_session(spec.model_copy(update={"python": base})) as session:
        there = Environments(session.agent, spec)
        found = there.describe()
        with tempfile.TemporaryDirectory(prefix="edgeprune-wheels-") as folder:
            wheels = choose(Fetcher(interpreter=found.interpreter, folder=Path(folder)), wanted, reporter)
            digest = environment_digest((found.executable, found.interpreter), wanted, [f.wheel for f in wheels])
            imported = there.works(found.python, wanted) if found.digest == digest else None
            changed, sent_bytes = imported is None, 0
            if imported is None:
                imported, sent_bytes = _make(session, there, found, (digest, wanted), wheels, reporter)
    updated = spec.model_copy(update={"python": found.python, "base_python": base})
    _prove(updated, wanted)
    chosen = tuple(f.wheel for f in wheels)
    write_private(lock_file(name), lock_text(str(found.interpreter), chosen))
    if updated != spec:
        # What was written to the file meanwhile stays.
        save_device(load_device(name).model_copy(update={"python": found.python, "base_python": base}))
    return Provision(
        device=name,
        python=found.python,
        base_python=base,
        interpreter=str(found.interpreter),
        numpy=imported.numpy,
        runtimes=imported.runtimes,
        before=imported.before,
        wheels=chosen,
        lock_file=str(lock_file(name)),
        sent_bytes=sent_bytes,
        changed=changed,
    )


def choose(fetcher: Fetcher, runtimes: Sequence[str], reporter: Reporter) -> tuple[Fetched, ...]:
    """Fetch the runtimes' wheels with all that they need; of a runtime's libraries, the first that has a wheel.

    Raises:
        DeployError: none has one, or something that they need has none.
        BuildError: pip failed on this host.
    """
    roots, besides = [], [_NUMPY]
    for name in runtimes:
        distribution, needs = _library(fetcher, name, reporter)
        roots.append(distribution)
        besides += needs
    wheels = fetcher.resolve(roots, besides)
    total = format_mb(sum(f.wheel.size_bytes for f in wheels))
    reporter.emit(Noted(message=f"{len(wheels)} wheels, {total}, for {fetcher.interpreter}"))
    return wheels


def lock_text(interpreter: str, wheels: Sequence[Wheel]) -> str:
    """All wheels of an environment, as `pip install --require-hashes -r` takes them."""
    head = f"# Made by edgeprune for {interpreter}"
    return "\n".join([head, *(wheel.lock_line for wheel in wheels)]) + "\n"


def _library(fetcher: Fetcher, runtime: str, reporter: Reporter) -> tuple[str, list[str]]:
    from packaging.requirements import Requirement

    known = sessions.distributions(runtime)
    refusals: list[DeployError] = []
    for distribution, needs in known:
        try:
            fetcher.fetch([Requirement(distribution)])
        except DeployError as error:
            if "package" not in error.facts:
                raise
            refusals.append(error)
            continue
        if refusals:
            reporter.emit(Noted(message=f"{runtime}: {distribution}, because {refusals[-1].message}"))
        return distribution, needs
    if len(refusals) == 1:
        raise refusals[0]
    raise DeployError(
        f"no library for {runtime}: " + "; ".join(error.message for error in refusals),
        **{**refusals[0].facts, "package": [d for d, _ in known]},
    )


def _make(
    session: DeviceSession,
    there: Environments,
    found: Environment,
    what: tuple[str, Sequence[str]],
    wheels: Sequence[Fetched],
    reporter: Reporter,
) -> tuple[Imported, int]:
    started_s = time.monotonic()
    paths, sent_bytes = there.send(wheels, found.held, session.facts.disk_free_bytes)
    subject = session.spec.name
    reporter.emit(StageStarted(stage=_STAGE, subject=subject, total=len(wheels), unit="wheels"))

    def tell(done: int) -> None:
        reporter.emit(StageProgress(stage=_STAGE, subject=subject, done=done))

    # Nobody is measuring while files are unpacked, and the environment does not change under anybody who does.
    with session.leased(lambda text: reporter.emit(Noted(message=text))) as lease, lease.quiet():
        imported = there.make(*what, list(zip(paths, wheels, strict=True)), lease.token, tell)
    reporter.emit(StageFinished(stage=_STAGE, subject=subject, seconds=time.monotonic() - started_s))
    return imported, sent_bytes


def _prove(spec: DeviceSpec, runtimes: Sequence[str]) -> None:
    """Look at the device as every later command will."""
    with open_session(spec) as session:
        missing = [name for name in runtimes if session.facts.runtime_version(name) is None]
    if missing:
        raise DeployError(f"device {spec.name}: {spec.python} does not have {', '.join(missing)}", missing=missing)


def _known(runtimes: Sequence[str]) -> tuple[str, ...]:
    known = tuple(sessions.names())
    for name in runtimes:
        if name not in known:
            raise InputError(f"unknown runtime {name!r}{suggest(name, known)}", name=name)
    return tuple(sorted(set(runtimes)))
