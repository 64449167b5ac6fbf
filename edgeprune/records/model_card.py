"""What an artifact's model card says: where it comes from, what it was made with, and what it lost on the way."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Artifact, Parity
from edgeprune.records.control import Control
from edgeprune.records.measurement import Percentile
from edgeprune.records.rung import Rung
from edgeprune.records.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """Weights of one layer, biases left out.

    Attributes:
        layer: as `named_modules` has it.
        kind: class of the module.
        zeros: of the weights that are there.
    """

    layer: str
    kind: str
    weights: int
    zeros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChange:
    """One layer of the dense model, and what is left of it; no weights where its block was removed."""

    layer: str
    kind: str
    weights_before: int
    weights: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """Share of the dense layer's weights that are gone, cut or zero, in [0, 1]."""
        return 1.0 - (self.weights - self.zeros) / self.weights_before if self.weights_before else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How a model was pruned and recovered.

    Attributes:
        criterion: what was taken for unimportant; empty where nothing was pruned.
        schedule: of the pruning ratio over the rounds; empty where nothing was pruned.
        rounds: cuts to the final width; 0 where nothing was pruned.
        training_epochs: of the dense model here; 0 where it came pretrained.
        recovery_epochs: that were run after the cuts, all rounds together.
        qat_epochs: with INT8 rounding in the forward pass, after recovery.
        qat_epochs_before: likewise, before the first cut; recovery has the rounding too then.
    """

    criterion: str
    schedule: str
    rounds: int
    training_epochs: int
    recovery_epochs: int
    layers: tuple[LayerChange, ...]
    qat_epochs: int = 0
    qat_epochs_before: int = 0

    @property
    def sparsity(self) -> float:
        """Share of all the dense model's weights that are gone, in [0, 1]."""
        before = sum(layer.weights_before for layer in self.layers)
        return 1.0 - sum(layer.weights - layer.zeros for layer in self.layers) / before if before else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitIdentity:
    """Which data: number of examples, and sha256 over their content."""

    split: str
    examples: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One time that the test split was read, by the builds of one run folder.

    Attributes:
        number: from 1; a build that reads it for several models reads it once, when all choices are made.
        data: sha256 of the test split.
        models: (name, digest of the artifact) of what was evaluated.
    """

    number: int
    data: str
    models: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardModel:
    """The dense or the final model, as the card sets them side by side.

    Attributes:
        accuracy: by split; the test split only where it was read for this model.
        percentiles: of its latency on the device.
    """

    rung: Rung
    artifact: Artifact
    parameters: int | None
    macs: int | None
    accuracy: tuple[Accuracy, ...]
    percentiles: tuple[Percentile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """All that is said of one artifact.

    Attributes:
        status: what became of it in the build.
        verdict: of its gates; None where it was not judged, as the dense model.
        quantization: the variant; empty where it is not quantized.
        settings: (key, value) of the target's sections that say how it was made.
        test_readings: every time that the test split was read in this run folder, this build's the last.
        controls: that were built beside the chosen model.
    """

    target: str
    description: str
    profile: str
    device: str
    status: str
    verdict: Verdict | None
    quantization: str
    dense: CardModel
    final: CardModel
    parity: Parity | None
    making: Making | None
    settings: tuple[tuple[str, str], ...]
    seed: int
    data: tuple[SplitIdentity, ...]
    test_readings: tuple[Reading, ...]
    controls: tuple[Control, ...]
    versions: tuple[tuple[str, str], ...]
    schema: int = 1
