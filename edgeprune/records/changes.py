"""Which answers changed from the dense model to the compressed one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionChange:
    """Examples of one class that are taken for another: how many before and after."""

    true: str
    predicted: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedExample:
    """One example whose loss rose.

    Attributes:
        index: in the split, from 0.
        label, before, after: class names: the true one, the dense model's answer, and the compressed one's.
        loss_before, loss_after: cross-entropy of the outputs.
        thumbnail: a PNG in base64; empty where the input is no image.
    """

    index: int
    label: str
    before: str
    after: str
    loss_before: float
    loss_after: float
    thumbnail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerChanges:
    """The dense model's answers beside the compressed one's, on the same examples.

    Attributes:
        rung: name of the compressed model.
        split: of the examples.
        examples: how many.
        changed: have another answer.
        broken, fixed: right before and wrong now, and the reverse.
        chance: how likely at least so many of the broken and fixed would be broken if both were equally likely.
        pairs: of classes that are confused more often than before, the largest increase first.
        most_changed: the examples whose loss rose most.
    """

    rung: str
    split: str
    examples: int
    changed: int
    broken: int
    fixed: int
    chance: float
    pairs: tuple[ConfusionChange, ...]
    most_changed: tuple[ChangedExample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredExample:
    """One example of which the metric says something worse than before.

    Attributes:
        index: in the split, from 0.
        before, after: what the metric says of the dense model's answer and of the compressed one's, as text.
        thumbnail: a PNG in base64; empty where the input is no image.
    """

    index: int
    before: str
    after: str
    thumbnail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreChanges:
    """The same by the target's own metric, where an example has not one class.

    Attributes:
        rung: name of the compressed model.
        split: of the examples.
        metric: its name.
        examples: how many.
        worse, better: of how many the metric says something worse, and something better, beyond rounding.
        chance: how likely at least so many of these would be worse if both were equally likely.
        most_changed: the examples that got worse most.
    """

    rung: str
    split: str
    metric: str
    examples: int
    worse: int
    better: int
    chance: float
    most_changed: tuple[ScoredExample, ...]
