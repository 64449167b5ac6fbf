"""The sparse form of a .tflite file: weights in sparse storage, each behind a DENSIFY operator.

The interpreter unpacks such weights when it loads the file, so the outputs are those of the dense file. XNNPACK looks
for sparse kernels only where a file has them (TensorFlow, lite/delegates/xnnpack/xnnpack_delegate.cc: any weight behind
DENSIFY sets XNN_FLAG_HINT_SPARSE_INFERENCE).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgeprune.libraries import library_call
from edgeprune.protocols import CompiledFiles, SparseForm
from edgeprune.records.measurement import DeviceFacts
from edgeprune.records.sparsity import SparsePath
from edgeprune.runtimes._sparse_storage import SparseStorage, decode, encode, from_parameters, parameters
from edgeprune.runtimes._xnnpack_graph import Graph
from edgeprune.runtimes._xnnpack_rule import judge

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, SubGraphT, TensorT
    from torch import nn

_BLOCKS: Final = ((1, 1), (2, 1), (4, 1))
"""Output channels by input channels. A kernel is chosen by the zeros, not by how they are stored: the smallest wins."""

# tflite-runtime ended with 2.14, ai-edge-litert began anew with 1.0 and is at 2.3.
_OLD_LIBRARY = ((2, 5), (2, 14))


class TfLiteSparse:
    """Rewrites a float32 .tflite file, and says whether XNNPACK would run it by its sparse kernels."""

    def refusals(self, device: DeviceFacts) -> tuple[str, ...]:
        """XNNPACK has none for x86 with AVX, and the old library never used them."""
        found = []
        if device.machine in {"x86_64", "i686"} and "avx" in device.cpu_flags:
            found.append(
                "on x86 CPUs with AVX XNNPACK takes its dense kernels whatever the weights are: its sparse ones are "
                "for SSE (xnn_is_chw_compatible_config in XNNPACK, src/xnnpack/hardware-config.h)"
            )
        version = device.runtime_version("tflite")
        if version is not None and _OLD_LIBRARY[0] <= _release(version) <= _OLD_LIBRARY[1]:
            found.append(
                f"tflite {version} there is tflite_runtime, which was never seen to take the sparse path (2.14 on an "
                "emulated aarch64 device, docs/architecture.md); ai-edge-litert 2.3 does"
            )
        return tuple(found)

    def skips(self, layer: nn.Module) -> bool:
        """Ungrouped 1x1 convolutions over two axes, and linear layers."""
        from torch import nn

        if isinstance(layer, nn.Linear):
            return True
        return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1

    def store(self, source: CompiledFiles, folder: Path) -> CompiledFiles:
        """Write the file again, its float32 weights in sparse storage wherever that is smaller."""
        with library_call("tflite: cannot store the weights sparse", folder):
            from ai_edge_litert.tools import flatbuffer_utils

            model = flatbuffer_utils.read_model(str(source.folder / source.names[0]))
            for graph in model.subgraphs:
                _store_graph_(model, graph)
            flatbuffer_utils.write_model(model, str(folder / source.names[0]))
        return CompiledFiles(
            folder=folder, names=source.names[:1], inputs=source.inputs, outputs=source.outputs, format=source.format
        )

    def check(self, files: CompiledFiles, device: DeviceFacts) -> SparsePath:
        """XNNPACK's rule on the first graph of the file, and on the device."""
        with library_call(f"tflite: cannot read {files.names[0]}"):
            from ai_edge_litert.tools import flatbuffer_utils

            model = flatbuffer_utils.read_model(str(files.folder / files.names[0]))
            path = judge(_graph(model))
        dense = all(tensor.sparsity is None for tensor in model.subgraphs[0].tensors)
        unasked = ("no weights are in sparse storage, so XNNPACK is not asked for sparse kernels",) if dense else ()
        reasons = (*self.refusals(device), *unasked)
        # Where nothing is rewritten, nothing is rewritten wrongly.
        return replace(path, reasons=(*reasons, *path.reasons), wrong="" if reasons else path.wrong)


def _graph(model: ModelT) -> Graph:
    """The first graph of a file with all constants as arrays, those in sparse storage unpacked."""
    graph = model.subgraphs[0]
    constants = {
        index: data for index, _ in enumerate(graph.tensors) if (data := _constant(model, graph, index)) is not None
    }
    return Graph.of(model, graph, constants)


def _release(version: str) -> tuple[int, int]:
    numbers = [int(n) for n in re.findall(r"\d+", version)[:2]]
    return (numbers[0], numbers[1]) if len(numbers) > 1 else (0, 0)


