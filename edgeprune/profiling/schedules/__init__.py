"""Reads the schedule of a compiled file: one file of this folder a runtime."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import ScheduleReader
from edgeprune.registry import Registry

SCHEDULES: Final[Registry[ScheduleReader]] = Registry("edgeprune.profiling.schedules", "SCHEDULE", "runtime")
