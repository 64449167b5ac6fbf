"""What a device's environment has now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgeprune.records.codec import to_plain
from edgeprune.units import format_mb

if TYPE_CHECKING:
    from edgeprune.records.provisioning import Provision


def provision(found: Provision, output_format: str) -> str:
    """What it runs, where it is, and what was done."""
    if output_format == "json":
        return json.dumps({"schema": 1, **to_plain(found)})
    runtimes = ", ".join(f"{name} {version}" for name, version in found.runtimes)
    count, total = len(found.wheels), format_mb(sum(wheel.size_bytes for wheel in found.wheels))
    if found.changed:
        done = f"new environment of {count} wheels, {total}; {format_mb(found.sent_bytes)} sent"
    else:
        done = f"nothing to do: it has these {count} wheels already, and they can be imported"
    lines = [
        f"{found.device}: {runtimes}; numpy {found.numpy}",
        f"  {done}",
        f"  python {found.python}, made with {found.base_python}: {found.interpreter}",
        f"  lock {found.lock_file}",
    ]
    gone = [name for name, _ in found.before if name not in dict(found.runtimes)]
    if gone:
        lines.append(f"  no longer there: {', '.join(gone)}; name all runtimes at once to have them together")
    return "\n".join(lines)
