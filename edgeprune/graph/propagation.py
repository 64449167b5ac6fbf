"""How labels go through the operations that torch runs: one rule a kind of operation.

An operation without a rule of its own counts as element by element where its shapes allow that; else what goes into it
is kept. Nothing rests on these rules alone: each cut is tried on a copy (`graph/trial.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from edgeprune.graph.labels import NOTHING, Labels, Partition, active, compact, contract, meet, padded
from edgeprune.graph.traced import Call, Tracks, sizes

Rule = Callable[[Labels, Call], list[Tracks]]
"""From one call to the tracks of its outputs."""

_MOVING = frozenset({
    "permute", "transpose", "t", "expand", "select", "unbind", "unsqueeze", "squeeze", "alias", "detach", "flip",
    "roll", "repeat", "diagonal", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
    "unfold", "tril", "triu",
})  # fmt: skip
_VIEWING = frozenset({"view", "_unsafe_view", "reshape", "_reshape_alias"})
_SPLITTING = frozenset({"split", "split_with_sizes", "glu"})
_REDUCING = frozenset({
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm",
    "logsumexp", "prod", "argmax", "argmin", "any", "all", "median",
})  # fmt: skip
_ALONG = frozenset({"_softmax", "_safe_softmax", "_log_softmax", "cumsum", "cumprod", "sort", "argsort"})
_SPATIAL = (
    "max_pool", "avg_pool", "adaptive_avg_pool", "_adaptive_avg_pool", "adaptive_max_pool", "upsample_", "_upsample_",
    "reflection_pad", "replication_pad",
)  # fmt: skip
_MATRIX = 2
_UNKNOWN = "{} mixes them in a way that is not followed"


def rule_for(name: str) -> Rule:
    """The rule of an operation, by its name without overload and without the underscore of the in-place form."""
    if name.startswith(_SPATIAL):
        return _spatial
    for names, rule in _BY_KIND:
        if name in names:
            return rule
    return _elementwise


def _elementwise(labels: Labels, call: Call) -> list[Tracks]:
    operands = call.operands
    fits = all(_broadcasts(t.shape, out.shape) for t in operands for out in call.outputs)
    if not fits or not call.outputs:
        return unfollowed(labels, call)
    found = meet(labels, [(call.tracks(t), sizes(t)) for t in operands])
    return [found for _ in call.outputs]


def unfollowed(labels: Labels, call: Call) -> list[Tracks]:
    """All that goes into an operation is kept, and what comes out of it is made by nothing."""
    for tensor in call.operands:
        for track in call.tracks(tensor):
            labels.keep(track, _UNKNOWN.format(call.name))
    return [() for _ in call.outputs]


def _moved(_labels: Labels, call: Call) -> list[Tracks]:
    given = call.operands[0]
    outputs: list[list[Tensor]] = [[] for _ in call.outputs]
    for track in call.tracks(given):
        for found, moved in zip(outputs, call.again(track.expand(given.shape)), strict=True):
            found.append(compact(moved))
    return [_live(found) for found in outputs]


def _viewed(labels: Labels, call: Call) -> list[Tracks]:
    (given, size), (output,) = call.arguments[:2], call.outputs
    if not isinstance(size, list | tuple):  # As another type of number.
        return _elementwise(labels, call)
    found = []
    for track in call.tracks(given):
        moved = compact(track.expand(given.shape).reshape(output.shape))
        if len(active(moved)) > len(active(track)):
            axes = active(moved)
            adapting = frozenset(i for i, axis in enumerate(axes) if size[axis] == -1)
            labels.partitions.append(Partition(labels=moved.squeeze(), modules=call.modules, adapting=adapting))
        found.append(moved)
    return [_live(found)]


def _split(labels: Labels, call: Call) -> list[Tracks]:
    """Into pieces along a dimension; those that are equally large lose the same channels."""
    given = call.operands[0]
    default = -1 if call.name == "glu" else 0
    dimension = int(call.argument(1 if call.name == "glu" else 2, "dim", default)) % given.dim()
    outputs: list[list[Tensor]] = [[] for _ in call.outputs]
    for track in call.tracks(given):
        full = track.expand(*(s if d == dimension else -1 for d, s in enumerate(given.shape)))
        if call.name == "glu":
            pieces = full.chunk(2, dimension)
        else:
            pieces = torch.split(full, [int(o.shape[dimension]) for o in call.outputs], dimension)
        if dimension in active(track):
            _note_pieces(labels, call, pieces, dimension)
        if call.name == "glu":
            outputs[0] += meet(labels, [([compact(p)], p.shape) for p in pieces])
            continue
        for found, piece in zip(outputs, pieces, strict=True):
            found.append(compact(piece))
    return [_live(found) for found in outputs]


def _note_pieces(labels: Labels, call: Call, pieces: Sequence[Tensor], dimension: int) -> None:
    if len({p.shape[dimension] for p in pieces}) == 1:
        stacked = torch.stack([p.movedim(dimension, 0).reshape(p.shape[dimension], -1) for p in pieces])
        matrix = stacked.squeeze(-1)
        labels.partitions.append(Partition(labels=matrix, modules=call.modules, pieces=len(pieces)))
        return
    for number, piece in enumerate(pieces):
        rows = piece.movedim(dimension, 0).reshape(piece.shape[dimension], -1)[:, 0]
        found = Partition(labels=rows[None], modules=call.modules, pieces=len(pieces), piece=number)
        labels.partitions.append(found)


def _sliced(labels: Labels, call: Call) -> list[Tracks]:
    given, (output,) = call.operands[0], call.outputs
    dimension = int(call.argument(1, "dim", 0)) % given.dim()
    found = []
    for track in call.tracks(given):
        (moved,) = call.again(track.expand(given.shape))
        if dimension in active(track) and output.shape[dimension] != given.shape[dimension]:
            _note_slice(labels, call, track.expand(given.shape), dimension)
        found.append(compact(moved))
    return [_live(found)]


def _note_slice(labels: Labels, call: Call, full: Tensor, dimension: int) -> None:
    """The width of a slice stands in the code, or is a share of the whole one: a half goes with the other half."""
    width = call.outputs[0].shape[dimension]
    count = full.shape[dimension] / width
    if int(call.argument(4, "step", 1)) != 1:
        labels.keep(full, "every so many of them are taken")
    elif count.is_integer():
        _note_pieces(labels, call, torch.split(full, width, dimension), dimension)
    else:
        start = int(call.argument(2, "start", 0) or 0) % full.shape[dimension]
        # What comes before moves the slice when it is cut.
        parts = torch.split(full, [start, width, full.shape[dimension] - start - width], dimension)
        _note_pieces(labels, call, [p for p in parts if p.shape[dimension]], dimension)


def _reduced(labels: Labels, call: Call) -> list[Tracks]:
    given = call.operands[0]
    dimensions, keep = _reduction(call, given)
    found = []
    for track in call.tracks(given):
        inside = [d for d in active(track) if d in dimensions]
        if inside == list(active(track)):
            continue
        left = labels.together(track, inside)
        kept = [size for d, size in enumerate(left.shape) if keep or d not in dimensions]
        found.append(left.reshape(kept))
    return [tuple(found) for _ in call.outputs]


def _reduction(call: Call, given: Tensor) -> tuple[set[int], bool]:
    position = 2 if call.name in {"linalg_vector_norm", "norm"} else 1
    asked = call.argument(position, "dim", None)
    if isinstance(asked, Tensor) or asked is None or asked == []:
        every = set(range(given.dim()))
        return every, all(o.dim() == given.dim() for o in call.outputs)
    dimensions = {d % given.dim() for d in (asked if isinstance(asked, list | tuple) else [asked])}
    return dimensions, call.outputs[0].dim() == given.dim()


def _along(labels: Labels, call: Call) -> list[Tracks]:
    given = call.operands[0]
    dimension = int(call.argument(1, "dim", -1)) % given.dim()
    found = tuple(
        labels.together(track, [dimension]) if active(track) != (dimension,) else track for track in call.tracks(given)
    )
    return [found for _ in call.outputs]


def _spatial(labels: Labels, call: Call) -> list[Tracks]:
    """Over the last one to three dimensions: channels stay what they are."""
    given = call.operands[0]
    counts = [n for n in (1, 2, 3) if f"{n}d" in call.name]
    spatial = range(given.dim() - (counts or [given.dim() - 2])[0], given.dim())
    found = []
    for track in call.tracks(given):
        inside = [d for d in active(track) if d in spatial]
        if inside == list(active(track)):
            labels.keep(track, _UNKNOWN.format(call.name))
        else:
            found.append(labels.together(track, inside))
    return [tuple(found) for _ in call.outputs]


def _concatenated(labels: Labels, call: Call) -> list[Tracks]:
    pieces, (output,) = call.arguments[0], call.outputs
    pieces = [p for p in pieces if p.dim() == output.dim()]
    dimension = int(call.argument(1, "dim", 0)) % output.dim()
    kinds = dict.fromkeys(_beside(t, dimension) for p in pieces for t in call.tracks(p))
    found = []
    for kind in kinds:
        parts = []
        for piece in pieces:
            own = [t for t in call.tracks(piece) if _beside(t, dimension) == kind]
            track = own[0] if own else torch.full((1,) * piece.dim(), NOTHING)
            shape = [s if d in {dimension, *kind} else 1 for d, s in enumerate(piece.shape)]
            parts.append(track.expand(shape))
        whole = torch.cat(parts, dimension)
        found.append(compact(labels.together(whole, [dimension]) if kind else whole))
    return [_live(found)]


def _beside(track: Tensor, dimension: int) -> tuple[int, ...]:
    return tuple(d for d in active(track) if d != dimension)


def _stacked(labels: Labels, call: Call) -> list[Tracks]:
    pieces, (output,) = call.arguments[0], call.outputs
    dimension = int(call.argument(1, "dim", 0)) % output.dim()
    found = meet(
        labels, [([t.unsqueeze(dimension) for t in call.tracks(p)], p.unsqueeze(dimension).shape) for p in pieces]
    )
    return [found]


def _padded(_labels: Labels, call: Call) -> list[Tracks]:
    given, amounts = call.operands[0], call.arguments[1]
    found = []
    for track in call.tracks(given):
        own = [
            amount if active(track)[-1:] and (given.dim() - 1 - i // 2) in active(track) else 0
            for i, amount in enumerate(amounts)
        ]
        found.append(compact(torch.constant_pad_nd(track, own, NOTHING)))
    return [_live(found)]


def _product(labels: Labels, call: Call) -> list[Tracks]:
    operands = call.operands
    bias = operands[0] if call.name in {"addmm", "baddbmm", "addmv"} else None
    left, right = operands[-2:]
    left_tracks, right_tracks = call.tracks(left), call.tracks(right)
    left_shape, right_shape = sizes(left), sizes(right)
    if right.dim() == 1:
        right_tracks, right_shape = tuple(t[:, None] for t in right_tracks), [*right_shape, 1]
    if left.dim() == 1:
        left_tracks, left_shape = tuple(t[None] for t in left_tracks), [1, *left_shape]
    if len(left_shape) != len(right_shape):
        return unfollowed(labels, call)
    found = contract(labels, left_tracks, left_shape, right_tracks, right_shape)
    (output,) = call.outputs
    if output.dim() != len(left_shape):
        found = tuple(t.reshape(-1) for t in found)
    if bias is not None:
        found = meet(labels, [(call.tracks(bias), sizes(bias)), (found, output.shape)])
    return [found]


def _picked(labels: Labels, call: Call) -> list[Tracks]:
    """By number along some dimensions."""
    if call.name == "index_select":
        numbers = {int(call.arguments[1]) % call.operands[0].dim(): call.arguments[2]}
    else:
        numbers = dict(enumerate(call.arguments[1]))
    _note_lookup(labels, call, {d: n for d, n in numbers.items() if n is not None})
    return _moved(labels, call)


def _note_lookup(labels: Labels, call: Call, numbers: Mapping[int, Tensor]) -> None:
    """Of a matrix that weights alone make, what the model's input picks by number are rows of an embedding.

    What is picked by constants, such as positions and relative biases, is not.
    """
    table = call.operands[0]
    rows = {d for d, n in numbers.items() if n.dtype is not torch.bool and call.of_input(n)}
    if len(rows) != 1 or table.dim() != _MATRIX or call.of_input(table):
        return
    for track in call.tracks(table):
        if rows.isdisjoint(active(track)):
            labels.look_up(track)


def _embedded(labels: Labels, call: Call) -> list[Tracks]:
    weight, indices = call.operands[:2]
    _note_lookup(labels, call, {0: indices})
    found = [padded(t[:1].reshape(-1), indices.dim() + 1) for t in call.tracks(weight) if active(t) == (1,)]
    return [tuple(found)]


def _layer_norm(labels: Labels, call: Call) -> list[Tracks]:
    given, normalised = call.arguments[:2]
    first = given.dim() - len(normalised)
    found = []
    for track in call.tracks(given):
        inside = [d for d in active(track) if d >= first]
        if inside and inside != list(active(track)):
            found.append(labels.together(track, inside))
            continue
        if inside and len(normalised) > 1:
            labels.keep(track, "a norm over several dimensions at once holds them")
        elif inside:
            own = [t for w in call.operands[1:] for t in call.tracks(w)] + call.norm_axes(given.shape[-1])
            for axis in own:
                labels.join(track.reshape(-1), axis.reshape(-1))
            labels.partitions.append(Partition(labels=track.reshape(1, -1), modules=call.modules, pieces=1))
        found.append(track)
    return [tuple(found) for _ in call.outputs]


def _channel_norm(labels: Labels, call: Call) -> list[Tracks]:
    """Batch, instance and group norms: channels are the second dimension."""
    given = call.operands[0]
    own = [t for w in call.operands[1:] for t in call.tracks(w)] + call.norm_axes(given.shape[1])
    groups = int(call.arguments[6]) if call.name == "native_group_norm" else 1
    found = []
    for track in call.tracks(given):
        if 1 not in active(track):
            found.append(track)
            continue
        pure = labels.together(track, [d for d in active(track) if d != 1])
        for axis in own:
            labels.join(pure.reshape(-1), axis.reshape(-1))
        if 1 < groups < given.shape[1]:
            # Each group loses the same channels, so that the number of groups stays.
            labels.together(pure.reshape(groups, -1), [0])
        found.append(pure)
    return [tuple(found) for _ in call.outputs]


def _convolution(labels: Labels, call: Call) -> list[Tracks]:
    given, weight = call.operands[:2]
    layer = call.convolution(weight)
    tracks = [t for t in call.tracks(given) if 1 in active(t)]
    beside = [t for t in call.tracks(given) if set(active(t)) == {0}]
    for track in call.tracks(given):
        if 1 not in active(track) and set(active(track)) != {0}:
            labels.keep(track, _UNKNOWN.format("a convolution along them"))
    inputs = [labels.together(t, [d for d in active(t) if d != 1]).reshape(-1) for t in tracks]
    if layer is None:
        for track in (*inputs, *(t for operand in call.operands[1:] for t in call.tracks(operand))):
            labels.keep(track, "the weights of a convolution of theirs are computed as it runs")
        return [tuple(beside) for _ in call.outputs]
    taken, made = layer(labels)
    for track in inputs:
        labels.join(track, taken)
    made = made.reshape(1, -1, *([1] * (given.dim() - 2)))
    return [(*beside, made) if made.numel() > 1 else tuple(beside) for _ in call.outputs]


def _copied(labels: Labels, call: Call) -> list[Tracks]:
    """Into a tensor, or a part of one: the whole one then holds labels that its name does not show."""
    target, source = call.operands[0], call.operands[-1]
    partial = target.numel() * target.element_size() != target.untyped_storage().nbytes()
    if partial or target.shape != source.shape or call.name != "copy":
        return unfollowed(labels, call)
    return [call.tracks(source)]


def _live(tracks: Sequence[Tensor]) -> Tracks:
    return tuple(t for t in tracks if active(t))


def _broadcasts(shape: Sequence[int], output: Sequence[int]) -> bool:
    if len(shape) > len(output):
        return False
    return all(a in {1, b} for a, b in zip(reversed(shape), reversed(output), strict=False))


_BY_KIND: Final[tuple[tuple[frozenset[str], Rule], ...]] = (
    (_MOVING, _moved),
    (_VIEWING, _viewed),
    (_SPLITTING, _split),
    (frozenset({"slice"}), _sliced),
    (_REDUCING, _reduced),
    (_ALONG, _along),
    (frozenset({"cat"}), _concatenated),
    (frozenset({"stack"}), _stacked),
    (frozenset({"constant_pad_nd"}), _padded),
    (frozenset({"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"}), _product),
    (frozenset({"index", "index_select"}), _picked),
    (frozenset({"embedding"}), _embedded),
    (frozenset({"native_layer_norm"}), _layer_norm),
    (
        frozenset({
            "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
            "_batch_norm_with_update", "native_group_norm",
        }),
        _channel_norm,
    ),
    (frozenset({"convolution", "_convolution", "mkldnn_convolution"}), _convolution),
    (frozenset({"copy", "index_put", "index_copy", "scatter", "scatter_add", "masked_scatter"}), _copied),
)  # fmt: skip
