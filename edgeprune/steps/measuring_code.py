"""Which code made a table: what other code measured is not comparable, and is not found under its key.

The key is a digest of the modules that make micro-models and time them. Comments, docstrings and layout are not in it,
so that only a change of what is done has the operators measured again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final

from edgeprune.quantization.schemes import SCHEMES
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.store.run_folder import digest

_AGENT: Final = "edgeprune.benchmarking.agent.device"
_MAKERS: Final = (
    "edgeprune.profiling.branches",
    "edgeprune.profiling.micro",
    "edgeprune.runtimes._source",
    "edgeprune.steps.compiling",
    "edgeprune.steps.tables",
)
_TIMERS: Final = (
    "edgeprune.benchmarking.trip",
    "edgeprune.records.profiled",
    "edgeprune.steps.profiles",
    f"{_AGENT}.bench",
    f"{_AGENT}.profile",
    f"{_AGENT}.sessions",
)


def measuring_modules(place: Rung) -> tuple[str, ...]:
    """The modules that have a say in what a place's operators are measured to take, sorted.

    Args:
        place: its runtime and precision say which converter, slicer and quantizer.
    """
    runtime = place.runtime
    own = [f"{RUNTIMES.package}.{runtime}", f"edgeprune.profiling.slicing.{runtime}", f"{_AGENT}.{runtime}_session"]
    if place.precision is Precision.INT8:
        own.append(f"{SCHEMES.package}.{RUNTIMES.get(runtime).int8_scheme()}")
    return tuple(sorted((*_MAKERS, *_TIMERS, *own)))


@cache
def measuring_key(place: Rung) -> str:
    """Equal where the same code measures."""
    return code_digest(_source(module) for module in measuring_modules(place))


def code_digest(sources: Iterable[str]) -> str:
    """A digest of what Python sources do; their comments, docstrings and layout do not change it."""
    return digest([ast.unparse(_without_docstrings(ast.parse(source))) for source in sources])


def _source(module: str) -> str:
    folder, _, name = module.rpartition(".")
    return (files(folder) / f"{name}.py").read_text("utf-8")


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Those of attributes stand between the others.
            node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
    return tree


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
