"""How well operator tables repeat on this host: the operators of a net, measured several times from nothing.

    python tools/show_table_repeats.py --nets resnet20 --runtimes openvino --precisions int8 --repeats 4

Each table is measured as a plan's first is, in an empty folder, and the places take turns, so that what the host does
for a while falls on all. Microseconds: `sd` is the standard deviation of an operator between the tables, pooled over
the operators; `p95` and `worst` are how far an entry is off its operator's median; the operator that is off most
stands last. `dist.` counts entries that a table would not keep.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_cost_model import Cell, cells
from cost_model_nets import NETS

from edgeprune.records.operators import OperatorShape, TableEntry
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.session import DeviceSession, open_host_session
from edgeprune.steps.tables import OperatorTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What one took, and its entries by operator."""

    entries: Mapping[str, TableEntry]
    seconds: float


def measured(session: DeviceSession, cell: Cell, shapes: Sequence[OperatorShape], number: int) -> Table:
    """A table from nothing.

    Raises:
        BuildError: the runtime refuses an operator of the net.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        name = f"{cell.name}, table {number + 1}"
        tables = OperatorTables(session, lambda text: print(f"  {name}: {text}", file=sys.stderr), Path(folder))
        tables.ensure(shapes, cell.place)
        seconds = time.monotonic() - started
        entries = [tables.entry(shape, cell.place) for shape in shapes]
    return Table(entries={e.operator: e for e in entries}, seconds=seconds)


def row(cell: Cell, tables: Sequence[Table]) -> str:
    """Of one place."""
    operators = list(tables[0].entries)
    # Tables, operators.
    entries_us = np.array([[1e3 * t.entries[o].latency_ms for o in operators] for t in tables])
    off_us = np.abs(entries_us - np.median(entries_us, axis=0))
    sd_us = float(np.sqrt(entries_us.var(axis=0, ddof=1).mean()))
    disturbed = sum(bool(e.disturbed) for t in tables for e in t.entries.values())
    most = int(off_us.max(axis=0).argmax())
    each = " ".join(f"{us:.2f}" for us in entries_us[:, most])
    return (
        f"{cell.name:10} {cell.place.name:24} {len(operators):5d} {np.mean([t.seconds for t in tables]):7.1f} "
        f"{disturbed:5d} {np.median(entries_us):7.2f} {sd_us:6.2f} {np.quantile(off_us, 0.95):6.2f} {off_us.max():6.2f}"
        f"  {operators[most]}: {each}"
    )


def main() -> int:
    """Print a row for each net and place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=sorted(NETS), default=["resnet20"])
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES.names(), default=list(RUNTIMES.names()))
    parser.add_argument("--precisions", nargs="+", choices=["float32", "int8"], default=["float32", "int8"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--configurations", type=int, default=4, help="random widths whose operators are measured")
    parser.add_argument("--seed", type=int, default=0, help="of the widths")
    parser.add_argument("--repeats", type=int, default=4, help="tables of each place, 2 at least")
    arguments = parser.parse_args()
    if arguments.repeats < 2:  # noqa: PLR2004
        parser.error(f"--repeats: expected at least 2, got {arguments.repeats}")
    arguments.fit = 0
    all_cells = [cell for name in arguments.nets for cell in cells(name, arguments)]
    shapes = [cell.shapes(["planner"]) for cell in all_cells]
    with open_host_session() as session:
        taken = [
            [measured(session, cell, of_cell, number) for cell, of_cell in zip(all_cells, shapes, strict=True)]
            for number in range(arguments.repeats)
        ]
    print(
        f"{'net':10} {'place':24} {'ops':>5} {'table s':>7} "
        f"{'dist.':>5} {'median':>7} {'sd':>6} {'p95':>6} {'worst':>6}  off most"
    )
    for cell, tables in zip(all_cells, zip(*taken, strict=True), strict=True):
        print(row(cell, tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
