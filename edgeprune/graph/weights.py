"""Weights from a file a person names: nothing is executed, and every difference is told."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.registry import suggest

if TYPE_CHECKING:
    from torch import nn


def load_weights_(model: nn.Module, path: Path) -> None:
    """Fill a model from a `.safetensors` file, or a `.pt` or `.pth` file that loads with `weights_only=True`.

    A dict with a `state_dict` inside and the `module.` prefix of DataParallel are understood. A tensor that the model
    shares under two names may be in the file under one of them.

    Raises:
        InputError: missing, cut short, a pickle with more than tensors in it, or tensors that are not the model's; the
            message names file, tensor, expected and found.
    """
    tensors = _without_prefix(read_tensors(path))
    expected = model.state_dict()
    _check_shapes(tensors, expected, path)
    missing = [
        n
        for n in expected
        # A batch count that only training without momentum reads; files from before torch 0.4.1 have none.
        if n not in tensors and not n.endswith("num_batches_tracked") and not _shared(n, expected, tensors)
    ]
    if missing:
        raise InputError(f"{path}: tensor {missing[0]!r} is missing{_more(missing)}; the model has {len(expected)}")
    model.load_state_dict(tensors, strict=False)  # Strictness was checked above, with the file's name.


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name.

    Raises:
        InputError: as for `load_weights_`.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in {".pt", ".pth"}:
        return _read_torch(path)
    raise InputError(f"{path}: expected a .safetensors, .pt or .pth file, got {path.suffix or 'no suffix'!r}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file (cut short?): {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds more than tensors, or is damaged, and is not loaded, because a pickle can run any code; "
            "save `model.state_dict()` instead of the model"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable torch file (cut short?): {error}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise InputError(f"{path}: expected a mapping of names to tensors, got {type(loaded).__name__}")
    return {str(name): tensor for name, tensor in loaded.items()}


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """DataParallel wraps a model as `module`."""
    if tensors and all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    unexpected = [n for n in tensors if n not in expected]
    if unexpected:
        hint = suggest(unexpected[0], tuple(expected)).split("; known", maxsplit=1)[0].split("? known")[0]
        raise InputError(
            f"{path}: tensor {unexpected[0]!r} is not in the model{_more(unexpected)}{hint + '?' if hint else ''}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{path}: tensor {name!r}: expected shape {tuple(expected[name].shape)}, got {tuple(tensor.shape)}",
                tensor=name,
                expected=list(expected[name].shape),
                found=list(tensor.shape),
            )


def _shared(name: str, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Whether the model's tensor of this name is also known by a name that the file has."""
    wanted = expected[name]
    return any(
        expected[n].data_ptr() == wanted.data_ptr() and expected[n].shape == wanted.shape and wanted.numel() > 0
        for n in tensors
    )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
