"""Cuts a compiled file of many branches into one file a branch: one file of this folder a runtime."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Slicer
from edgeprune.registry import Registry

SLICERS: Final[Registry[Slicer]] = Registry("edgeprune.profiling.slicing", "SLICER", "runtime")
