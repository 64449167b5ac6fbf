"""The ways to quantize that were tried on candidates whose default INT8 lost too much."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.quantization import VariantTrial
from edgeprune.records.result import BuildResult, Candidate
from edgeprune.reporting.quantities import NONE
from edgeprune.units import format_mb, format_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRow:
    """One trial, as text."""

    name: str
    outcome: str
    accuracy: str
    p50: str
    size: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantTable:
    """All trials on one candidate, and why there were any; none where `taken` was fixed by the target."""

    rung: str
    taken: str
    why: str
    rows: tuple[VariantRow, ...]


def variant_tables(result: BuildResult) -> tuple[VariantTable, ...]:
    """One table a candidate that was quantized in more than one way, in the order in which they were tried."""
    return tuple(table for table in map(_table, result.candidates) if table is not None)


def _table(candidate: Candidate) -> VariantTable | None:
    search = candidate.variants
    if search is None:
        return None
    rows = tuple(_row(trial, is_taken=trial.variant == search.chosen) for trial in search.trials)
    return VariantTable(rung=candidate.rung.name, taken=search.chosen.name, why=search.why, rows=rows)


def _row(trial: VariantTrial, *, is_taken: bool) -> VariantRow:
    layers = f"in float32: {', '.join(trial.variant.float_layers)}" if trial.variant.float_layers else ""
    floors = "under an accuracy floor" if trial.accuracy is not None and not trial.meets_floors else ""
    return VariantRow(
        name=trial.variant.name,
        outcome="taken" if is_taken else "failed" if trial.accuracy is None else "tried",
        accuracy=(trial.told or NONE).replace(" %", "%"),
        p50=NONE if trial.p50_ms is None else format_ms(trial.p50_ms),
        size=NONE if trial.artifact_bytes is None else format_mb(trial.artifact_bytes),
        reason="; ".join(text for text in (trial.reason, trial.over, floors, layers) if text),
    )
