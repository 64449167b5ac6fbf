"""Branches of OpenVINO IR."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgeprune.libraries import library_call
from edgeprune.protocols import Slicer


class OpenVinoSlicer:
    """Makes a model of each input of the last concatenation."""

    def slice(self, source: Path, folder: Path) -> int:
        """Write model.xml and model.bin into a folder for each branch."""
        with library_call(f"openvino: cannot slice {source}", folder):
            import openvino
            from openvino import opset13

            model = openvino.Core().read_model(source)
            node = model.outputs[0].get_node()
            while node.get_type_name() != "Concat":
                if not node.inputs():
                    raise ValueError("expected a concatenation before the output")
                node = node.input_value(0).get_node()
            branches = node.input_values()
            for number, branch in enumerate(branches):
                part = openvino.Model([opset13.result(branch)], model.get_parameters(), "model")
                (folder / str(number)).mkdir()
                openvino.save_model(part, folder / str(number) / source.name, compress_to_fp16=False)
        return len(branches)


SLICER: Final[Slicer] = OpenVinoSlicer()
