"""What the benchmarks of whole builds share: a workbench to work at, rows that outlive a killed run, and MACs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from bench_origin import Code, Origin, code_of

from edgeprune.cli.render.plain import PlainReporter
from edgeprune.deployment.inventory import load_device
from edgeprune.files import write_atomically
from edgeprune.records.codec import from_json, to_json, to_plain
from edgeprune.records.operators import WEIGHTLESS, OperatorShape
from edgeprune.records.rung import PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.inputs import Target
from edgeprune.steps.session import open_host_session, open_session
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import RunFolder

if TYPE_CHECKING:
    from torch import nn


class Entered(Protocol):
    """A row that says what it is a row of."""

    @property
    def entry(self) -> tuple[object, ...]:
        """Two rows with the same entry are of the same thing."""
        ...


RowType = TypeVar("RowType", bound=Entered)
_LISTED = 8
"""Rows that a message names."""


def add_output(parser: argparse.ArgumentParser) -> None:
    """Options for `kept_rows`."""
    parser.add_argument("--output", type=Path, required=True, help="for rows and steps; a new folder, or see --resume")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the rows in --output, if they were made with the same settings, data, device and libraries; "
        "refused without it",
    )


def kept_rows(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    kind: type[RowType],
    origin: Callable[[], Origin],
    tool: str,
) -> KeptRows[RowType]:
    """The rows in `--output`, and beside them what they and those to come are made with.

    The parser's own exit where there are some and nobody said `--resume`, or where they mean something else.

    Args:
        parser: it tells why not.
        arguments: those of `add_output`.
        kind: class of the rows.
        origin: what this run makes rows with; called where they are not refused without it.
        tool: the file of the benchmark.
    """
    kept = KeptRows(arguments.output / "rows.json", kind, code_of(Path(tool)))
    if kept.rows and not arguments.resume:
        parser.error(f"--output {arguments.output} has rows of an earlier run; give --resume to go on with them")
    path, now = arguments.output / "made_with.json", origin()
    before = from_json(Origin, path.read_text()) if kept.rows and path.is_file() else None
    if kept.rows and (why_not := _why_not(before, now)):
        parser.error(f"--output {arguments.output}: {len(kept.rows)} rows: {_listed(kept.rows)}\n{why_not}")
    joined = before.joined(now) if before else now
    if joined != before:
        write_atomically(path, to_json(joined, indent=1))
    return kept


def _why_not(before: Origin | None, now: Origin) -> str:
    """Why rows of two origins may not stand together; empty where they may."""
    if before is None:
        return "there is no made_with.json that says what they were made with; give another --output"
    listed = "".join(f"\n  {line}" for line in before.differences(now))
    return listed and f"they were made with something else; make it the same, or give another --output:{listed}"


class KeptRows(Generic[RowType]):
    """The rows of a benchmark so far, by what they are of, in a file that is always whole.

    Args:
        path: of the file.
        kind: class of the rows.
        code: what makes those that are added.
    """

    def __init__(self, path: Path, kind: type[RowType], code: Code) -> None:
        self._path = path
        self.code = code
        self.rows: dict[tuple[object, ...], RowType] = {}
        self._codes: dict[tuple[object, ...], tuple[Code, ...]] = {}
        for stored in json.loads(path.read_text()) if path.is_file() else []:
            codes = from_json(tuple[Code, ...], json.dumps(stored.pop("codes", [])))
            row = from_json(kind, json.dumps(stored))
            self.rows[row.entry], self._codes[row.entry] = row, codes

    def add(self, row: RowType, *, begun: bool = False) -> None:
        """Keep a row; one of the same thing goes.

        Args:
            row: made by this code.
            begun: whether it has figures of the one that goes, whose code then has a hand in it.
        """
        before = self._codes[row.entry] if begun else ()
        self.rows[row.entry] = row
        self._codes[row.entry] = tuple(dict.fromkeys((*before, self.code)))
        stored = [{**to_plain(r), "codes": to_plain(self._codes[entry])} for entry, r in self.rows.items()]
        write_atomically(self._path, json.dumps(stored, indent=1).encode())

    def is_of_this_code(self, row: RowType) -> bool:
        """Whether no other code had a hand in a row."""
        return self._codes[row.entry] == (self.code,)

    def of_other_code(self, rows: Iterable[RowType]) -> list[str]:
        """Lines to close a table of these rows with: which are of which other code; none where all are of this."""
        shown = list(rows)
        found: dict[tuple[Code, ...], list[tuple[object, ...]]] = {}
        for row in shown:
            if not self.is_of_this_code(row):
                found.setdefault(self._codes[row.entry], []).append(row.entry)
        return [
            f"{len(entries)} of {len(shown)} rows are of other code than this, {self.code}: "
            f"of {', then '.join(map(str, codes)) or 'unknown code'}: {_listed(entries)}"
            for codes, entries in found.items()
        ]


def _listed(entries: Iterable[tuple[object, ...]]) -> str:
    told = [" / ".join(map(str, entry)) for entry in entries]
    more = [f"and {len(told) - _LISTED} more"] if len(told) > _LISTED else []
    return "; ".join(told[:_LISTED] + more)


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


def accuracies(bench: Workbench, model: nn.Module) -> tuple[float, float]:
    """Of a torch model, on the validation split and on the test split."""
    both = (("validation", bench.data.validation), ("test", bench.data.test))
    found = [
        bench.task.accuracy_of(torch_outputs(model, bench.prepared(split)), split, name).overall for name, split in both
    ]
    return found[0], found[1]


def zeroed_rung(share: float) -> PlannedRung:
    """A share of single weights is zero; OpenVINO's kernels leave no layer out."""
    rung = Rung(runtime="openvino", precision=Precision.FLOAT32, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=share)
    return PlannedRung(rung=rung, status=RungStatus.PLANNED, reason="", accuracy_cost=0.0)


def millions_of_macs(shape: OperatorShape) -> float:
    """Multiply-accumulates of an operator, in millions; none for an addition or an average."""
    if shape.kind in WEIGHTLESS:
        return 0.0
    inner = shape.in_channels // shape.groups * prod(shape.kernel)
    return 1e-6 * shape.out_channels * inner * prod(shape.out_extent or (shape.rows,))
