"""What the benchmarks of whole builds share: a workbench to work at, rows that outlive a killed run, and MACs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from edgeprune.cli.render.plain import PlainReporter
from edgeprune.deployment.inventory import load_device
from edgeprune.files import write_atomically
from edgeprune.records.codec import from_json, to_plain
from edgeprune.records.operators import WEIGHTLESS, OperatorShape
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.inputs import Target
from edgeprune.steps.session import open_host_session, open_session
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import RunFolder


class Entered(Protocol):
    """A row that says what it is a row of."""

    @property
    def entry(self) -> tuple[object, ...]:
        """Two rows with the same entry are of the same thing."""
        ...


RowType = TypeVar("RowType", bound=Entered)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Options for `kept_rows`."""
    parser.add_argument("--output", type=Path, required=True, help="for rows and steps; a new folder, or see --resume")
    parser.add_argument("--resume", action="store_true", help="go on with the rows in --output; refused without it")


def kept_rows(parser: argparse.ArgumentParser, arguments: argparse.Namespace, kind: type[RowType]) -> KeptRows[RowType]:
    """The rows in `--output`; the parser's own exit where there are some and nobody said `--resume`."""
    rows = arguments.output / "rows.json"
    if rows.exists() and not arguments.resume:
        parser.error(f"--output {arguments.output} has rows of an earlier run; give --resume to go on with them")
    return KeptRows(rows, kind)


class KeptRows(Generic[RowType]):
    """The rows of a benchmark so far, by what they are of, in a file that is always whole."""

    def __init__(self, path: Path, kind: type[RowType]) -> None:
        self._path = path
        found = json.loads(path.read_text()) if path.is_file() else []
        rows = (from_json(kind, json.dumps(stored).encode()) for stored in found)
        self.rows = {row.entry: row for row in rows}

    def add(self, row: RowType) -> None:
        """Keep a row; one of the same thing goes."""
        self.rows[row.entry] = row
        write_atomically(self._path, json.dumps([to_plain(r) for r in self.rows.values()], indent=1).encode())


@contextmanager
def opened_workbench(target: Target, profile: DeviceProfile, device: str, folder: Path) -> Iterator[Workbench]:
    """What the steps of a build need, its steps kept in a folder, what it does told on stderr."""
    spec, run = load_device(device), RunFolder(folder)
    with run.locked(), open_session(spec) as session, open_host_session() as host:
        yield Workbench(
            target=target,
            profile=profile,
            device_spec=spec,
            run=run,
            reporter=PlainReporter(sys.stderr),
            device=session,
            host=host,
        )


def millions_of_macs(shape: OperatorShape) -> float:
    """Multiply-accumulates of an operator, in millions; none for an addition or an average."""
    if shape.kind in WEIGHTLESS:
        return 0.0
    inner = shape.in_channels // shape.groups * prod(shape.kernel)
    return 1e-6 * shape.out_channels * inner * prod(shape.out_extent or (shape.rows,))
