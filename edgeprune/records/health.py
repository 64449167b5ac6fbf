"""What a check of a device found: one grade for each thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgeprune.records.measurement import DeviceFacts


class Grade(StrEnum):
    """OK; WARNING (it can be used, but read this); PROBLEM (it is not used)."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        found: in words, with units.
        advice: what to do; empty where nothing needs doing.
    """

    name: str
    grade: Grade
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCondition:
    """What of a device is of the moment, as the agent there tells it.

    Attributes:
        unix_s: by the device's clock.
        memory_available_bytes: that new processes can have without swap; None where the device does not tell.
        memory_limit: how a memory limit can be imposed: `cgroup v2`, `cgroup v1` or `RLIMIT_DATA`; empty: not at all.
    """

    unix_s: float
    memory_available_bytes: int | None
    memory_limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHealth:
    """The last check of a device.

    Attributes:
        checked_unix_s: when, by this host's clock.
        spec_digest: of the device's file then; a health of another file says nothing.
        checks: in the order looked at; what could not be looked at for an earlier problem is missing.
        facts: None where the check did not come so far.
    """

    device: str
    checked_unix_s: float
    spec_digest: str
    checks: tuple[Check, ...]
    facts: DeviceFacts | None = None

    @property
    def grade(self) -> Grade:
        """The worst of all."""
        found = {check.grade for check in self.checks}
        return next((g for g in (Grade.PROBLEM, Grade.WARNING) if g in found), Grade.OK)

    @property
    def fingerprint(self) -> str:
        """That of the facts; empty where there are none."""
        return self.facts.fingerprint if self.facts else ""

    def graded(self, grade: Grade) -> tuple[Check, ...]:
        """The checks of one grade."""
        return tuple(check for check in self.checks if check.grade is grade)
