from __future__ import annotations

from pathlib import Path

from edgeprune.store.inputs_file import changes_since, read_inputs, write_inputs


def test_round_trip_and_no_change(tmp_path: Path) -> None:
    inputs = (("profile", "a"), ("version of torch", "2.13.0"))
    write_inputs(tmp_path, inputs)
    assert changes_since(read_inputs(tmp_path), inputs) == ()


def test_changes_are_told_in_words() -> None:
    before = (("profile", "a"), ("target model.py", "b"), ("version of torch", "2.12.0"))
    now = (("profile", "c"), ("target extra.py", "d"), ("version of torch", "2.13.0"))
    assert changes_since(before, now) == (
        "profile: changed",
        "target extra.py: new",
        "target model.py: gone",
        "version of torch: 2.12.0 -> 2.13.0",
    )


def test_a_damaged_file_counts_as_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text("[]")
    assert read_inputs(tmp_path) == ()
