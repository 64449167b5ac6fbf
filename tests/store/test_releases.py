from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune.errors import InputError
from edgeprune.store.releases import ReleaseEntry, ReleaseFolder


def promote(folder: ReleaseFolder, name: str, text: str | None = None) -> ReleaseEntry:
    content = text or name

    def fill(release: Path) -> None:
        (release / "model").write_text(content)

    return folder.promote(name, fill, lambda release: (release / "model").read_text() == content)


@pytest.fixture
def folder(tmp_path: Path) -> ReleaseFolder:
    return ReleaseFolder(tmp_path / "releases")


def shown(folder: ReleaseFolder) -> str:
    return (folder.root / "current" / "model").read_text()


def test_the_last_promoted_is_current_and_rollback_goes_back_to_the_one_before(folder: ReleaseFolder) -> None:
    assert folder.releases() == ()
    for name in ("1.0", "1.1", "1.2"):
        assert promote(folder, name).current
        assert shown(folder) == name
    assert [(r.name, r.before, r.current) for r in folder.releases()] == [
        ("1.0", None, False), ("1.1", "1.0", False), ("1.2", "1.1", True),
    ]  # fmt: skip
    assert folder.rollback().name == "1.1"
    assert folder.rollback().name == shown(folder) == "1.0"
    with pytest.raises(InputError, match=r"1\.0 is the first release"):
        folder.rollback()
    assert [r.name for r in folder.releases()] == ["1.0", "1.1", "1.2"]


def test_a_release_that_was_rolled_back_can_come_again_and_knows_what_was_before(folder: ReleaseFolder) -> None:
    for name in ("1.0", "1.1", "1.2"):
        promote(folder, name)
    folder.rollback()
    folder.rollback()
    assert promote(folder, "1.2").before == "1.0"
    assert promote(folder, "1.2").before == "1.0"
    assert folder.rollback().name == "1.0"


def test_a_name_is_given_once(folder: ReleaseFolder) -> None:
    promote(folder, "1.0")
    with pytest.raises(InputError, match="is another release; a name is given once"):
        promote(folder, "1.0", "another")
    assert shown(folder) == "1.0"


@pytest.mark.parametrize("name", ["", "current", "../x", "a/b", ".hidden", "-x", "x" * 65, "a b", "1.0\n"])
def test_names_that_are_no_folder_names_are_refused(folder: ReleaseFolder, name: str) -> None:
    with pytest.raises(InputError, match="release name: expected letters"):
        promote(folder, name, "x")
    assert not folder.root.exists()


def test_find_takes_a_name_or_current_and_tells_what_there_is(folder: ReleaseFolder) -> None:
    with pytest.raises(InputError, match="no release 'current'; there are: none yet"):
        folder.find("current")
    promote(folder, "1.0")
    promote(folder, "1.1")
    assert folder.find("current").name == "1.1"
    assert folder.find("1.0").folder == folder.root / "1.0"
    with pytest.raises(InputError, match=r"no release '2\.0'; there are: 1\.0, 1\.1"):
        folder.find("2.0")


def test_a_folder_that_is_moved_keeps_what_is_current(folder: ReleaseFolder, tmp_path: Path) -> None:
    promote(folder, "1.0")
    folder.root.rename(tmp_path / "moved")
    moved = ReleaseFolder(tmp_path / "moved")
    assert moved.find("current").name == shown(moved) == "1.0"


@pytest.mark.parametrize("step", ["fill", "rename", "point"])
def test_a_promotion_that_dies_leaves_the_release_before_current(
    folder: ReleaseFolder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    promote(folder, "1.0")

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        fill: Callable[[Path], None] = lambda release: None  # noqa: E731
        if step == "fill":
            fill = die
        elif step == "rename":
            patch.setattr(Path, "rename", die)
        else:
            patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            folder.promote("1.1", fill, lambda release: True)
    assert folder.find("current").name == shown(folder) == "1.0"
    folder.promote("1.1", lambda release: None, lambda release: True)
    assert folder.find("current").name == "1.1"
    assert folder.rollback().name == "1.0"


def _promote_many(root: Path, names: list[str]) -> None:
    for name in names:
        promote(ReleaseFolder(root), name)


def test_two_at_a_time_leave_one_line_of_releases(folder: ReleaseFolder) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_promote_many, args=(folder.root, [f"{worker}.{k}" for k in range(10)]))
        for worker in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0]
    seen = [folder.find("current").name]
    while folder.find(seen[-1]).before is not None:
        seen.append(folder.rollback().name)
    assert sorted(seen) == [r.name for r in folder.releases()]
    assert len(seen) == 20


def test_a_damaged_release_is_named(folder: ReleaseFolder) -> None:
    promote(folder, "1.0")
    (folder.root / "1.0" / "before.json").write_text("{")
    with pytest.raises(InputError, match=r"1\.0/before\.json: damaged"):
        folder.releases()
