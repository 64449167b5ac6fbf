"""How much memory this process took: with the runtime alone, while loading, while running, and its fair share of it.

The kernel keeps one high-water mark of resident memory a process, VmHWM. Writing 5 to /proc/self/clear_refs sets it
back to what is resident now (proc(5), since Linux 4.0), so that loading and running have a peak each. Where that is
forbidden, running is told by the mark when it rose above that of loading, else by what is resident at the end.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

from .evidence import peak_memory_bytes, read

CLEAR_REFS = "/proc/self/clear_refs"
_RESET_PEAK = "5"


class MemoryWatch:
    """Collects the memory fields of `records.measurement.Block`, in the order of the calls."""

    def __init__(self, clear_refs: str = CLEAR_REFS) -> None:
        self._clear_refs = clear_refs
        self._reset = False
        self._fields: Dict[str, Any] = {}

    def runtime_ready(self) -> None:
        """The runtime is imported and the inputs are read; nothing is loaded yet."""
        self._fields["base_bytes"] = peak_memory_bytes()

    def loaded(self) -> None:
        """The artifact is loaded; nothing has run yet."""
        self._fields["peak_load_bytes"] = peak_memory_bytes()
        self._reset = reset_peak(self._clear_refs)

    def fields(self) -> Dict[str, Any]:
        """All of them; to be called after the last run."""
        loading, mark = self._fields["peak_load_bytes"], peak_memory_bytes()
        apart = self._reset or mark > loading
        return dict(
            self._fields,
            peak_run_bytes=mark if apart else kilobytes("/proc/self/status", "VmRSS:") or mark,
            peak_bytes=max(loading, mark),
            peak_run_by="high-water mark" if apart else "resident at the end",
            pss_bytes=kilobytes("/proc/self/smaps_rollup", "Pss:"),
        )


def reset_peak(path: str = CLEAR_REFS) -> bool:
    """Set VmHWM back to what is resident now; False where that is forbidden."""
    try:
        with open(path, "w", encoding="ascii") as stream:
            stream.write(_RESET_PEAK)
    except OSError:
        return False
    return True


def kilobytes(path: str, key: str) -> Optional[int]:
    """A value of /proc in bytes; None where it is not told."""
    for line in read(path).splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None
