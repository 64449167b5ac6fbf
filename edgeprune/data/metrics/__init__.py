"""What right means: one metric a file, found by the file's name."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Metric
from edgeprune.registry import Registry

METRICS: Final[Registry[Metric]] = Registry(__name__, "METRIC", "metric")
