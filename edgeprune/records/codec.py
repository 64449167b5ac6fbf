"""Records to JSON and back, by pydantic's type adapters over the plain dataclasses."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from edgeprune.errors import BuildError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Record = TypeVar("Record")


def _adapter(kind: type[object]) -> TypeAdapter[Any]:
    return _cached_adapter(cast("Hashable", kind))


@cache
def _cached_adapter(kind: Hashable) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def to_json(record: object, *, indent: int | None = None) -> bytes:
    """Encode a record; floats keep full precision, infinities become null."""
    encoded: bytes = _adapter(type(record)).dump_json(record, indent=indent)
    return encoded


def to_plain(record: object) -> Any:  # noqa: ANN401
    """A record as JSON-ready dicts and lists."""
    return _adapter(type(record)).dump_python(record, mode="json")


def from_json(kind: type[Record], text: bytes | str) -> Record:
    """Decode a record.

    Raises:
        BuildError: the text is no such record (cut short, edited, or of another version).
    """
    from pydantic import ValidationError

    try:
        record: Record = _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise BuildError(f"not a valid {kind.__name__} record: {error.errors()[0]['msg']}") from error
    return record
