"""Float32 files that several precisions of one shape begin with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import BuildError
from edgeprune.protocols import CompiledFiles
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact
from edgeprune.steps.float_files import FloatFiles, copied

SAMPLES = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()


def made(folder: Path) -> CompiledFiles:
    (folder / "model").write_text(str(folder))
    return CompiledFiles(folder=folder, names=("model",), inputs=(), outputs=(), format="text")


def test_files_are_made_once_and_the_ones_asked_for_last_stay() -> None:
    floats, keys = FloatFiles(), [str(number) for number in range(8)]
    first = {key: floats.of(key, made).folder for key in keys}
    assert floats.of("0", made).folder == first["0"]
    floats.of("another", made)
    assert not first["1"].exists()
    assert all(first[key].exists() for key in keys if key != "1")
    assert floats.of("0", made).folder == first["0"]
    assert floats.of("1", made).folder != first["1"]


def test_what_cannot_be_made_is_not_kept() -> None:
    floats = FloatFiles()

    def refuse(folder: Path) -> CompiledFiles:
        raise BuildError(f"nothing in {folder}")

    with pytest.raises(BuildError, match="nothing in"):
        floats.of("a", refuse)
    assert floats.of("a", made).names == ("model",)


def test_a_copy_is_independent_of_what_is_kept(tmp_path: Path) -> None:
    floats = FloatFiles()
    kept = floats.of("a", made)
    copy = copied(kept, tmp_path)
    # All of them go with what keeps them.
    del floats
    assert not kept.folder.parent.exists()
    assert (tmp_path / "model").read_text() == str(kept.folder)
    assert copy.folder == tmp_path
    assert copied(copy, tmp_path) == copy


@pytest.mark.parametrize("runtime", RUNTIMES.names())
def test_a_shape_is_exported_once_for_float32_and_int8_and_gives_the_same_files(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, count = type(RUNTIMES.get(runtime)), 0
    compile_once = kind.compile

    def counted(*arguments: object) -> CompiledFiles:
        nonlocal count
        count += 1
        return compile_once(*arguments)

    monkeypatch.setattr(kind, "compile", counted)
    floats, shared = FloatFiles(), model()
    for keep in (floats.of, None):
        job = CompileJob(shared, (1, 3, 8, 8), SAMPLES, keep=keep)
        for precision in (Precision.INT8, Precision.FLOAT32):
            folder = tmp_path / f"{precision.value}-{keep is None}"
            folder.mkdir()
            compile_artifact(job, Rung(runtime=runtime, precision=precision), folder)
        assert count == (1 if keep else 3)
    for precision in ("float32", "int8"):
        one, other = (sorted((tmp_path / f"{precision}-{anew}").iterdir()) for anew in (False, True))
        assert [path.name for path in one] == [path.name for path in other]
        assert [path.stat().st_size for path in one] == [path.stat().st_size for path in other]
