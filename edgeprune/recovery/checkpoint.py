"""The state of a training after an epoch, in one safetensors file: a killed training loses the epoch in hand."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgeprune.data.parts import parts_of
from edgeprune.files import write_atomically
from edgeprune.recovery.job import Job
from edgeprune.recovery.session import Session
from edgeprune.recovery.settings import Checkpoint, EpochResult

logger = logging.getLogger(__name__)

_FORMAT = "edgeprune training 3"


@dataclass(slots=True, kw_only=True, eq=False)
class Kept:
    """What a training has reached, and a checkpoint keeps.

    Attributes:
        epochs: those that were finished.
        best: the model's weights after the best of them, or before the first; empty without validation.
        start: what validation said before the first; None where it was not asked.
    """

    epochs: list[EpochResult] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    start: float | None = None


def identity_of(job: Job) -> str:
    """Digest of initial weights, labels, numeric settings and the caller's key: a checkpoint is used by its own only.

    To be taken before the first step.
    """
    total = hashlib.sha256()
    state = job.model.state_dict().items()
    for name, tensor in (*state, *(("labels", part) for part in parts_of(job.labels))):
        total.update(name.encode() + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    chosen = job.settings
    teacher = chosen.distillation
    parts = (
        tuple(job.inputs.shape), chosen.epochs, chosen.learning_rate, chosen.optimizer, chosen.momentum,
        chosen.weight_decay, chosen.batch_size, chosen.seed, chosen.bf16, chosen.clip_norm, asdict(chosen.schedule),
        chosen.patience_epochs, chosen.workers.count, chosen.augment is None, chosen.rounding is None,
        teacher and (
            teacher.weight, teacher.temperature, teacher.soft_labels, teacher.features, teacher.feature_weight,
        ),
        job.may_keep_start, job.checkpoint.key if job.checkpoint else "",
    )  # fmt: skip
    total.update(json.dumps(parts, allow_nan=False).encode())
    return total.hexdigest()


def write_checkpoint(checkpoint: Checkpoint, identity: str, session: Session, kept: Kept) -> None:
    """Replace the file by the state after the last of the epochs, whole or not at all."""
    tensors = {f"net/{name}": tensor for name, tensor in session.net.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in kept.best.items()}
    for number, state in session.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": v for key, v in state.items() if isinstance(v, Tensor)}
    if session.rounding is not None:
        tensors |= {f"rounding/{name}": bounds for name, bounds in session.rounding.ranges().items()}
    tensors["generator"] = session.generator.get_state()
    tensors["random"] = torch.random.get_rng_state()
    # Each with its own memory: tensors that share theirs are refused, and stored once for each name here.
    owned = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    told = {
        "format": _FORMAT,
        "identity": identity,
        "epochs": json.dumps([asdict(e) for e in kept.epochs]),
        "start": json.dumps(kept.start),
    }
    write_atomically(checkpoint.path, save(owned, metadata=told))


def read_checkpoint_(checkpoint: Checkpoint, identity: str, session: Session) -> Kept | None:
    """Put the session where the file says, and its generators; None where there is none for this very training.

    A file that is damaged counts as none: the training begins anew, and a warning is logged.
    """
    try:
        with safe_open(checkpoint.path, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("format") != _FORMAT or told.get("identity") != identity:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as error:
        logger.warning("%s: not readable, the training begins anew: %s", checkpoint.path, error)
        return None
    epochs = [EpochResult(**entry) for entry in json.loads(told["epochs"])]
    session.net.load_state_dict(_below("net", tensors))
    session.optimizer.load_state_dict(_optimizer_state(session.optimizer, _below("optimizer", tensors)))
    if session.rounding is not None:
        session.rounding.set_ranges(_below("rounding", tensors))
    session.generator.set_state(tensors["generator"])
    torch.random.set_rng_state(tensors["random"])
    session.skip_to(len(epochs))
    return Kept(epochs=epochs, best=_below("best", tensors), start=json.loads(told["start"]))


def copy_of_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights and buffers as they are now."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(f"{prefix}/"): t for n, t in tensors.items() if n.startswith(f"{prefix}/")}


def _optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = tensor
    # What stands beside it is set anew by the settings.
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
