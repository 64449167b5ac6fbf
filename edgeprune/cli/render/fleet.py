"""Several devices in one table, and the verdict over all of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from edgeprune.cli.render.results import render
from edgeprune.records.codec import to_plain
from edgeprune.units import format_ms, format_seconds

if TYPE_CHECKING:
    from edgeprune.records.fleet import FleetDevice, FleetResult
    from edgeprune.records.measurement import Percentile

_COLUMNS = ("device", "profile", "p50, ms", "bound", "p99, ms", "bound", "blocks", "disturbed", "verdict")


def fleet(result: FleetResult, output_format: str) -> str:
    """One line a device, its error where it has one, the outliers, and the verdict with its reason."""
    if output_format == "json":
        plain = to_plain(result)
        return json.dumps({**plain, "verdict": result.verdict, "exit_code": result.verdict.exit_code})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for device in result.devices:
        p50, p99 = _cells(device.p50), _cells(device.p99)
        counts = ("-", "-") if device.error else (str(device.processes), str(device.disturbed))
        table.add_row(device.device, device.profile, *p50, *p99, *counts, _verdict(device))
    head = f"{result.artifact.files[0].name} on {len(result.devices)} device(s), in {format_seconds(result.seconds)}"
    lines = [head, render(table), *_odd(result)]
    return "\n".join([*lines, result.judgement.reason, f"verdict: {result.verdict}"])


def _cells(found: Percentile | None) -> tuple[str, str]:
    """Without the unit, which the column's head says: nine columns have little room."""
    if found is None:
        return "-", "-"
    upper = "unbounded" if found.upper_ms is None else _number(found.upper_ms)
    return _number(found.value_ms), f"{_number(found.lower_ms)} to {upper}"


def _number(ms: float) -> str:
    return format_ms(ms).removesuffix(" ms")


def _verdict(device: FleetDevice) -> str:
    if device.error:
        return "not measured"
    return f"{device.verdict}, outlier" if device.outlier is not None else str(device.verdict)


def _odd(result: FleetResult) -> list[str]:
    lost = [f"not measured: {d.device}: {d.error}" for d in result.devices if d.error]
    return lost + [
        f"outlier: {d.device} takes {d.outlier:.2f} times as long as the median device (p50; modified z-score over 3.5)"
        for d in result.devices
        if d.outlier is not None
    ]
