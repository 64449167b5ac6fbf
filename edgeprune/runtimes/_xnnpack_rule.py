"""Would XNNPACK run this graph by its sparse kernels? Its own rule, step by step, with the reason where it says no.

It rewrites a group of operators that are connected (a cluster) to channels-first layout, in which its sparse 1x1
convolutions work, where each of them has such a kernel, nobody else reads what flows between them, the cluster ends in
a spatial mean (or depth-to-space), and more than two thirds of the weights of its 1x1 convolutions and fully connected
operators are zero. One operator that does not fit spoils its whole cluster.

This is the rule of XNNPACK in 2026 (ai-edge-litert 2.3); it was read, not called: the libraries are built without a way
to ask. That every operator is one that TFLite hands to XNNPACK is taken for granted. A measurement has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Flag, auto
from typing import Final

from edgeprune.records.sparsity import LayerZeros, SparsePath
from edgeprune.runtimes._xnnpack_graph import IMAGE_AXES, Graph, Operator, is_pointwise

SOURCE: Final = "XNNPACK, src/subgraph.c: xnn_check_nchw_compatibility and xnn_subgraph_rewrite_for_nchw"

_UNARY = frozenset({
    "ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG", "RELU",
    "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE", "TANH",
})  # fmt: skip
_SPATIAL_MEANS = ({1, 2}, {-3, -2})
_STEM_CHANNELS = 3
_STEM: Final = "the only one allowed has 3 channels, stride 2 and padding 1, and comes first"


class Layout(Flag):
    """What an operator's kernels can do: stay in channels-first, enter it, leave it."""

    NONE = 0
    INSIDE = auto()
    ENTERS = auto()
    LEAVES = auto()


def judge(graph: Graph) -> SparsePath:
    """The rule on one graph. Where several clusters stand in it, one that is taken is enough."""
    clusters = _Clusters(graph)
    paths = []
    for numbers in clusters.members():
        layers = _layers([graph.operators[n] for n in numbers])
        if not layers:
            continue
        reasons, missing = clusters.reasons(numbers), missing_zeros(layers)
        reasons = (*reasons, _told(layers, missing)) if missing else reasons
        wrong = "" if reasons else clusters.spilt(numbers)
        paths.append(SparsePath(reasons=reasons, wrong=wrong, layers=layers, source=SOURCE, missing_zeros=missing))
    if not paths:
        return SparsePath(reasons=("the graph has no 1x1 convolution and no fully connected operator",), source=SOURCE)
    # The one with the most weights is the model's own; what it lacks is what a person wants to know.
    chosen = max([p for p in paths if p.taken] or paths, key=lambda path: sum(x.weights for x in path.layers))
    return replace(chosen, wrong=next((path.wrong for path in paths if path.wrong), ""))


