"""Ways to make an INT8 artifact: one file a scheme."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Scheme
from edgeprune.registry import Registry

SCHEMES: Final[Registry[Scheme]] = Registry("edgeprune.quantization.schemes", "SCHEME", "quantization scheme")
