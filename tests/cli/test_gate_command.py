from __future__ import annotations

import json
from pathlib import Path

import pytest
from evidence_for_tests import allow, make_key, make_run

from edgeprune.cli import run


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_gate_judges_whatever_stands_first(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit = tmp_path / "gate.xml"
    for arguments in (
        [str(made)], [str(made), "--junit", str(junit)], ["--junit", str(junit), str(made)],
        ["--format=json", str(made)], ["--", str(made)],
    ):  # fmt: skip
        assert run(["gate", *arguments]) == 0
        assert "PASS" in capsys.readouterr().out
    assert junit.is_file()


def test_a_run_that_is_called_like_a_command_is_reached_by_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "verify")
    monkeypatch.chdir(tmp_path)
    assert run(["gate", "./verify"]) == 0
    assert run(["gate", "verify", "verify"]) == 0


def test_help_shows_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["gate", "--help"], ["gate", "-h"], ["gate"]):
        run(arguments)
        said = "".join(capsys.readouterr())
        assert "edgeprune gate [OPTIONS] RUN" in said
        for part in ("--junit", "--baseline", "--max-regression", "verify", "sign", "0 PASS, 7 FAIL"):
            assert part in said
        assert "judge " not in said
    assert run(["gate", "verify", "--help"]) == 0
    assert "--allowed-signers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-regression", "5%"], "--max-regression needs --baseline"),
        (["--baseline", "1.0", "--max-regression", "5"], "expected a percentage under 100%, such as 5%"),
        (["--baseline", "1.0", "--max-regression", "100%"], "expected a percentage under 100%"),
        (["--baseline", "1.0", "--max-regression", "-5%"], "expected a percentage"),
        (["--baseline", "1.0"], "no release '1.0'; there are: none yet"),
        (["--baseline", "nowhere/x"], "nowhere/x: no such file; expected a run folder"),
    ],
)
def test_bad_input(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(["gate", str(made), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_verify_exits_with_the_verdict_when_intact_and_2_when_not(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made / "evidence.zip"
    assert run(["gate", "verify", str(path)]) == 0
    said = capsys.readouterr().out
    assert "intact: every byte" in said
    assert "not signed" in said
    assert "verdict: PASS" in said
    slow = make_run(tmp_path / "slow", p50_ms=3.0)
    assert run(["gate", "verify", str(slow / "evidence.zip"), "--format", "json"]) == 7
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["intact"], found["judgement"]["verdict"], found["exit_code"]) == (1, True, "FAIL", 7)
    path.write_bytes(path.read_bytes().replace(b'"p99_ms":3.4', b'"p99_ms":9.4', 1))
    assert run(["gate", "verify", str(path), "--format", "json"]) == 2
    out, err = capsys.readouterr()
    assert "evidence.json is not the one that SHA256SUMS names" in err or "Bad CRC-32" in err
    assert json.loads(out)["error"]["exit_code"] == 2


def test_signer_is_shown(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = make_key(tmp_path)
    assert run(["gate", "sign", str(made), "--key", str(key)]) == 0
    line = capsys.readouterr().out
    assert f"wrote {made / 'evidence.zip.sig'}: ED25519 key SHA256:" in line
    fingerprint = line.split()[-1]
    assert run(["gate", "verify", str(made)]) == 0
    assert f"signed with the ED25519 key {fingerprint}; nobody vouches" in capsys.readouterr().out
    trusted = ["--allowed-signers", str(allow(tmp_path, alice=key))]
    assert run(["gate", "verify", str(made), *trusted]) == 0
    assert f"signed by alice@example.com with the ED25519 key {fingerprint}" in capsys.readouterr().out
    stranger = make_key(tmp_path, "stranger")
    assert run(["gate", "sign", str(made / "evidence.zip"), "--key", str(stranger)]) == 0
    capsys.readouterr()
    assert run(["gate", "verify", str(made), *trusted]) == 2
    assert "signed by no key of" in capsys.readouterr().err


def test_releases_from_promotion_to_rollback(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["release", "list"]) == 0
    assert "no releases yet" in capsys.readouterr().out
    assert run(["release", "promote", str(made), "--name", "1.0"]) == 0
    assert "1.0 is current: releases/current/artifact (openvino-int8-t1 for door)" in capsys.readouterr().out
    slower = make_run(tmp_path / "slower", p50_ms=2.3, seed=5)
    assert run(["gate", str(slower), "--baseline", "current"]) == 7
    assert "regression" in capsys.readouterr().out
    assert run(["gate", str(slower), "--baseline", "1.0", "--max-regression", "20%", "--format", "json"]) == 0
    gates = {g["gate"]: g for g in json.loads(capsys.readouterr().out)["gates"]}
    assert (gates["regression"]["verdict"], gates["regression"]["limit"]) == ("PASS", 1.2)
    assert run(["release", "promote", str(slower), "--name", "1.1"]) == 0
    assert run(["release", "rollback", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["name"] == "1.0"
    assert run(["release", "list", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["releases"]
    assert [(r["name"], r["current"], r["before"]) for r in found] == [("1.0", True, None), ("1.1", False, "1.0")]
    assert found[0]["p50_ms"] == pytest.approx(2.0, rel=0.02)
    assert run(["release", "list"]) == 0
    assert "current" in capsys.readouterr().out
    assert run(["release", "rollback"]) == 2
