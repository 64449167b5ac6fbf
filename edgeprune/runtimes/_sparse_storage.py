"""Weights in TFLite's sparse storage: only the blocks that are not all zero, and where they stand.

Rows are everything but the last axis; each lists its blocks along the last axis (CSR). That is what converters of
TensorFlow's model optimization write, and what the DENSIFY operator reads.

Source: tensorflow/lite/schema/schema.fbs, table SparsityParameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import BuildError

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import SparsityParametersT

_DENSE, _SPARSE_CSR = 0, 1
_LEAST_AXES = 2


@dataclass(frozen=True, slots=True, eq=False)
class SparseStorage:
    """One tensor's blocks.

    Attributes:
        shape: of the dense tensor, two or more axes.
        block: (along the first axis, along the last axis).
        segments: [rows + 1], int32; row r's blocks are those from segments[r] to segments[r + 1].
        indices: [blocks], int32; where along the last axis each block stands, counted in blocks.
        values: [blocks, *block], the tensor's dtype.
    """

    shape: tuple[int, ...]
    block: tuple[int, int]
    segments: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    @property
    def size_bytes(self) -> int:
        """Of values, segments and indices in a file; alignment and table headers apart."""
        return int(self.values.nbytes + _narrow(self.segments).nbytes + _narrow(self.indices).nbytes)


def encode(weights: np.ndarray, block: tuple[int, int] = (1, 1)) -> SparseStorage:
    """Keep the blocks with anything in them but zeros.

    Args:
        weights: [first, ..., last], any dtype; NaN counts as a value, -0.0 as a zero.
        block: sizes that divide the first and the last axis.

    Raises:
        BuildError: the block does not divide the shape, or there are fewer than two axes.
    """
    if weights.ndim < _LEAST_AXES or weights.shape[0] % block[0] or weights.shape[-1] % block[1]:
        raise BuildError(f"sparse storage: blocks of {block} do not divide weights of shape {list(weights.shape)}")
    tiles = _tiles(weights, block)
    kept = (tiles != 0).any(axis=(2, 3))
    segments = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    indices = np.nonzero(kept)[1].astype(np.int32)
    return SparseStorage(tuple(weights.shape), block, segments, indices, np.ascontiguousarray(tiles[kept]))


def decode(stored: SparseStorage) -> np.ndarray:
    """The dense tensor again."""
    (down, across), shape = stored.block, stored.shape
    middle = shape[1:-1]
    rows = len(stored.segments) - 1
    tiles = np.zeros((rows, shape[-1] // across, down, across), stored.values.dtype)
    row_of_block = np.repeat(np.arange(rows), np.diff(stored.segments))
    tiles[row_of_block, stored.indices] = stored.values
    dense = tiles.reshape(shape[0] // down, *middle, shape[-1] // across, down, across)
    return np.moveaxis(dense, -2, 1).reshape(shape)


def _tiles(weights: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """[first / down * middle, last / across, down, across], a row of blocks for each row of the sparse matrix."""
    down, across = block
    split = weights.reshape(weights.shape[0] // down, down, *weights.shape[1:-1], weights.shape[-1] // across, across)
    return np.moveaxis(split, 1, -2).reshape(-1, weights.shape[-1] // across, down, across)


def parameters(stored: SparseStorage) -> SparsityParametersT:
    """The flatbuffer's description of it: traversal order, block map, and a description of each axis."""
    from ai_edge_litert import schema_py_generated as schema

    axes = len(stored.shape)
    down = stored.block[0]
    blocked = stored.block != (1, 1)
    sizes = [stored.shape[0] // down, *stored.shape[1:-1]]
    described = [schema.DimensionMetadataT(format=_DENSE, denseSize=size) for size in sizes]
    segments, indices = _narrow(stored.segments), _narrow(stored.indices)
    described.append(
        schema.DimensionMetadataT(
            format=_SPARSE_CSR,
            arraySegmentsType=_vector_type(segments),
            arraySegments=_vector(segments),
            arrayIndicesType=_vector_type(indices),
            arrayIndices=_vector(indices),
        )
    )
    if blocked:
        described += [schema.DimensionMetadataT(format=_DENSE, denseSize=size) for size in stored.block]
    return schema.SparsityParametersT(
        traversalOrder=list(range(axes + 2 * blocked)),
        blockMap=[0, axes - 1] if blocked else [],
        dimMetadata=described,
    )


def from_parameters(shape: tuple[int, ...], described: SparsityParametersT, values: np.ndarray) -> SparseStorage:
    """Read what `parameters` describes.

    Args:
        shape: of the dense tensor.
        described: from a file.
        values: flat, as in the tensor's buffer.

    Raises:
        BuildError: another program's file, with an order of axes that is not the one written here.
    """
    axes = len(shape)
    order, block_map = (
        list(described.traversalOrder),
        list(described.blockMap if described.blockMap is not None else []),
    )
    metadata = described.dimMetadata or []
    formats = [axis.format for axis in metadata[:axes]]
    known = order == list(range(len(order))) and formats == [_DENSE] * (axes - 1) + [_SPARSE_CSR]
    if not known or block_map not in ([], [0, axes - 1]):
        raise BuildError(
            "sparse storage: expected axes in order, the last one in CSR, and blocks of the first and the last axis; "
            f"found order {order}, blocks of {block_map}, formats {formats}"
        )
    block = (metadata[axes].denseSize, metadata[axes + 1].denseSize) if block_map else (1, 1)
    csr = metadata[axes - 1]
    segments, indices = (np.asarray(v.values, np.int32) for v in (csr.arraySegments, csr.arrayIndices))
    return SparseStorage(shape, block, segments, indices, values.reshape(-1, *block))


def _narrow(numbers: np.ndarray) -> np.ndarray:
    largest = int(numbers.max(initial=0))
    kind = (
        np.uint8 if largest <= np.iinfo(np.uint8).max else np.uint16 if largest <= np.iinfo(np.uint16).max else np.int32
    )
    return numbers.astype(kind)


def _vector_type(numbers: np.ndarray) -> int:
    from ai_edge_litert.schema_py_generated import SparseIndexVector as Kinds

    kinds = {"uint8": Kinds.Uint8Vector, "uint16": Kinds.Uint16Vector, "int32": Kinds.Int32Vector}
    return int(kinds[numbers.dtype.name])


def _vector(numbers: np.ndarray) -> object:
    from ai_edge_litert import schema_py_generated as schema

    kinds = {"uint8": schema.Uint8VectorT, "uint16": schema.Uint16VectorT, "int32": schema.Int32VectorT}
    return kinds[numbers.dtype.name](numbers.tolist())
