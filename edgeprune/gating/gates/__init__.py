"""The gates, one a file, each ending with `GATE: Final[Gate] = ...`; the file's name is the gate's name."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Gate
from edgeprune.registry import Registry

GATES: Final[Registry[Gate]] = Registry("edgeprune.gating.gates", "GATE", "gate")
