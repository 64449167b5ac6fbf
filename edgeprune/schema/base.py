"""Reading a TOML file into a strict, frozen class, with errors that name file, key, expected and found."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from edgeprune.errors import InputError


class FileModel(BaseModel):
    """Base of every class that a file is checked against."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=FileModel)

Factory = Annotated[str, Field(pattern=r"^[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*$")]
"""`file.py:function`, of the target's folder."""
Share = Annotated[float, Field(gt=0, lt=1)]
"""Between 0 and 1, neither of them."""


def load_toml(path: Path, kind: type[Model]) -> Model:
    """Read and check one file.

    Raises:
        InputError: missing, not TOML, or not what the class says; every finding is a line of the message.
    """
    return parse_toml(read_text(path), kind, where=str(path))


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: missing, unreadable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file{_similar_files(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def parse_toml(text: str, kind: type[Model], *, where: str) -> Model:
    """Check the text of a file; `where` stands in front of each finding."""
    try:
        values = tomllib.loads(text)
        # Strict pydantic refuses a TOML array for a tuple field, but takes a JSON one.
        as_json = json.dumps(values, allow_nan=False)
    except (tomllib.TOMLDecodeError, ValueError, TypeError) as error:
        raise InputError(f"{where}: not valid TOML for this file: {error}") from error
    try:
        return kind.model_validate_json(as_json)
    except ValidationError as error:
        findings = [_finding(e, kind, where) for e in error.errors()]
        raise InputError("\n".join(findings), findings=len(findings)) from error


def _finding(error: ErrorDetails, kind: type[BaseModel], where: str) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys_beside(error["loc"], kind)
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(known))}"
        return f"{where}: {key}: unknown key; {hint}"
    if error["type"] == "missing":
        return f"{where}: {key}: missing; it is required"
    found = json.dumps(error["input"], default=str)
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{where}: {key or '(file)'}: expected {message}, got {_short(found)}"


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def _keys_beside(location: tuple[int | str, ...], kind: type[BaseModel]) -> list[str]:
    """The known keys at the place of an unknown one."""
    here: type[BaseModel] | None = kind
    for part in location[:-1]:
        field = here.model_fields.get(str(part)) if here else None
        if field is not None:
            here = _model_in(field.annotation)
        # A key of a mapping, or an index of an array: its class was taken with the field.
    return list(here.model_fields) if here else []


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401
    """The model class inside `X`, `X | None`, `dict[str, X]` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found: Iterable[type[BaseModel] | None] = (_model_in(a) for a in get_args(annotation))
    return next((m for m in found if m is not None), None)


def _similar_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor the folder {path.parent})"
    close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
