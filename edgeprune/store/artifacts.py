"""Artifact folders: files, their hashes, and the manifest that a program needs to run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import BuildError, InputError
from edgeprune.files import sha256_of, write_atomically
from edgeprune.records.artifact import Artifact, ArtifactFile, TensorSpec
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.quantization import QuantizationVariant
from edgeprune.records.recipe import PruningRecipe
from edgeprune.records.rung import GroupWidth, Precision, Rung

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What ships beside the compiled files.

    Attributes:
        preprocessing: what to do with a raw example, as the target's file says it.
        class_names: of the output's indices.
        origin: what it was made from and with, as (key, value).
        variant: how it was quantized; None where it was not.
    """

    artifact: Artifact
    rung: Rung
    preprocessing: dict[str, str | float | tuple[float, ...]]
    class_names: tuple[str, ...]
    widths: tuple[GroupWidth, ...]
    recipe: PruningRecipe
    origin: tuple[tuple[str, str], ...]
    variant: QuantizationVariant | None = None
    schema: int = 1


def describe_files(
    folder: Path,
    names: tuple[str, ...],
    *,
    runtime: str,
    precision: Precision,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    file_format: str,
) -> Artifact:
    """The artifact record of files in a folder."""
    for name in names:
        _check_name(name, folder)
    files = tuple(
        ArtifactFile(name=n, sha256=sha256_of(folder / n), size_bytes=(folder / n).stat().st_size) for n in names
    )
    return Artifact(
        runtime=runtime, precision=precision, files=files, inputs=inputs, outputs=outputs, format=file_format
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` beside the files."""
    write_atomically(folder / MANIFEST, to_json(manifest, indent=2))


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` and check the files against it.

    Raises:
        InputError: no manifest, or a file is missing or changed.
    """
    path = folder / MANIFEST
    try:
        manifest = from_json(Manifest, path.read_bytes())
    except FileNotFoundError as error:
        inside = folder / "artifact"
        hint = f"; did you mean {inside}?" if (inside / MANIFEST).is_file() else ""
        raise InputError(f"{path}: no such file; an artifact folder has one{hint}") from error
    except BuildError as error:
        raise InputError(f"{path}: damaged, or of another version: {error.message}") from error
    for file in manifest.artifact.files:
        _check_name(file.name, path)
        found = folder / file.name
        if not found.is_file():
            raise InputError(f"{found}: no such file, but {path} names it")
        if sha256_of(found) != file.sha256:
            raise InputError(f"{found}: expected sha256 {file.sha256[:16]}..., found another: the file was changed")
    return manifest


def _check_name(name: str, where: Path) -> None:
    """A manifest may come from anywhere; it must not name files outside its folder."""
    if Path(name).name != name or name in {"", ".", ".."}:
        raise InputError(f"{where}: expected plain file names, got {name!r}")
