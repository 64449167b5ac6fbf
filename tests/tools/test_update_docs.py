from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import update_docs

from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import DeviceProfile
from edgeprune.schema.target import TargetSpec

LOG = """train dense: done in 9 s - loss 0.004

                         speed-up
 model   rung   p50      p99
 ────────────────────────────────
 dense   a      0.2 ms   1.00x
verdict   PASS on local, after 9 s
artifact  runs/x/artifact
report    runs/x/report.html

real\t0m9s
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The pages alone; what the tables say comes from the package all the same."""
    for page in update_docs.pages(update_docs.ROOT):
        target = tmp_path / page.relative_to(update_docs.ROOT)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(page, target)
    return tmp_path


def test_the_tables_are_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert update_docs.main(["--check"]) == 0, capsys.readouterr().out


def test_every_table_is_shown_somewhere_and_no_marker_is_misspelt() -> None:
    text = "".join(page.read_text() for page in update_docs.pages(update_docs.ROOT))
    assert set(re.findall(r"<!-- generated: (.*) -->", text)) == set(update_docs.GENERATED)
    assert set(re.findall(r"<!-- output: (.*) -->", text)) == set(update_docs.OUTPUTS)
    assert len(re.findall(r"<!-- (?:generated|output): ", text)) == text.count("<!-- end -->")


def test_drift_is_told_and_mended(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = copy / "README.md"
    right = readme.read_text()
    readme.write_text(right.replace("| 130 | interrupted |", "| 131 | interrupted |"))
    assert update_docs.main(["--check"], root=copy) == 1
    assert "README.md: not what the code says" in capsys.readouterr().out
    assert update_docs.main([], root=copy) == 0
    assert readme.read_text() == right


def test_an_unknown_part_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "README.md").write_text("<!-- generated: exit-code -->\n<!-- end -->\n")
    assert update_docs.main(["--check"], root=copy) == 2
    assert "README.md: no generated part 'exit-code'" in capsys.readouterr().err


def test_the_demo_log_is_cut_into_progress_and_result(copy: Path) -> None:
    (copy / "log").write_text(LOG)
    assert update_docs.main(["--demo", str(copy / "log")], root=copy) == 0
    text = (copy / "README.md").read_text()
    assert "<!-- output: demo-progress -->\n```\ntrain dense: done in 9 s - loss 0.004\n```\n<!-- end -->" in text
    shown = text.split("<!-- output: demo -->\n```\n")[1].split("\n```")[0].splitlines()
    assert (shown[0].strip(), shown[-1]) == ("speed-up", "report    runs/x/report.html")
    assert update_docs.main(["--check"], root=copy) == 0


def test_a_demo_that_did_not_end_is_refused() -> None:
    with pytest.raises(update_docs.MarkerError, match="did the build end"):
        update_docs.demo_result("train dense: 510 batch\n")


def test_the_dots_of_pytest_are_left_out() -> None:
    log = "All checks passed!\n....s...   [ 50%]\n...xF [100%]\n\n812 passed in 300 s\n"
    assert update_docs.test_result(log) == "```\nAll checks passed!\n812 passed in 300 s\n```"


@pytest.mark.parametrize("kind", [DeviceProfile, TargetSpec, DeviceSpec])
def test_every_key_has_a_meaning(kind: type[DeviceProfile | TargetSpec | DeviceSpec]) -> None:
    rows = [line for line in update_docs.file_keys(kind).splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if row.endswith("|  |")] == []


def test_keys_of_tables_by_name_are_shown() -> None:
    text = update_docs.file_keys(DeviceProfile)
    assert "**`[runtimes.NAME]`**" in text
    assert "| `sparse_kernels` | list of: string | `[]` | Zero patterns" in text
