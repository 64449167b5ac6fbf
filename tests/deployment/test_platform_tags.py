from __future__ import annotations

import json
import platform
from dataclasses import replace

import packaging.tags
import pytest
from wheels_for_tests import interpreter

from edgeprune.benchmarking.agent.device import interpreter as here
from edgeprune.deployment.platform_tags import platform_tags
from edgeprune.errors import DeployError
from edgeprune.records.codec import from_json
from edgeprune.records.provisioning import Interpreter


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="packaging names the tags of the running libc")
def test_of_this_machine_they_are_those_of_packaging() -> None:
    told = from_json(Interpreter, json.dumps(here.facts()))
    linux = f"linux_{platform.machine()}"
    # Where `linux_*` stands among them is not the same in all versions of packaging.
    expected = [tag for tag in packaging.tags.platform_tags() if tag != linux]
    assert platform_tags(told) == (*expected, linux)
    assert told.abi == next(packaging.tags.cpython_tags()).abi


def test_glibc_of_a_raspberry_pi() -> None:
    assert platform_tags(interpreter(libc="glibc 2.19")) == (
        "manylinux_2_19_aarch64", "manylinux_2_18_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64",
        "linux_aarch64",
    )  # fmt: skip


def test_old_x86_goes_down_to_manylinux1() -> None:
    tags = platform_tags(interpreter(machine="x86_64", libc="glibc 2.13"))
    assert tags[:3] == ("manylinux_2_13_x86_64", "manylinux_2_12_x86_64", "manylinux2010_x86_64")
    assert tags[-3:] == ("manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64")


def test_musl() -> None:
    assert platform_tags(interpreter(libc="musl 1.2")) == (
        "musllinux_1_2_aarch64", "musllinux_1_1_aarch64", "musllinux_1_0_aarch64", "linux_aarch64",
    )  # fmt: skip


@pytest.mark.parametrize(("machine", "narrow"), [("aarch64", "armv7l"), ("x86_64", "i686"), ("armv7l", "armv7l")])
def test_a_narrow_python_on_a_wide_kernel(machine: str, narrow: str) -> None:
    tags = platform_tags(interpreter(machine=machine, bits=32))
    assert f"manylinux_2_17_{narrow}" in tags
    assert all(tag.endswith(narrow) for tag in tags)


def test_soft_float_takes_no_manylinux() -> None:
    pi = interpreter(machine="armv7l", bits=32)
    assert "manylinux_2_31_armv7l" in platform_tags(replace(pi, multiarch="arm-linux-gnueabihf"))
    assert platform_tags(replace(pi, multiarch="arm-linux-gnueabi")) == ("linux_armv7l",)


def test_an_unknown_libc_takes_what_was_built_there() -> None:
    assert platform_tags(interpreter(libc="")) == ("linux_aarch64",)


def test_free_threads_have_wheels_of_their_own() -> None:
    assert interpreter("3.13.1").abi == "cp313"
    assert replace(interpreter("3.13.1"), free_threaded=True).abi == "cp313t"


@pytest.mark.parametrize("change", [("platform_system", "FreeBSD"), ("platform_python_implementation", "PyPy")])
def test_other_systems_are_refused(change: tuple[str, str]) -> None:
    device = interpreter()
    with pytest.raises(DeployError, match=f"CPython on Linux.*{change[1]}"):
        platform_tags(replace(device, markers=(*device.markers, change)))


def test_what_the_loader_of_musl_says() -> None:
    assert here.musl_version("musl libc (aarch64)\nVersion 1.2.4\nDynamic Program Loader\n") == "1.2"
    assert here.musl_version("ld.so: missing program name\n") == ""
