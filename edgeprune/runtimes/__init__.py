"""What runs the compiled model: one file a runtime, which compiles for it."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Runtime
from edgeprune.registry import Registry

RUNTIMES: Final[Registry[Runtime]] = Registry("edgeprune.runtimes", "RUNTIME", "runtime")
