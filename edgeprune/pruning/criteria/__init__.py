"""How much an output channel matters: one criterion a file, found by the file's name."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Criterion
from edgeprune.registry import Registry

CRITERIA: Final[Registry[Criterion]] = Registry(__name__, "CRITERION", "pruning criterion")
