"""How good a model is on one split: how often it is right, kept as raw counts, or what another metric says."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What the target's metric says of one split, where it is another one than accuracy.

    Attributes:
        metric: its name, or the target's own function.
        value: mean over the examples, in the metric's own unit.
        error: standard error of that mean over the examples.
        examples: how many.
        higher_is_better: the direction.
        is_share: whether it lies in [0, 1]; it is told in percent then, and lost in points.
    """

    metric: str
    value: float
    error: float
    examples: int
    higher_is_better: bool
    is_share: bool

    @property
    def told(self) -> str:
        """The value as text: `97.25 %`, or `0.1234`."""
        return told_value(self.value, is_share=self.is_share)


def told_value(value: float, *, is_share: bool) -> str:
    """A metric's value as text: `97.25 %` where it is a share, else `0.1234`."""
    return f"{100.0 * value:.2f} %" if is_share else f"{value:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartScore:
    """What the target's metric says of a named part of the data: a slice, or a corruption."""

    name: str
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFloor:
    """What one part is held to by the target's metric.

    Attributes:
        name: of the part.
        floor: in the metric's own unit, the least value, or the most where lower is better; None where it refers to
            the dense model, which was not evaluated on that part.
        is_share: as the metric's.
        before: what the metric says of the dense model there; None where the floor does not refer to it.
    """

    name: str
    floor: float | None
    is_share: bool
    before: Score | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How good a model is on one split.

    Attributes:
        split: `validation` or `test`.
        confusion: confusion[true][predicted] = number of examples; empty where an example has not one class.
        class_names: of the rows and columns; empty without a confusion matrix.
        score: of another metric than accuracy; it is what the model is judged by then.
        slices: of the parts that the data factory names; none where it names none.
        robustness: of a sample of the split under each corruption; none where it was not evaluated.
        slice_scores, robustness_scores: the same by the target's metric, where an example has not one class.
    """

    split: str
    confusion: tuple[tuple[int, ...], ...] = ()
    class_names: tuple[str, ...] = ()
    score: Score | None = None
    slices: tuple[Share, ...] = ()
    robustness: tuple[Share, ...] = ()
    slice_scores: tuple[PartScore, ...] = ()
    robustness_scores: tuple[PartScore, ...] = ()

    @property
    def metric(self) -> str:
        """Name of what the model is judged by."""
        return self.score.metric if self.score else "accuracy"

    @property
    def is_share(self) -> bool:
        """Whether `value` lies in [0, 1] and is told in percent."""
        return self.score is None or self.score.is_share

    @property
    def higher_is_better(self) -> bool:
        """The direction of `value`."""
        return self.score is None or self.score.higher_is_better

    @property
    def value(self) -> float:
        """What the model is judged by, in the metric's own unit: the share of right answers, or the score."""
        return self.score.value if self.score else self.overall

    @property
    def quality(self) -> float:
        """The value, negative where lower is better: the higher, the better the model."""
        return self.value if self.higher_is_better else -self.value

    @property
    def shown(self) -> float:
        """The value as people read it: shares in percent."""
        return 100.0 * self.value if self.is_share else self.value

    @property
    def unit(self) -> str:
        """Of `shown`: `%`, or empty."""
        return "%" if self.is_share else ""

    @property
    def told(self) -> str:
        """The value as text: `97.25 %`, or `0.1234`."""
        return told_value(self.value, is_share=self.is_share)

    @property
    def classes(self) -> tuple[Share, ...]:
        """Right answers of each class: what its recall is made of."""
        rows = zip(self.class_names, self.confusion, strict=True)
        return tuple(Share(name=name, correct=row[i], total=sum(row)) for i, (name, row) in enumerate(rows))

    @property
    def total(self) -> int:
        """Number of examples."""
        return sum(sum(row) for row in self.confusion)

    @property
    def correct(self) -> int:
        """Number of examples on the diagonal."""
        return sum(row[i] for i, row in enumerate(self.confusion))

    @property
    def overall(self) -> float:
        """Share of examples that are right, in [0, 1]."""
        return self.correct / self.total if self.total else 0.0

    @property
    def recalls(self) -> tuple[float, ...]:
        """Recall of each class, in [0, 1]; 1 for a class with no example in this split."""
        return tuple(row[i] / sum(row) if sum(row) else 1.0 for i, row in enumerate(self.confusion))

    @property
    def worst_class(self) -> tuple[str, float]:
        """The class with the lowest recall, and that recall."""
        recalls = self.recalls
        worst = min(range(len(recalls)), key=recalls.__getitem__)
        return self.class_names[worst], recalls[worst]
