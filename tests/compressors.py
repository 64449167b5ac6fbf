"""A compressor with a real run folder, and the build host as the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from targets_for_tests import MODEL_CODE, MadeTarget, make_target

from edgeprune.deployment.inventory import load_device
from edgeprune.events import NullReporter, Reporter
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.inputs import load_profile, load_target
from edgeprune.steps.session import open_session
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import RunFolder


@contextmanager
def compressor(
    folder: Path,
    reporter: Reporter | None = None,
    target: Mapping[str, object] | None = None,
    profile: Mapping[str, object] | None = None,
    code: str = MODEL_CODE,
    *,
    workers: int = 1,
) -> Iterator[Compressor]:
    """The torch side of a build of `make_target`'s target, in two rounds of recovery, with all groups to be cut.

    Args:
        folder: for the target, the profile and the run folder.
        reporter: hears of the steps.
        target, profile: by dotted key, what is different in the file.
        code: of `model.py`.
        workers: processes that train together.
    """
    changes = {"pruning.ignored": None, "recovery.rounds": 2, "recovery.epochs": 2, **(target or {})}
    with compressor_of(
        make_target(folder, target=changes, profile=profile, code=code), reporter, workers=workers
    ) as found:
        yield found


@contextmanager
def compressor_of(made: MadeTarget, reporter: Reporter | None = None, *, workers: int = 1) -> Iterator[Compressor]:
    """The same for any target that was made."""
    device = load_device("local")
    with open_session(device) as session:
        bench = Workbench(
            target=load_target(made.folder),
            profile=load_profile(made.profile),
            device_spec=device,
            run=RunFolder(made.run),
            reporter=reporter or NullReporter(),
            device=session,
            host=session,
            workers=workers,
        )
        yield Compressor(bench)
