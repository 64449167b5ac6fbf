"""Devices whose work is a sleep: entries of one loopback sshd, each with its own work, lease and speed.

On each, `onnxruntime` is a module of ours whose model sleeps instead of computing. So many devices can work at the same
time on a machine of few cores, as so many boxes would.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx
from onnx import TensorProto, helper
from sshd import SshServer

from edgeprune.schema.device import DeviceSpec

_RUNTIME = '''
"""Looks like onnxruntime to the agent. A model waits for others where it is told to, and then sleeps each run."""
import os
import time

__version__ = "1.0"


class SessionOptions:
    pass


class ExecutionMode:
    ORT_SEQUENTIAL = 0


class GraphOptimizationLevel:
    ORT_ENABLE_ALL = 0


class Input:
    name = "x"


class InferenceSession:
    def __init__(self, path, options, providers):
        self.seconds = float(os.environ["SLEEP_S"])
        folder, wanted = os.environ.get("MEET_IN"), int(os.environ.get("MEET_NUMBER", "0"))
        if folder:
            open(os.path.join(folder, os.environ["MEET_AS"]), "w").close()
            end = time.monotonic() + 120.0
            while len(os.listdir(folder)) < wanted:
                if time.monotonic() > end:
                    raise RuntimeError("the others did not come: %s" % sorted(os.listdir(folder)))
                time.sleep(0.02)

    def get_inputs(self):
        return [Input()]

    def run(self, names, feed):
        time.sleep(self.seconds)
        return [feed["x"]]
'''


class Sleepers:
    """`with Sleepers() as lab: lab.device("edge1", sleep_s=0.01)`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgeprune-sleepers-"))
        # Whoever logs in there leaves its work folders, leases and meetings here.
        self.folder.chmod(0o777)
        self._server = SshServer(options=("MaxSessions 100",))
        runtime = self.folder / "runtime" / "onnxruntime"
        runtime.mkdir(parents=True)
        (runtime / "__init__.py").write_text(_RUNTIME)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def device(
        self, name: str, *, sleep_s: float, meet: Sequence[str] = (), lease: str = "", **changes: object
    ) -> DeviceSpec:
        """An entry of its own.

        Args:
            name: of the device.
            sleep_s: a run of any model.
            meet: the devices that must all have loaded the model before any of them goes on.
            lease: another device's name, to share its lease.
            changes: of the entry.
        """
        paths = ":".join([str(self.folder / "runtime"), *filter(None, [self._server.env.get("PYTHONPATH")])])
        lines = [f"export PYTHONPATH={shlex.quote(paths)} SLEEP_S={sleep_s}"]
        if meet:
            meeting = self.folder / f"meeting-{'-'.join((meet[0], str(len(meet))))}"
            meeting.mkdir(exist_ok=True)
            meeting.chmod(0o777)
            lines.append(f"export MEET_IN={meeting} MEET_NUMBER={len(meet)} MEET_AS={name}")
        python = self.folder / f"{name}-python"
        python.write_text("\n".join(["#!/bin/sh", *lines, f'exec {shlex.quote(self._server.python)} "$@"']) + "\n")
        python.chmod(0o755)
        places = {
            "python": str(python),
            "work_folder": str(self.folder / f"work-{name}"),
            "lease_folder": str(self.folder / f"lease-{lease or name}"),
        }
        return self._server.device(name, **{**places, **changes})

    def model(self) -> Path:
        """A real ONNX file, which no device here looks into."""
        path = self.folder / "sleep.onnx"
        shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "sleep", [shape], [result])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path
