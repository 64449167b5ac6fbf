"""Packs the agent into one file that `python3 agent.pyz` runs: the same bytes from the same sources."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib.resources import files

_FOLDER = "edgeprune_agent"
_MAIN = f"import sys\nfrom {_FOLDER}.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
# The earliest time that a zip file can hold; a real one would change the digest at every checkout.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


@cache
def agent_bytes() -> bytes:
    """The agent as a zip file with a `__main__.py`. Names are sorted and times fixed."""
    device = files("edgeprune.benchmarking.agent") / "device"
    sources = {f"{_FOLDER}/{f.name}": f.read_text("utf-8") for f in device.iterdir() if f.name.endswith(".py")}
    sources["__main__.py"] = _MAIN
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(sources):
            # Stored, not deflated: another zlib would write other bytes.
            archive.writestr(zipfile.ZipInfo(name, _TIMESTAMP), sources[name])
    return buffer.getvalue()


def agent_digest() -> str:
    """The sha256 of `agent_bytes()`, in hex."""
    return hashlib.sha256(agent_bytes()).hexdigest()
