"""Choosing wheels for a device that is not this host; pip itself is asked, its index is a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from wheels_for_tests import interpreter, make_wheel, only_index

from edgeprune.deployment.pip_messages import existing_wheels, no_wheel
from edgeprune.deployment.wheels import Fetcher, merged
from edgeprune.errors import BuildError, DeployError
from edgeprune.events import Event, Noted
from edgeprune.records.provisioning import Interpreter
from edgeprune.steps.provisioning import choose, lock_text


class Listening:
    def __init__(self) -> None:
        self.said: list[str] = []

    def emit(self, event: Event) -> None:
        assert isinstance(event, Noted)
        self.said.append(event.message)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    only_index(monkeypatch, tmp_path / "index")
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def _fetcher(tmp_path: Path, device: Interpreter) -> Fetcher:
    folder = tmp_path / "fetched"
    folder.mkdir()
    return Fetcher(interpreter=device, folder=folder)


def test_markers_are_judged_by_the_device(index: Path, tmp_path: Path) -> None:
    requires = (
        'old-help; python_version < "3.9"',
        'arm-help; platform_machine == "aarch64"',
        'x86-help; platform_machine == "x86_64"',
        'with-speed; extra == "speed"',
    )
    make_wheel(index, "onnxruntime", "1.0", requires=requires)
    make_wheel(index, "onnxruntime", "2.0", requires=("helper[speed]>=1",), tag="cp311-cp311-manylinux_2_28_aarch64")
    for name in ("old-help", "arm-help", "with-speed", "numpy"):
        make_wheel(index, name, "1.0")
    found = _fetcher(tmp_path, interpreter("3.8.10")).resolve(["onnxruntime"], ["numpy"])
    assert [f.wheel.name for f in found] == ["arm-help", "numpy", "old-help", "onnxruntime"]
    assert found[3].wheel.version == "1.0"


def test_extras_are_followed(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "onnxruntime", "2.0", requires=("helper[speed]>=1",))
    make_wheel(index, "helper", "1.5", requires=('fast; extra == "speed"', 'slow; extra == "comfort"'))
    make_wheel(index, "fast", "1.0")
    found = _fetcher(tmp_path, interpreter()).resolve(["onnxruntime"])
    assert [f.wheel.name for f in found] == ["fast", "helper", "onnxruntime"]


def test_all_that_ask_for_a_library_are_heard(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "openvino", "1.0", requires=("numpy>=1.5", "shared"))
    make_wheel(index, "shared", "2.0", requires=("numpy<2",))
    for version in ("1.4", "1.6", "2.1"):
        make_wheel(index, "numpy", version)
    found = _fetcher(tmp_path, interpreter()).resolve(["openvino"], ["numpy"])
    assert [(f.wheel.name, f.wheel.version) for f in found] == [
        ("numpy", "1.6"),
        ("openvino", "1.0"),
        ("shared", "2.0"),
    ]


def test_the_newest_platform_that_the_device_bears(index: Path, tmp_path: Path) -> None:
    for version, tag in (("1.0", "2_17"), ("2.0", "2_28"), ("3.0", "2_35")):
        make_wheel(index, "numpy", version, tag=f"cp311-cp311-manylinux_{tag}_aarch64")
    make_wheel(index, "numpy", "4.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    (found,) = _fetcher(tmp_path, interpreter(libc="glibc 2.31")).resolve(["numpy"])
    assert found.wheel.file == "numpy-2.0-cp311-cp311-manylinux_2_28_aarch64.whl"


@pytest.mark.parametrize(
    ("python", "expected"),
    [("3.11.2", ["ai-edge-litert 2.3", "numpy 2.1"]), ("3.8.10", ["numpy 1.9", "tflite-runtime 2.14"])],
)
def test_tflite_is_the_library_that_has_a_wheel(index: Path, tmp_path: Path, python: str, expected: list[str]) -> None:
    make_wheel(index, "ai-edge-litert", "2.3", tag="cp311-cp311-manylinux_2_27_aarch64", requires=("numpy>=1.23",))
    make_wheel(index, "tflite-runtime", "2.14", requires=("numpy>=1.0",))
    make_wheel(index, "numpy", "1.9")
    make_wheel(index, "numpy", "2.1")
    listening = Listening()
    found = choose(_fetcher(tmp_path, interpreter(python)), ["tflite"], listening)
    assert [f"{f.wheel.name} {f.wheel.version}" for f in found] == expected
    told = [line for line in listening.said if "tflite-runtime, because no wheel of ai-edge-litert" in line]
    assert bool(told) == (python == "3.8.10")


def test_no_library_of_a_runtime_has_a_wheel(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "ai-edge-litert", "2.3", tag="cp311-cp311-win_amd64")
    with pytest.raises(
        DeployError, match=r"no wheel of ai-edge-litert .*2\.3 for cp311.*no wheel of tflite-runtime"
    ) as e:
        choose(_fetcher(tmp_path, interpreter()), ["tflite"], Listening())
    assert e.value.facts["package"] == ["ai-edge-litert", "tflite-runtime"]


def test_no_wheel_says_for_what_and_what_there_is(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "onnxruntime", "1.9", tag="cp38-cp38-manylinux_2_17_x86_64")
    make_wheel(index, "onnxruntime", "2.0", tag="cp312-cp312-win_amd64")
    make_wheel(index, "onnxruntime", "2.0", tag="cp312-cp312-manylinux_2_28_aarch64")
    with pytest.raises(DeployError) as error:
        _fetcher(tmp_path, interpreter("3.9.2")).resolve(["onnxruntime"])
    assert error.value.message == (
        "no wheel of onnxruntime for the device: Linux (aarch64, 64 bit), glibc 2.31, Python 3.9.2; there is: "
        "2.0 for cp312-cp312-manylinux_2_28_aarch64, 2.0 for cp312-cp312-win_amd64"
    )
    assert error.value.facts["package"] == "onnxruntime"
    assert error.value.facts["platform"] == "aarch64 glibc 2.31"
    assert error.value.exit_code == 5


def test_no_wheel_of_it_at_all(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "onnxruntime", "1.0", requires=("nowhere>=3",))
    with pytest.raises(DeployError, match=r"no wheel of nowhere>=3 .*pip config list.* has no wheel of it at all"):
        _fetcher(tmp_path, interpreter()).resolve(["onnxruntime"])


def test_an_index_that_does_not_answer_is_not_the_devices_fault() -> None:
    said = "WARNING: Retrying after connection broken by 'NewConnectionError'\nNo matching distribution found for numpy"
    error = no_wheel("numpy", interpreter(), said)
    assert isinstance(error, BuildError)
    assert "connection broken" in error.message


def test_what_exists_is_of_a_version_that_is_allowed() -> None:
    names = (
        "x/numpy-1.9-cp27-none-any",
        "numpy-2.5-py3-none-any",
        "numpy-1.10rc1-py3-none-any",
        "other-1-py3-none-any",
    )
    said = "".join(f"Skipping {name}.whl\n" for name in names)
    assert existing_wheels(Requirement("numpy<2"), interpreter(), said) == ["1.9 for cp27-none-any"]
    assert existing_wheels(Requirement("numpy>3"), interpreter(), said) == ["2.5 for py3-none-any"]
    assert existing_wheels(Requirement("scipy"), interpreter(), said) == []


def test_addresses_are_refused() -> None:
    with pytest.raises(BuildError, match="only wheels from pip's package index"):
        merged([Requirement("numpy @ https://example.org/numpy.whl")])


def test_a_lock_is_what_pip_takes(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "numpy", "2.1")
    fetcher = _fetcher(tmp_path, interpreter())
    (found,) = fetcher.resolve(["numpy"])
    text = lock_text("a device", [found.wheel])
    assert text == f"# Made by edgeprune for a device\nnumpy==2.1 --hash=sha256:{found.wheel.sha256}\n"
