"""Devices: the inventory with its health, and what a check found."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from edgeprune.cli.render.results import render
from edgeprune.errors import DeployError
from edgeprune.records.codec import to_plain
from edgeprune.records.cores import core_kinds, describe_kinds
from edgeprune.records.health import DeviceHealth, Grade
from edgeprune.units import format_seconds

if TYPE_CHECKING:
    from edgeprune.schema.device import DeviceSpec
    from edgeprune.steps.health import DeviceReport

_HOUR_S, _DAY_S = 3600, 86400
# The instructions that the kernels of the runtimes are chosen by.
_TELLING_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16",
    "neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_NAME_WIDTH = 19
_WIDTH = 120

Listed = Sequence[tuple["DeviceSpec", DeviceHealth | None]]


def inventory(devices: Listed, output_format: str, *, now_unix_s: float) -> str:
    """One line a device; in JSON all that its file says, and its last health or null."""
    if output_format == "json":
        rows = [
            {**spec.model_dump(mode="json", by_alias=True), "health": _plain(health) if health else None}
            for spec, health in devices
        ]
        return json.dumps({"schema": 1, "devices": rows})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("device", "where", "profile", "health", "fingerprint"):
        table.add_column(column, overflow="fold")
    for spec, health in devices:
        fingerprint = health.fingerprint[:16] if health else ""
        table.add_row(spec.name, _where(spec), spec.profile, _health(health, now_unix_s), fingerprint or "-")
    return render(table)


def report(found: DeviceReport, output_format: str) -> str:
    """Every check with its grade and what to do."""
    health = found.health
    if output_format == "json":
        lease = to_plain(found.lease) if found.lease else None
        facts = to_plain(health.facts) if health.facts else None
        content = {**_plain(health), "facts": facts, "differences": found.differences, "lease": lease}
        return json.dumps({"schema": 1, "name": health.device, **content, "exit_code": exit_code(health)})
    lines = [f"{health.device}: {health.grade}"]
    for check in health.checks:
        lines += _folded(f"  {check.grade:<8} {check.name:<{_NAME_WIDTH}}", check.found)
        if check.advice:
            lines += _folded(" " * (_NAME_WIDTH + 11), f"-> {check.advice}")
    if health.facts is not None:
        told = ", ".join(f for f in _TELLING_FLAGS if f in health.facts.cpu_flags) or "none of note"
        lines.append(f"  cpu flags: {told} ({len(health.facts.cpu_flags)} in all)")
        if len(core_kinds(health.facts.topology)) > 1:
            lines.append(f"  cores of {describe_kinds(health.facts.topology)}")
    if found.lease is not None:
        lines.append(f"  {found.lease}")
    return "\n".join(lines)


def exit_code(health: DeviceHealth) -> int:
    """0, or 5 where the device has a problem and is not used."""
    return DeployError.exit_code if health.grade is Grade.PROBLEM else 0


def _plain(health: DeviceHealth) -> dict[str, Any]:
    return {
        "grade": health.grade.value,
        "checked_unix_s": health.checked_unix_s,
        "fingerprint": health.fingerprint,
        "checks": to_plain(health)["checks"],
    }


def _where(spec: DeviceSpec) -> str:
    if not spec.host:
        return "this machine"
    login = f"{spec.user}@" if spec.user else ""
    port = f":{spec.port}" if spec.port else ""
    return f"{login}{spec.host}{port}"


def _health(health: DeviceHealth | None, now_unix_s: float) -> str:
    """`ok, 5 min ago`, `problem (numpy), 2 h ago`, or that it was never checked."""
    if health is None:
        return "not checked"
    told = ", ".join(check.name for check in health.graded(health.grade)) if health.grade is not Grade.OK else ""
    why = f" ({told})" if told else ""
    return f"{health.grade}{why}, {_ago(now_unix_s - health.checked_unix_s)} ago"


def _ago(seconds: float) -> str:
    if seconds < _HOUR_S:
        return format_seconds(max(0.0, seconds))
    return f"{seconds / _HOUR_S:.0f} h" if seconds < _DAY_S else f"{seconds / _DAY_S:.0f} days"


def _folded(head: str, text: str) -> list[str]:
    """Commands in a message stay whole: a line breaks between words only."""
    return textwrap.wrap(
        f"{head} {text}", _WIDTH, subsequent_indent=" " * (len(head) + 1), break_long_words=False,
        break_on_hyphens=False, drop_whitespace=True,
    )  # fmt: skip
