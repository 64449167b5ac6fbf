from __future__ import annotations

from pathlib import Path

import pytest
from evidence_for_tests import make_key, make_run

from edgeprune.errors import InputError
from edgeprune.steps.gates import sign_evidence
from edgeprune.steps.releases import find_release, list_releases, promote


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_a_release_has_what_ships_and_why_it_may(run: Path, tmp_path: Path) -> None:
    (run / "artifact" / "notes.txt").write_text("nobody asked for this")
    (run / "artifact" / "MODEL_CARD.md").write_text("edited, and not the one of the evidence")
    signature, _ = sign_evidence(run, make_key(tmp_path))
    made = promote(run, "1.0", tmp_path / "releases")
    folder = tmp_path / "releases" / "1.0"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        "artifact/manifest.json", "artifact/model.xml", "artifact/model.bin", "evidence.zip", "evidence.zip.sig",
        "before.json", "artifact/MODEL_CARD.md", "artifact/model_card.json",
    }  # fmt: skip
    assert (folder / "evidence.zip.sig").read_bytes() == signature.read_bytes()
    assert (folder / "artifact" / "MODEL_CARD.md").read_text().startswith("# door: openvino-int8-t1")
    assert made.current
    assert list_releases(tmp_path / "releases") == (made,)


def test_only_a_run_that_passed_becomes_a_release(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the verdict is FAIL; only a run that passed"):
        promote(make_run(tmp_path / "slow", p50_ms=9.0), "1.0", tmp_path / "releases")
    assert not (tmp_path / "releases").exists()


def test_an_artifact_that_was_not_measured_does_not_ship(run: Path, tmp_path: Path) -> None:
    (run / "artifact" / "model.bin").write_bytes(b"another")
    with pytest.raises(InputError, match="the file was changed"):
        promote(run, "1.0", tmp_path / "releases")
    other = make_run(tmp_path / "other", seed=9)
    (other / "evidence.zip").write_bytes((make_run(tmp_path / "third") / "evidence.zip").read_bytes())
    with pytest.raises(InputError, match=r"is not the artifact that .* is the evidence of"):
        promote(other, "1.0", tmp_path / "releases")
    assert not (tmp_path / "releases").exists()


def test_promoting_the_same_run_again_is_no_error_and_another_is(run: Path, tmp_path: Path) -> None:
    first = promote(run, "1.0", tmp_path / "releases")
    assert promote(run, "1.0", tmp_path / "releases") == first
    with pytest.raises(InputError, match="a name is given once"):
        promote(make_run(tmp_path / "other", seed=4), "1.0", tmp_path / "releases")


def test_a_release_is_found_by_name_or_path(run: Path, tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    promote(run, "1.0", releases)
    assert find_release("1.0", releases) == ("1.0", releases / "1.0")
    assert find_release("current", releases) == ("1.0 (current)", releases / "1.0")
    assert find_release(str(run), releases) == (str(run), run)
    assert find_release("evidence.zip", releases) == ("evidence.zip", Path("evidence.zip"))


def test_a_release_that_was_changed_is_not_listed_as_if_nothing_were(run: Path, tmp_path: Path) -> None:
    promote(run, "1.0", tmp_path / "releases")
    path = tmp_path / "releases" / "1.0" / "evidence.zip"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        list_releases(tmp_path / "releases")
