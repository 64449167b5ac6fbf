"""How often a model is right, kept as raw counts."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """The confusion matrix of one split.

    Attributes:
        split: `validation` or `test`.
        confusion: confusion[true][predicted] = number of examples.
        class_names: of the rows and columns.
        slices: of the parts that the data factory names; none where it names none.
        robustness: of a sample of the split under each corruption; none where it was not evaluated.
    """

    split: str
    confusion: tuple[tuple[int, ...], ...]
    class_names: tuple[str, ...]
    slices: tuple[Share, ...] = ()
    robustness: tuple[Share, ...] = ()

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
