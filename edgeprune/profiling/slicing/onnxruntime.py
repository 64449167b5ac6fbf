"""Branches of an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from edgeprune.libraries import library_call
from edgeprune.protocols import Slicer


class OnnxRuntimeSlicer:
    """Slices with ONNX's own extractor."""

    def slice(self, source: Path, folder: Path) -> int:
        """Write model.onnx into a folder for each branch."""
        with library_call(f"onnxruntime: cannot slice {source}", folder):
            import onnx
            from onnx.utils import Extractor

            model = onnx.shape_inference.infer_shapes(onnx.load(source))
            extractor = Extractor(model)
            branches = list(_concatenation(model.graph).input)
            for number, branch in enumerate(branches):
                part = extractor.extract_model([model.graph.input[0].name], [branch])
                (folder / str(number)).mkdir()
                (folder / str(number) / source.name).write_bytes(part.SerializeToString(deterministic=True))
        return len(branches)


def _concatenation(graph: Any) -> Any:  # noqa: ANN401
    makers = {output: node for node in graph.node for output in node.output}
    node = makers[graph.output[0].name]
    while node is not None and node.op_type != "Concat":
        node = makers.get(node.input[0])
    if node is None:
        raise ValueError("expected a concatenation before the output")
    return node


SLICER: Final[Slicer] = OnnxRuntimeSlicer()
