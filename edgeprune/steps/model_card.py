"""The model card of each artifact: put together from what the build recorded, written beside the artifact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.files import write_atomically
from edgeprune.records.codec import to_json
from edgeprune.records.model_card import CardModel, LayerChange, LayerWeights, Making, ModelCard, SplitIdentity
from edgeprune.records.quantization import DEFAULT_VARIANT
from edgeprune.records.result import BuildResult, Candidate, CandidateStatus
from edgeprune.records.rung import Precision, PruningKind, Rung
from edgeprune.reporting.model_card import render_model_card
from edgeprune.schema.target import TargetSpec

if TYPE_CHECKING:
    from edgeprune.data.splits import DataSplits
    from edgeprune.steps.compressing import TorchModel

CARD = "model_card.json"
CARD_PAGE = "MODEL_CARD.md"
CARD_FILES = (CARD, CARD_PAGE)

_HOW_IT_WAS_MADE = ("preprocessing", "training", "recovery", "pruning", "quantization")


def split_identities(data: DataSplits) -> tuple[SplitIdentity, ...]:
    """Number and hash of each split's examples."""
    splits = (("train", data.train), ("validation", data.validation), ("test", data.test))
    return tuple(SplitIdentity(split=name, examples=len(split), sha256=split.identity()) for name, split in splits)


def making_of(rung: Rung, model: TorchModel, dense: TorchModel, spec: TargetSpec) -> Making:
    """How a rung's torch model was made from the dense one."""
    from edgeprune.steps.pruning_rounds import recovery_rounds

    pruned = rung.pruning is not PruningKind.NONE
    criterion = spec.pruning.weight_criterion if rung.masked else spec.pruning.criterion
    return Making(
        criterion=criterion if pruned else "",
        schedule=spec.recovery.schedule if pruned else "",
        rounds=len(recovery_rounds(spec.recovery, 1.0, spec.training.epochs)) if pruned else 0,
        training_epochs=len(dense.epochs),
        recovery_epochs=len(model.epochs) if pruned else 0,
        layers=_changes(dense.layers, model.layers),
        qat_epochs=len(model.qat_epochs),
        qat_epochs_before=len(model.qat_epochs_before),
    )


def _changes(before: tuple[LayerWeights, ...], after: tuple[LayerWeights, ...]) -> tuple[LayerChange, ...]:
    left = {layer.layer: layer for layer in after}
    return tuple(
        LayerChange(
            layer=layer.layer,
            kind=layer.kind,
            weights_before=layer.weights,
            weights=left[layer.layer].weights if layer.layer in left else 0,
            zeros=left[layer.layer].zeros if layer.layer in left else 0,
        )
        for layer in before
    )


def card_of(result: BuildResult, candidate: Candidate, spec: TargetSpec) -> ModelCard | None:
    """The card of a candidate; None where it has no artifact."""
    dense, final = _card_model(result.dense), _card_model(candidate)
    if dense is None or final is None:
        return None
    return ModelCard(
        target=result.target,
        description=spec.description,
        profile=result.profile,
        device=result.device,
        status=str(candidate.status),
        verdict=candidate.judgement.verdict if candidate.judgement is not None else None,
        quantization=_quantization(candidate),
        dense=dense,
        final=final,
        parity=candidate.parity,
        making=candidate.making,
        settings=tuple(_settings(spec)),
        seed=result.seed,
        data=result.data,
        test_readings=result.test_readings,
        controls=result.controls if candidate.status is CandidateStatus.CHOSEN else (),
        versions=result.versions,
    )


def write_cards(root: Path, result: BuildResult, spec: TargetSpec) -> None:
    """Write the card of every artifact into its candidate's folder, as JSON and as a page."""
    for candidate in (result.dense, *result.candidates):
        card = card_of(result, candidate, spec)
        if card is not None:
            write_card(root / candidate.folder, card)


def write_card(folder: Path, card: ModelCard) -> None:
    """Write `model_card.json` and `MODEL_CARD.md`, each whole or not at all."""
    write_atomically(folder / CARD, to_json(card, indent=1))
    write_atomically(folder / CARD_PAGE, render_model_card(card).encode())


def _card_model(candidate: Candidate) -> CardModel | None:
    if candidate.artifact is None:
        return None
    return CardModel(
        rung=candidate.rung,
        artifact=candidate.artifact,
        parameters=candidate.parameters,
        macs=candidate.macs,
        accuracy=tuple(a for a in (candidate.train, candidate.validation, candidate.test) if a is not None),
        percentiles=candidate.percentiles,
    )


def _quantization(candidate: Candidate) -> str:
    if candidate.rung.precision is not Precision.INT8:
        return ""
    return (candidate.variants.chosen if candidate.variants else DEFAULT_VARIANT).name


def _settings(spec: TargetSpec) -> Iterator[tuple[str, str]]:
    """`pruning.criterion`, `l2` and so on: whatever keys those sections have."""
    values = spec.model_dump(mode="json", include=set(_HOW_IT_WAS_MADE))
    refits = {"channels": spec.pruning.refits_channels, "weights": spec.pruning.refits_weights}
    values["pruning"]["reconstruct"] = " and ".join(what for what, asked in refits.items() if asked) or "no"
    for section in _HOW_IT_WAS_MADE:
        for key, value in values[section].items():
            if value is not None:
                yield f"{section}.{key}", str(value)
