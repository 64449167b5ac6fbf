"""Profiles as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from edgeprune.cli.render.results import render

if TYPE_CHECKING:
    from pydantic import BaseModel

    from edgeprune.schema.profile import Budget, DeviceProfile


def profile_table(profiles: Sequence[DeviceProfile]) -> str:
    """One line a profile."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("profile", "arch", "cores", "runtimes", "budget", "description"):
        table.add_column(column)
    for profile in profiles:
        table.add_row(
            profile.name,
            profile.hardware.arch,
            str(profile.hardware.cores),
            ", ".join(profile.runtimes),
            budget_text(profile.budget),
            profile.description,
        )
    return render(table)


def budget_text(budget: Budget) -> str:
    """`p99 50 ms, memory 50 MB`."""
    parts = [
        ("p50", budget.p50_ms, "ms"),
        ("p99", budget.p99_ms, "ms"),
        ("p50", budget.p50_speedup, "x dense"),
        ("p99", budget.p99_speedup, "x dense"),
        ("memory" if budget.memory_of == "process" else "memory of the model", budget.memory_mb, "MB"),
        ("size", budget.artifact_mb, "MB"),
    ]
    return ", ".join(f"{name} {value:g} {unit}" for name, value, unit in parts if value is not None)


def profile_details(profile: DeviceProfile) -> str:
    """Every key with its value, defaults filled in, and what it means."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("key", "value", "meaning"):
        table.add_column(column, overflow="fold")
    for key, value, meaning in _rows(profile, ""):
        table.add_row(key, value, meaning)
    return render(table)


def _rows(model: BaseModel, prefix: str) -> list[tuple[str, str, str]]:
    from pydantic import BaseModel as Model

    rows: list[tuple[str, str, str]] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        key = f"{prefix}{field.alias or name}"
        if isinstance(value, Model):
            rows += _rows(value, f"{key}.")
        elif isinstance(value, dict):
            rows += [row for k, v in value.items() for row in _rows(v, f"{key}.{k}.")]
        else:
            rows.append((key, _toml_value(value), " ".join((field.description or "").split())))
    return rows


def _toml_value(value: object) -> str:
    """As it would stand in the file; `-` for what is not set, which TOML cannot say."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(v) for v in value)}]"
    return json.dumps(str(value), ensure_ascii=False) if isinstance(value, str) else str(value)
