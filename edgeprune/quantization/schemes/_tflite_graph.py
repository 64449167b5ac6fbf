"""What the schemes of TFLite look up in a file's graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TfliteGraph:
    """One subgraph of a file: operators and tensors as the schema's own objects.

    Attributes:
        model: the whole file, unpacked.
        subgraph: of it.
    """

    model: Any
    subgraph: Any

    @cached_property
    def makers(self) -> dict[int, Any]:
        """Which operator writes a tensor, by the tensor's index; none writes an input or a constant."""
        return {index: operator for operator in self.subgraph.operators for index in operator.outputs}

    def kind(self, operator: Any) -> int:  # noqa: ANN401
        """One of `schema.BuiltinOperator`."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        # What a code over 127 has in its deprecated field is 127.
        return int(max(code.builtinCode, code.deprecatedBuiltinCode))

    def name(self, index: int) -> str:
        """Of a tensor."""
        return str(self.subgraph.tensors[index].name.decode())

    def constant(self, index: int) -> np.ndarray | None:
        """The values of a constant of float32; None for any other tensor."""
        from ai_edge_litert import schema_py_generated as schema

        tensor = self.subgraph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or tensor.type != schema.TensorType.FLOAT32:
            return None
        return np.frombuffer(bytes(data), dtype=np.float32)


def graphs_of(file: Path) -> tuple[TfliteGraph, ...]:
    """Every subgraph of a file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read_bytes(), 0))
    return tuple(TfliteGraph(model, subgraph) for subgraph in model.subgraphs)