def _store_graph_(model: ModelT, graph: SubGraphT) -> None:
    replaced: dict[int, int] = {}
    densify = []
    for index in _weight_tensors(model, graph):
        dense = _constant(model, graph, index)
        # XNNPACK (ai-edge-litert 2.3) does not load INT8 weights behind DENSIFY; its sparse kernels are for floats.
        if dense is None or dense.dtype != np.float32 or graph.tensors[index].sparsity is not None:
            continue
        stored = min((encode(dense, b) for b in _BLOCKS if dense.shape[0] % b[0] == 0), key=lambda s: s.size_bytes)
        # A tensor without any value would be an empty buffer, and an empty buffer is no constant.
        if stored.size_bytes >= dense.nbytes or not stored.values.size:
            continue
        replaced[index] = _add_unpacked_(graph, graph.tensors[index])
        _make_sparse_(model, graph.tensors[index], stored)
        densify.append(_operator(_densify_code_(model), index, replaced[index]))
    for operator in graph.operators:
        operator.inputs = [replaced.get(i, i) for i in operator.inputs]
    graph.operators = [*densify, *graph.operators]


def _weight_tensors(model: ModelT, graph: SubGraphT) -> Iterator[int]:
    """Second inputs of convolutions and fully connected operators, each once, in order."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    with_weights = {BuiltinOperator.CONV_2D, BuiltinOperator.FULLY_CONNECTED}
    seen: set[int] = set()
    for operator in graph.operators:
        weight = int(operator.inputs[1]) if len(operator.inputs) > 1 else -1
        if _code(model, operator.opcodeIndex) in with_weights and weight >= 0 and weight not in seen:
            seen.add(weight)
            yield weight


def _constant(model: ModelT, graph: SubGraphT, index: int) -> np.ndarray | None:
    from ai_edge_litert.schema_py_generated import TensorType

    kinds: dict[int, Any] = {
        TensorType.FLOAT32: np.float32, TensorType.FLOAT16: np.float16, TensorType.INT8: np.int8,
        TensorType.INT32: np.int32, TensorType.INT64: np.int64,
    }  # fmt: skip
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or tensor.type not in kinds:
        return None
    shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
    values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), kinds[tensor.type])
    if tensor.sparsity is not None:
        return decode(from_parameters(shape, tensor.sparsity, values))
    return values.reshape(shape)


def _add_unpacked_(graph: SubGraphT, tensor: TensorT) -> int:
    """The tensor that DENSIFY writes: as the weights were, with no data of its own (buffer 0 is empty by contract)."""
    unpacked = copy.copy(tensor)
    unpacked.name = (tensor.name or b"weights") + b"/unpacked"
    unpacked.buffer = 0
    graph.tensors.append(unpacked)
    return len(graph.tensors) - 1


def _make_sparse_(model: ModelT, tensor: TensorT, stored: SparseStorage) -> None:
    from ai_edge_litert.schema_py_generated import BufferT

    values = np.frombuffer(stored.values.tobytes(), np.uint8)
    others = sum(t.buffer == tensor.buffer for g in model.subgraphs for t in g.tensors)
    if others > 1:
        tensor.buffer = len(model.buffers)
        model.buffers.append(BufferT(data=values))
    else:
        model.buffers[tensor.buffer].data = values
    tensor.sparsity = parameters(stored)


def _operator(code: int, source: int, result: int) -> object:
    from ai_edge_litert import schema_py_generated as schema

    return schema.OperatorT(
        opcodeIndex=code,
        inputs=[source],
        outputs=[result],
        builtinOptionsType=schema.BuiltinOptions.DensifyOptions,
        builtinOptions=schema.DensifyOptionsT(),
    )


def _densify_code_(model: ModelT) -> int:
    from ai_edge_litert.schema_py_generated import BuiltinOperator, OperatorCodeT

    for index in range(len(model.operatorCodes)):
        if _code(model, index) == BuiltinOperator.DENSIFY:
            return index
    model.operatorCodes.append(
        OperatorCodeT(deprecatedBuiltinCode=BuiltinOperator.DENSIFY, builtinCode=BuiltinOperator.DENSIFY, version=1)
    )
    return len(model.operatorCodes) - 1


def _code(model: ModelT, index: int) -> int:
    code = model.operatorCodes[index]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


SPARSE_FORM: Final[SparseForm] = TfLiteSparse()