def missing_zeros(layers: Sequence[LayerZeros]) -> int:
    """How many are missing to more than two thirds; 0 where there are enough."""
    weights, zeros = sum(x.weights for x in layers), sum(x.zeros for x in layers)
    # XNNPACK wants zeros * 3 > weights * 2.
    return max(0, 2 * weights // 3 + 1 - zeros)


def _told(layers: Sequence[LayerZeros], missing: int) -> str:
    """What is missing, and which layers could supply it."""
    weights, zeros = sum(x.weights for x in layers), sum(x.zeros for x in layers)
    could, left = [], missing
    for layer in sorted(layers, key=lambda x: x.weights - x.zeros, reverse=True):
        if left <= 0:
            break
        left -= layer.weights - layer.zeros
        could.append(f"{layer.layer} (has {layer.weights - layer.zeros:,} of {layer.weights:,} left)")
    return (
        f"{zeros:,} of {weights:,} weights of 1x1 convolutions and fully connected operators are zero "
        f"({zeros / weights:.1%}), and more than two thirds must be: {missing:,} zeros are missing, "
        f"which could come from {', '.join(could)}"
    )


def layout(operator: Operator) -> tuple[Layout, str]:
    """What an operator can do in channels-first layout, and why it can do nothing."""
    can, why = _RULES.get(operator.kind, (Layout.NONE, _no_kernel))
    reason = why(operator) if operator.floating else "is not in floating point"
    if reason:
        return Layout.NONE, reason
    # The one convolution over more than a pixel that passes is the stem: its kernel reads channels-last.
    return (Layout.ENTERS, "") if operator.kind == "CONV_2D" and not is_pointwise(operator) else (can, "")


def _no_kernel(_: Operator) -> str:
    return "has no channels-first kernel"


def _fits(_: Operator) -> str:
    return ""


def _images_only(operator: Operator) -> str:
    if all(len(shape) == IMAGE_AXES for shape in operator.input_shapes):
        return ""
    return f"works on shapes {[list(s) for s in operator.input_shapes]}, not on images of 4 axes"


def _mean(operator: Operator) -> str:
    if len(operator.input_shapes[0]) == IMAGE_AXES and set(operator.axes) in _SPATIAL_MEANS:
        return ""
    return f"runs over axes {list(operator.axes)}, not over height and width alone"


def _resize(operator: Operator) -> str:
    return "" if min(operator.input_shapes[0][1:3]) > 1 else "resizes an image of one row or column"


def _convolution(operator: Operator) -> str:
    if operator.weights is None:
        return "has no constant weights"
    _, height, width, channels = operator.weights.shape
    strides, dilations = operator.strides, operator.dilations
    padding = "TensorFlow's SAME" if operator.padding is None else operator.padding
    pointwise, small = (height, width) == (1, 1), (height, width) == (3, 3)
    stem = channels == _STEM_CHANNELS and strides == (2, 2) and operator.padding == (1, 1, 1, 1)
    refusals = (
        (operator.input_shapes[0][-1] != channels, "is grouped"),
        (dilations != (1, 1), f"is dilated by {dilations}"),
        (pointwise and strides != (1, 1), f"is a 1x1 convolution with stride {strides}"),
        (pointwise and operator.padding != (0, 0, 0, 0), f"is a 1x1 convolution with padding {padding}"),
        (
            small and not stem,
            f"is a dense 3x3 convolution of {channels} channels with stride {strides} and padding {padding}; {_STEM}",
        ),
        (
            not pointwise and not small,
            f"is a dense {height}x{width} convolution; only 1x1 ones have sparse kernels",
        ),
    )
    return next((reason for refused, reason in refusals if refused), "")


def _depthwise(operator: Operator) -> str:
    if operator.weights is None:
        return "has no constant weights"
    kernel, strides, dilations = operator.weights.shape[1:3], operator.strides, operator.dilations
    name = f"is a depthwise {kernel[0]}x{kernel[1]} convolution"
    refusals = (
        (dilations != (1, 1), f"is dilated by {dilations}"),
        (operator.options.depthMultiplier != 1, f"has depth multiplier {operator.options.depthMultiplier}"),
        (kernel not in {(3, 3), (5, 5)}, f"{name}; only 3x3 and 5x5 have kernels"),
        (strides not in {(1, 1), (2, 2)}, f"{name} with stride {strides}"),
        (operator.padding is None, f"{name} with a stride and TensorFlow's SAME padding; it must be explicit"),
        (operator.padding != (kernel[0] // 2,) * 4, f"{name} with padding {operator.padding}"),
    )
    return next((reason for refused, reason in refusals if refused), "")


_RULES: Final[Mapping[str, tuple[Layout, Callable[[Operator], str]]]] = {
    **dict.fromkeys(_UNARY, (Layout.INSIDE, _images_only)),
    **dict.fromkeys(("ADD", "MUL"), (Layout.INSIDE, _images_only)),
    **dict.fromkeys(("MEAN", "SUM"), (Layout.INSIDE | Layout.LEAVES, _mean)),
    "FULLY_CONNECTED": (Layout.INSIDE, _fits),
    "DEPTHWISE_CONV_2D": (Layout.INSIDE, _depthwise),
    "DEPTH_TO_SPACE": (Layout.LEAVES, _fits),
    "RESIZE_BILINEAR": (Layout.INSIDE, _resize),
    "CONV_2D": (Layout.INSIDE, _convolution),
}


def _layers(operators: Sequence[Operator]) -> tuple[LayerZeros, ...]:
    return tuple(
        LayerZeros(layer=op.name, weights=op.weights.size, zeros=int((op.weights == 0).sum()))
        for op in operators
        if op.weights is not None and (op.kind == "FULLY_CONNECTED" or is_pointwise(op))
    )


@dataclass(slots=True)
class _Clusters:
    """Which operators stand or fall together, found as XNNPACK does: from the ends backwards along what flows."""

    graph: Graph
    layouts: list[tuple[Layout, str]] = field(init=False)
    leader: list[int] = field(init=False)
    broken: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        operators = self.graph.operators
        self.layouts = [layout(op) for op in operators]
        self.leader = list(range(len(operators)))
        self.broken = {}
        producer = {tensor: n for n, op in enumerate(operators) for tensor in op.outputs}
        ends = [n for n, (can, _) in enumerate(self.layouts) if Layout.LEAVES in can]
        self._join(ends, producer)
        changed = bool(ends)
        insiders = [n for n, (can, _) in enumerate(self.layouts) if can & (Layout.INSIDE | Layout.LEAVES)]
        while changed:
            changed = self._join(insiders, producer)

    def members(self) -> list[list[int]]:
        """The numbers of each cluster's operators, in order."""
        by_leader: dict[int, list[int]] = {}
        for number, leader in enumerate(self.leader):
            by_leader.setdefault(leader, []).append(number)
        return list(by_leader.values())

    def reasons(self, numbers: Sequence[int]) -> tuple[str, ...]:
        """Why a cluster is not rewritten; empty where it is."""
        found = [self.broken[n] for n in numbers if n in self.broken]
        found += [f"{self.graph.operators[n].name} {self.layouts[n][1]}" for n in numbers if self.layouts[n][1]]
        found += self._leaks(self._inside(numbers))
        if not found and not any(Layout.LEAVES in can for can, _ in self.layouts):
            found.append("it does not end in a mean over height and width")
        return tuple(dict.fromkeys(found))

    def spilt(self, numbers: Sequence[int]) -> str:
        """Where a rewritten cluster gives an image out in the wrong layout; empty where it does not.

        XNNPACK (2026) asks that some cluster end in a mean, not that this one do. What another one reads is then
        channels-first and taken for channels-last: seen with ai-edge-litert 2.3 on aarch64, a separable net with a
        dense 3x3 convolution in its middle gave outputs 2.8 % of their range off.
        """
        inside = self._inside(numbers)
        flows = {tensor for n in inside for tensor in self.graph.operators[n].inputs}
        for n in inside:
            operator = self.graph.operators[n]
            is_image = len(operator.output_shape) == IMAGE_AXES and max(operator.output_shape[1:3]) > 1
            if is_image and Layout.LEAVES not in self.layouts[n][0] and not flows.intersection(operator.outputs):
                return (
                    f"XNNPACK would leave what {operator.name} gives in channels-first layout, unknown to its readers"
                )
        return ""

    def _inside(self, numbers: Sequence[int]) -> list[int]:
        return [n for n in numbers if self.layouts[n][0] & (Layout.INSIDE | Layout.LEAVES)]

    def _leaks(self, inside: Sequence[int]) -> list[str]:
        """Tensors that the cluster reads and somebody outside reads too."""
        flows = {tensor for n in inside for tensor in self.graph.operators[n].inputs}
        found = []
        for n, operator in enumerate(self.graph.operators):
            if n not in inside and flows.intersection(operator.inputs):
                can, why = self.layouts[n]
                why = why or ("begins a cluster of its own" if Layout.ENTERS in can else "is of another cluster")
                found.append(f"{operator.name} reads what flows between the others, and {why}")
        found += [f"the model gives tensor {t} out, which others read" for t in sorted(flows & self.graph.outputs)]
        return found

    def _join(self, numbers: Sequence[int], producer: Mapping[int, int]) -> bool:
        changed = False
        for n in numbers:
            if n in self.broken:
                continue
            for tensor in self.graph.operators[n].inputs:
                changed |= self._join_input(n, tensor, producer)
        return changed

    def _join_input(self, n: int, tensor: int, producer: Mapping[int, int]) -> bool:
        name = self.graph.operators[n].name
        if tensor not in producer:
            self.broken[n] = f"{name} reads the model's input; a 3x3 stride-2 convolution of 3 channels must come first"
            return False
        before = producer[tensor]
        can, why = self.layouts[before]
        if not can & (Layout.INSIDE | Layout.ENTERS):
            self.broken[n] = (
                f"{name} reads what {self.graph.operators[before].name} gives, which {why or 'ends a cluster'}"
            )
            return False
        if before in self.broken:
            self.broken[n] = self.broken[before]
            return False
        if self.leader[before] == self.leader[n]:
            return False
        self.leader[before] = self.leader[n] = max(self.leader[before], self.leader[n])
        return True
