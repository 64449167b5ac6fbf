"""Branches of a TFLite file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

from edgeprune.libraries import library_call
from edgeprune.protocols import Slicer


class TfLiteSlicer:
    """Takes the operators of one branch out of the flatbuffer's only graph, with the tensors and buffers they use."""

    def slice(self, source: Path, folder: Path) -> int:
        """Write model.tflite into a folder for each branch."""
        with library_call(f"tflite: cannot slice {source}", folder):
            from ai_edge_litert.tools import flatbuffer_utils

            model = flatbuffer_utils.read_model(str(source))
            branches = _branches(model)
            for number, branch in enumerate(branches):
                (folder / str(number)).mkdir()
                part = _part(model, branch)
                flatbuffer_utils.write_model(part, str(folder / str(number) / source.name))
        return len(branches)


def _branches(model: Any) -> list[int]:  # noqa: ANN401
    """The tensors that the last concatenation joins."""
    (graph,) = model.subgraphs
    makers = {int(output): operator for operator in graph.operators for output in operator.outputs}
    operator = makers[int(graph.outputs[0])]
    while operator is not None and _name(model, operator) != "CONCATENATION":
        operator = makers.get(int(operator.inputs[0]))
    if operator is None:
        raise ValueError("expected a concatenation before the output")
    return [int(tensor) for tensor in operator.inputs]


def _name(model: Any, operator: Any) -> str:  # noqa: ANN401
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operator.opcodeIndex].builtinCode
    names: dict[int, str] = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    return names[code]


def _part(model: Any, branch: int) -> Any:  # noqa: ANN401
    """A model of the operators that a tensor needs; what is not changed is shared with the whole one."""
    (graph,) = model.subgraphs
    needed, operators = {branch}, []
    for operator in reversed(graph.operators):
        if needed.intersection(map(int, operator.outputs)):
            operators.append(operator)
            # An absent optional input is -1.
            needed.update(t for t in map(int, operator.inputs) if t >= 0)
    kept = sorted(needed | {int(graph.inputs[0])})
    place = {-1: -1, **{tensor: position for position, tensor in enumerate(kept)}}
    part = copy.copy(model)
    # Buffer 0 is the empty one by the format's rule.
    part.buffers = [model.buffers[0]]
    part.signatureDefs, part.metadata = [], []
    part_graph = copy.copy(graph)
    part_graph.tensors = [_moved(graph.tensors[t], model, part) for t in kept]
    part_graph.operators = [_renumbered(o, place) for o in reversed(operators)]
    part_graph.inputs, part_graph.outputs = [place[int(graph.inputs[0])]], [place[branch]]
    part.subgraphs = [part_graph]
    return part


def _moved(tensor: Any, model: Any, part: Any) -> Any:  # noqa: ANN401
    """A tensor whose buffer is the last one of the part."""
    moved = copy.copy(tensor)
    moved.buffer = len(part.buffers)
    part.buffers.append(model.buffers[tensor.buffer])
    return moved


def _renumbered(operator: Any, place: dict[int, int]) -> Any:  # noqa: ANN401
    renumbered = copy.copy(operator)
    renumbered.inputs = [place[int(t)] for t in operator.inputs]
    renumbered.outputs = [place[int(t)] for t in operator.outputs]
    return renumbered


SLICER: Final[Slicer] = TfLiteSlicer()
