"""Controls beside the result and the dense model, as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.accuracy import Accuracy
from edgeprune.records.control import Control
from edgeprune.records.result import BuildResult, Candidate
from edgeprune.reporting.quantities import NONE

_TITLES = {"random": "pruned by lot", "scratch": "trained from scratch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRow:
    """One model of the table, every figure as text."""

    name: str
    validation: str
    test: str
    parameters: str
    macs: str
    epochs: str
    how: str


def control_rows(result: BuildResult) -> tuple[ControlRow, ...]:
    """The dense model, the chosen one where there is one, and each control; none where no control was asked for."""
    if not result.controls:
        return ()
    dense = _of_candidate("dense", result.dense)
    chosen = () if result.chosen is None else (_of_candidate("the result", result.chosen),)
    return (dense, *chosen, *(_of_control(c) for c in result.controls))


def _of_candidate(name: str, candidate: Candidate) -> ControlRow:
    making = candidate.making
    epochs = (
        NONE
        if making is None
        else _epochs(
            f"{making.training_epochs} + {making.recovery_epochs}", making.qat_epochs_before + making.qat_epochs
        )
    )
    return ControlRow(
        name=name,
        validation=_quality(candidate.validation),
        test=_quality(candidate.test),
        parameters=_number(candidate.parameters),
        macs=_number(candidate.macs),
        epochs=epochs,
        how=candidate.rung.name,
    )


def _of_control(control: Control) -> ControlRow:
    return ControlRow(
        name=_TITLES.get(control.name, control.name),
        validation=_quality(control.validation),
        test=_quality(control.test),
        parameters=_number(control.parameters),
        macs=_number(control.macs),
        epochs=NONE if control.reason else _epochs(str(control.epochs), control.qat_epochs),
        how=f"none: {control.reason}" if control.reason else control.how,
    )


def _epochs(trained: str, rounded: int) -> str:
    return f"{trained} + {rounded} with rounding" if rounded else trained


def _quality(accuracy: Accuracy | None) -> str:
    return NONE if accuracy is None else accuracy.told


def _number(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"
