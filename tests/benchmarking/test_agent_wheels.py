from __future__ import annotations

import io
from pathlib import Path

import pytest
from wheels_for_tests import make_wheel

from edgeprune.benchmarking.agent.device import sessions, wheels
from edgeprune.benchmarking.agent.device.reply import AgentError


def test_files_land_where_the_format_says(tmp_path: Path) -> None:
    more = {
        "numpy-1.0.data/purelib/pure.py": b"pure",
        "numpy-1.0.data/platlib/fast/lib.so": b"fast",
        "numpy-1.0.data/data/share/doc.txt": b"doc",
        "numpy-1.0.data/scripts/tool": b"tool",
        "numpy-1.0.data/headers/numpy.h": b"header",
        "numpy.libs/libblas.so": b"blas",
    }
    path = make_wheel(tmp_path, "numpy", "1.0", more=more)
    prefix = tmp_path / "made"
    site = prefix / "lib"
    wheels.unpack(str(path), str(site), str(prefix))
    found = {str(p.relative_to(prefix)) for p in prefix.rglob("*") if p.is_file()}
    assert found == {
        "lib/numpy/__init__.py", "lib/numpy-1.0.dist-info/METADATA", "lib/numpy-1.0.dist-info/WHEEL",
        "lib/numpy-1.0.dist-info/RECORD", "lib/pure.py", "lib/fast/lib.so", "lib/numpy.libs/libblas.so",
        "share/doc.txt",
    }  # fmt: skip
    assert (prefix / "share/doc.txt").read_bytes() == b"doc"
    assert wheels.unpacked_bytes(str(path)) > sum(map(len, more.values()))


@pytest.mark.parametrize("name", ["../outside", "/outside", "numpy/../../outside", "numpy-1.0.data/data/../outside"])
def test_nothing_lands_outside(tmp_path: Path, name: str) -> None:
    path = make_wheel(tmp_path / "wheels", "numpy", "1.0", more={name: b"bad"})
    with pytest.raises(AgentError, match="would leave the environment"):
        wheels.unpack(str(path), str(tmp_path / "made" / "lib"), str(tmp_path / "made"))
    assert not list(tmp_path.rglob("outside"))


def test_no_zip_file(tmp_path: Path) -> None:
    (tmp_path / "numpy.whl").write_bytes(io.BytesIO(b"nothing").getvalue())
    with pytest.raises(AgentError, match="is no wheel"):
        wheels.unpacked_bytes(str(tmp_path / "numpy.whl"))


def test_every_runtime_says_what_indexes_call_it() -> None:
    assert sessions.distributions("tflite") == [("ai-edge-litert", []), ("tflite-runtime", ["numpy<2"])]
    assert all(sessions.distributions(name) for name in sessions.names())
