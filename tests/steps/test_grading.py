from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_for_tests import make_facts

from edgeprune.records.cores import Core
from edgeprune.records.health import DeviceCondition, Grade
from edgeprune.records.measurement import DeviceFacts
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.grading import grade_change, grade_hardware, grade_software
from edgeprune.steps.health import _offset
from edgeprune.steps.inputs import load_profile

SPEC = DeviceSpec(schema=1, name="edge", profile="local", python="/opt/py/bin/python")
CONDITION = DeviceCondition(unix_s=0.0, memory_available_bytes=1_000_000_000, memory_limit="RLIMIT_DATA")


def _profile(**hardware: object) -> DeviceProfile:
    profile = load_profile("local")
    runtimes = {"openvino": profile.runtimes["openvino"]}
    values = {"arch": "x86_64", "cores": 4, "memory_mb": 8000, **hardware}
    return profile.model_copy(
        update={"runtimes": runtimes, "hardware": profile.hardware.model_copy(update=values)},
    )


def _software(facts: DeviceFacts) -> dict[str, Grade]:
    return {c.name: c.grade for c in grade_software(SPEC, facts)}


def _hardware(
    facts: DeviceFacts, profile: DeviceProfile, condition: DeviceCondition = CONDITION, offset_s: float = 0.0
) -> dict[str, tuple[Grade, str]]:
    return {c.name: (c.grade, c.found) for c in grade_hardware(SPEC, facts, profile, condition, offset_s=offset_s)}


def test_a_device_that_has_all_is_ok() -> None:
    checks = (
        *grade_software(SPEC, make_facts()),
        *grade_hardware(SPEC, make_facts(), _profile(), CONDITION, offset_s=0.0),
    )
    assert {c.grade for c in checks} == {Grade.OK}
    assert not any(c.advice for c in checks)


@pytest.mark.parametrize(
    ("change", "name", "grade"),
    [
        ({"python": "3.7.9"}, "python", Grade.PROBLEM),
        ({"python": "3.8.0"}, "python", Grade.OK),
        ({"python": "3.13.0rc1"}, "python", Grade.OK),
        ({"numpy": ""}, "numpy", Grade.PROBLEM),
        ({"runtimes": ()}, "runtimes", Grade.PROBLEM),
        ({"disk_free_bytes": 999_999}, "disk", Grade.PROBLEM),
        ({"disk_free_bytes": 999_999_999}, "disk", Grade.WARNING),
        ({"disk_free_bytes": 1_000_000_000}, "disk", Grade.OK),
    ],
)
def test_software(change: dict[str, object], name: str, grade: Grade) -> None:
    found = _software(replace(make_facts(), **change))
    assert found.pop(name) is grade
    assert set(found.values()) == {Grade.OK}


def test_advice_is_a_command_that_mends_it() -> None:
    (numpy,) = (c for c in grade_software(SPEC, replace(make_facts(), numpy="")) if c.name == "numpy")
    assert numpy.advice == f"edgeprune device provision {SPEC.name} --runtime RUNTIME"


@pytest.mark.parametrize(
    ("hardware", "name"),
    [({"arch": "aarch64"}, "machine"), ({"cores": 5}, "cores"), ({"memory_mb": 10_000}, "memory")],
)
def test_what_differs_from_the_profile_is_a_warning(hardware: dict[str, object], name: str) -> None:
    found = _hardware(make_facts(), _profile(**hardware))
    assert found.pop(name)[0] is Grade.WARNING
    assert {grade for grade, _ in found.values()} == {Grade.OK}


def test_a_missing_runtime_of_the_profile_is_a_warning() -> None:
    found = _hardware(replace(make_facts(), runtimes=(("tflite", "2.14"),)), _profile())
    assert found["profile's runtimes"] == (Grade.WARNING, "not installed on the device: openvino")


def test_ram_that_firmware_keeps_is_no_difference() -> None:
    assert _hardware(replace(make_facts(), memory_bytes=7_000_000_000), _profile())["memory"][0] is Grade.OK


def test_what_is_of_the_moment() -> None:
    poor = DeviceCondition(unix_s=0.0, memory_available_bytes=10_000_000, memory_limit="")
    found = _hardware(make_facts(), _profile(), poor, offset_s=-90.0)
    assert {name for name, (grade, _) in found.items() if grade is Grade.WARNING} == {
        "memory", "clock", "memory limits"
    }  # fmt: skip
    assert found["clock"][1] == "1 min 30 s behind this host's"
    assert _hardware(make_facts(), _profile(), offset_s=7.0)["clock"][1] == "7.0 s ahead of this host's"
    silent = replace(CONDITION, memory_available_bytes=None)
    assert _hardware(make_facts(), _profile(), silent)["memory"] == (Grade.OK, "8000 MB")


@given(
    offset=st.floats(-1e4, 1e4),
    there_s=st.floats(0, 60),
    back_s=st.floats(0, 60),
)
def test_a_clock_is_off_by_at_least_what_is_said(offset: float, there_s: float, back_s: float) -> None:
    """Whatever the ways there and back took: never more than the truth, and less by the round trip at most."""
    asked_s = 1e6
    device_s = asked_s + there_s + offset
    said = _offset(device_s, asked_s, asked_s + there_s + back_s)
    assert abs(said) <= abs(offset) + 1e-6
    assert said * offset >= -1e-6
    assert abs(offset - said) <= there_s + back_s + 1e-6


def test_another_kernel_is_told_and_less_disk_is_not() -> None:
    now = make_facts()
    assert grade_change(None, now).grade is Grade.OK
    assert grade_change(replace(now, disk_free_bytes=1, boot_id="other"), now).grade is Grade.OK
    changed = grade_change(replace(now, kernel="6.0.0", runtimes=()), now)
    assert changed.grade is Grade.WARNING
    assert "changed in: kernel, runtimes" in changed.found


@pytest.mark.parametrize("field", [f.name for f in fields(DeviceFacts)])
def test_fingerprints_differ_by_what_is_named(field: str) -> None:
    before = replace(make_facts(), topology=(Core(cpus=(0,)),))
    after = replace(before, **{field: (Core(cpus=(1,)),)})
    assert (before.fingerprint != after.fingerprint) == (after.differing(before) == (field,))
    assert before.differing(before) == ()
    # What was kept before cores were told is no other device.
    assert before.differing(make_facts()) == make_facts().differing(before) == ()
