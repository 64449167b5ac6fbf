from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from records_for_tests import make_evidence

from edgeprune.errors import InputError
from edgeprune.gating.evidence import read_evidence, write_evidence
from edgeprune.gating.judge import judge


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "evidence.json"
    write_evidence(written, make_evidence())
    return written


def test_round_trip_gives_the_same_judgement(path: Path) -> None:
    assert read_evidence(path) == make_evidence()
    assert judge(read_evidence(path)) == judge(make_evidence())


def test_writing_again_replaces_and_leaves_nothing_beside(path: Path) -> None:
    write_evidence(path, make_evidence(artifact_bytes=1))
    assert read_evidence(path).artifact_bytes == 1
    assert [p.name for p in path.parent.iterdir()] == ["evidence.json"]


def test_a_failed_write_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_evidence(path, make_evidence(artifact_bytes=1))
    assert read_evidence(path) == make_evidence()
    assert [p.name for p in path.parent.iterdir()] == ["evidence.json"]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(path: Path, kept: float) -> None:
    text = path.read_text()
    path.write_text(text[: int(kept * len(text))])
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*damaged"):
        read_evidence(path)


def test_an_edited_limit_is_noticed(path: Path) -> None:
    content = json.loads(path.read_text())
    content["evidence"]["limits"]["p99_ms"] = 100.0
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: sha256: .*changed"):
        read_evidence(path)


def test_other_white_space_is_no_edit(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert read_evidence(path) == make_evidence()


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "damaged"), ("{}", "damaged"), ('{"schema": 1, "sha256": "", "evidence": 5}', "damaged")],
)
def test_other_json_is_refused(path: Path, content: str, message: str) -> None:
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_evidence(path)


def test_another_version_is_refused(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(InputError, match="schema: expected 1, got 2"):
        read_evidence(path)


def test_a_missing_file_has_the_likely_name(path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; did you mean .*evidence\.json"):
        read_evidence(path.with_name("evidnce.json"))
