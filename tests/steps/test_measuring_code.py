from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import edgeprune
from edgeprune.profiling.slicing import SLICERS
from edgeprune.records.rung import Precision, Rung
from edgeprune.steps.measuring_code import code_digest, measuring_key, measuring_modules

CODE = '''"""A module."""

ROUNDS = 9
"""Of each."""


def low(values: list[float]) -> float:
    """The third."""
    return sorted(values)[2]  # not the first
'''


def test_what_is_only_said_about_code_does_not_change_its_digest() -> None:
    said = CODE.replace("The third.", "Of nine.").replace("  # not the first", "").replace('"""Of each."""\n\n\n', "")
    assert said != CODE
    assert code_digest([said]) == code_digest([CODE])


@pytest.mark.parametrize(("old", "new"), [("9", "18"), ("[2]", "[1]")])
def test_what_code_does_changes_it(old: str, new: str) -> None:
    assert code_digest([CODE.replace(old, new)]) != code_digest([CODE])


@pytest.mark.parametrize("runtime", SLICERS.names())
def test_each_place_has_the_key_of_its_own_code(runtime: str) -> None:
    """The timing of micro-models, their making, and of INT8 the quantizer too."""
    dense, int8 = (Rung(runtime=runtime, precision=p) for p in (Precision.FLOAT32, Precision.INT8))
    own = set(measuring_modules(dense))
    folder = Path(edgeprune.__file__).parent.parent
    assert all((folder / f"{module.replace('.', '/')}.py").is_file() for module in measuring_modules(int8))
    assert {"edgeprune.steps.profiles", "edgeprune.profiling.branches", f"edgeprune.profiling.slicing.{runtime}"} <= own
    assert len(set(measuring_modules(int8)) - own) == 1
    assert measuring_key(dense) != measuring_key(int8)
    assert measuring_key(dense) == measuring_key(Rung(runtime=runtime, precision=Precision.FLOAT32, threads=4))


def test_what_makes_and_times_micro_models_imports_nothing_else_of_the_same_rooms() -> None:
    """A new module of profiling, or of trips, that the tables come to need must be in the key as well."""
    known = {
        m for runtime in SLICERS.names() for m in measuring_modules(Rung(runtime=runtime, precision=Precision.INT8))
    }
    rooms = ("edgeprune.profiling.", "edgeprune.steps.")
    elsewhere = {"edgeprune.profiling.slicing", "edgeprune.profiling.widths", "edgeprune.steps.session"}
    elsewhere |= {"edgeprune.steps.measuring_code"}
    for module in ("edgeprune.steps.tables", "edgeprune.steps.profiles", "edgeprune.profiling.branches"):
        needed = {getattr(value, "__module__", "") for value in vars(import_module(module)).values()}
        assert {m for m in needed if m and m.startswith(rooms)} <= known | elsewhere
