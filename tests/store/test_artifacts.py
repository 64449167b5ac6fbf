from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.errors import InputError
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.recipe import Cut, PruningRecipe
from edgeprune.records.rung import GroupWidth, Precision, Rung
from edgeprune.store.artifacts import Manifest, describe_files, read_manifest, write_manifest


def make_artifact(folder: Path) -> Manifest:
    (folder / "model.xml").write_bytes(b"<net/>")
    (folder / "model.bin").write_bytes(b"12345")
    spec = TensorSpec(name="input", shape=(1, 1, 8, 8), dtype="float32")
    artifact = describe_files(
        folder, ("model.xml", "model.bin"), runtime="openvino", precision=Precision.INT8, inputs=(spec,),
        outputs=(spec,), file_format="ir 11",
    )  # fmt: skip
    manifest = Manifest(
        artifact=artifact,
        rung=Rung(runtime="openvino", precision=Precision.INT8),
        preprocessing={"layout": "any", "scale": 0.5, "mean": (0.0,), "std": (1.0,)},
        class_names=("cat", "dog"),
        widths=(GroupWidth(group="stem", before=8, after=4),),
        recipe=PruningRecipe(cuts=(Cut(group="stem", removed=(1, 3)),)),
        origin=(("target", "door"),),
    )
    write_manifest(folder, manifest)
    return manifest


def test_a_manifest_survives_the_round_trip(tmp_path: Path) -> None:
    manifest = make_artifact(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert manifest.artifact.size_bytes == 11


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    make_artifact(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"12346")
    with pytest.raises(InputError, match=r"model\.bin: expected sha256"):
        read_manifest(tmp_path)


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    make_artifact(tmp_path)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(InputError, match=r"model\.bin: no such file"):
        read_manifest(tmp_path)


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: no such file"):
        read_manifest(tmp_path)
