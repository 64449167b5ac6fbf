from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from models import example_of, seeded
from safetensors.torch import save_file, save_model
from torch import nn

from edgeprune.errors import InputError
from edgeprune.graph.weights import load_weights_


def _trained_and_fresh() -> tuple[nn.Module, nn.Module]:
    return seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), 1), nn.Sequential(
        nn.Linear(3, 4), nn.Linear(4, 2)
    )


def _same(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("form", ["safetensors", "plain", "nested", "parallel"])
def test_every_accepted_form_fills_the_model(tmp_path: Path, form: str) -> None:
    trained, fresh = _trained_and_fresh()
    state = trained.state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "nested":
        torch.save({"state_dict": state, "epoch": 3}, path)
    elif form == "parallel":
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    load_weights_(fresh, path)
    assert _same(trained, fresh)


def test_shared_tensor_may_be_in_the_file_once(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    trained, fresh = seeded(tied, 1), seeded(tied, 2)
    save_model(trained, str(tmp_path / "w.safetensors"))
    load_weights_(fresh, tmp_path / "w.safetensors")
    assert _same(trained, fresh)


def test_wrong_shape_names_file_tensor_expected_and_found(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    trained, _ = _trained_and_fresh()
    save_file(trained.state_dict(), path)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    before = model[0].weight.detach().clone()
    with pytest.raises(InputError) as caught:
        load_weights_(model, path)
    assert caught.value.message == f"{path}: tensor '0.bias': expected shape (5,), got (4,)"
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None}, "tensor '0.weight' is missing"),
        ({"0.wieght": torch.zeros(4, 3)}, "tensor '0.wieght' is not in the model; did you mean '0.weight'?"),
    ],
)
def test_missing_and_unexpected_tensors_are_named(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    trained, fresh = _trained_and_fresh()
    merged = {**trained.state_dict(), **change}
    path = tmp_path / "w.safetensors"
    save_file({k: v for k, v in merged.items() if v is not None}, path)
    with pytest.raises(InputError) as caught:
        load_weights_(fresh, path)
    assert caught.value.message == f"{path}: {message}" or caught.value.message.startswith(f"{path}: {message};")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_file_cut_short_is_told(tmp_path: Path, suffix: str, share: float) -> None:
    model, _ = example_of("resnet")
    path = tmp_path / f"w.{suffix}"
    if suffix == "pt":
        torch.save(model.state_dict(), path)
    else:
        save_file(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=path.name):
        load_weights_(model, path)


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("/tmp/edgeprune-was-run"),)  # type: ignore[return-value]


@pytest.mark.parametrize("form", ["model", "raw pickle"])
def test_pickle_with_code_is_not_run(tmp_path: Path, form: str) -> None:
    path = tmp_path / "w.pt"
    if form == "model":
        torch.save({"state_dict": {}, "extra": _Payload()}, path)
    else:
        path.write_bytes(pickle.dumps(_Payload(), protocol=2))
    with pytest.raises(InputError, match="pickle can run any code"):
        load_weights_(nn.Linear(2, 2), path)
    assert not Path("/tmp/edgeprune-was-run").exists()


def test_missing_file_and_unknown_suffix_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such weights file"):
        load_weights_(nn.Linear(2, 2), tmp_path / "none.pt")
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"expected a .safetensors, .pt or .pth file, got '.h5'"):
        load_weights_(nn.Linear(2, 2), tmp_path / "w.h5")


def test_list_of_tensors_is_told(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "w.pth")
    with pytest.raises(InputError, match="expected a mapping of names to tensors, got list"):
        load_weights_(nn.Linear(2, 2), tmp_path / "w.pth")


def test_file_without_batch_counts_is_taken(tmp_path: Path) -> None:
    model, _ = example_of("resnet")
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "w.safetensors")
    load_weights_(model, tmp_path / "w.safetensors")
