"""What `--resume` of the benchmarks asks before it goes on with rows, and what it says of those of other code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import bench_origin
import pytest
from bench_origin import Code, Origin, code_of, origin_of, tool_files
from bench_parts import KeptRows, add_output, kept_rows
from hypothesis import given
from hypothesis import strategies as st
from targets_for_tests import MODEL_CODE, make_target, own_home

from edgeprune.steps.inputs import load_profile, load_target

__all__ = ["own_home"]

TOOLS = Path(bench_origin.__file__).parent
OLD, NEW = Code(digest="0123", revision="old"), Code(digest="4567", revision="new")
ORIGIN = Origin(settings={"epochs": "3", "data": '"a"'}, parts={"version.torch": '"2.1"'})


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row like those of the benchmarks."""

    part: str
    seed: int
    test: float = 0.5

    @property
    def entry(self) -> tuple[str, int]:
        return self.part, self.seed


names = st.sampled_from(["a", "b", "c"])
mappings = st.dictionaries(names, st.sampled_from(["1", "2"]))
origins = st.builds(Origin, settings=mappings, parts=mappings)


@given(origins, origins)
def test_origins_agree_where_no_setting_differs_and_no_part_that_both_have(first: Origin, second: Origin) -> None:
    both = first.parts.keys() & second.parts.keys()
    agree = first.settings == second.settings and all(first.parts[n] == second.parts[n] for n in both)
    assert (not first.differences(second)) == agree == (not second.differences(first))
    assert first.differences(first) == ()
    if agree:
        joined = first.joined(second)
        assert joined == second.joined(first)
        # Later runs are held to what either of them was made with.
        assert not joined.differences(first)
        assert not joined.differences(second)
        assert joined.parts.keys() == first.parts.keys() | second.parts.keys()


def _origin(
    folder: Path,
    *,
    target: Mapping[str, object] | None = None,
    profile: Mapping[str, object] | None = None,
    code: str = MODEL_CODE,
    by_runtime: bool = True,
) -> Origin:
    """Each in a folder of its own: where things lie does not matter."""
    made = make_target(folder, target=target, profile=profile, code=code)
    return origin_of(load_target(made.folder), load_profile(made.profile), by_runtime=by_runtime)


def test_what_changes_the_meaning_of_a_row_differs_and_is_named(tmp_path: Path) -> None:
    before = _origin(tmp_path / "before")
    assert before.differences(_origin(tmp_path / "moved")) == ()
    said = _origin(tmp_path / "said", target={"description": "Said otherwise"}, profile={"description": "This, too"})
    assert before.differences(said) == ()

    other = _origin(tmp_path / "target", target={"recovery.epochs": 7}, profile={"measurement.min_runs": 2000})
    assert before.differences(other) == (
        "profile.measurement.min_runs: expected 3000, found 2000",
        "target.recovery.epochs: expected 1, found 7",
    )
    other_data = _origin(tmp_path / "data", code=MODEL_CODE.replace("_split(64, 3)", "_split(64, 4)"))
    assert [line.split(":")[0] for line in before.differences(other_data)] == [
        "sha256 of model.py",
        "sha256 of the data",
    ]
    of_before = {"device.name", "device.cpu_model", "device.kernel"}
    assert of_before <= before.settings.keys()
    assert {"version.torch", "version.numpy", "version.python", "device.version.onnxruntime"} <= before.parts.keys()
    assert not any("edgeprune" in name for name in before.parts)


def test_more_runtimes_ask_for_more_rows_unless_all_have_a_say_in_each(tmp_path: Path) -> None:
    more: dict[str, object] = {"runtimes.tflite.int8": True}
    before, after = _origin(tmp_path / "one"), _origin(tmp_path / "two", profile=more)
    assert before.differences(after) == ()
    otherwise = _origin(tmp_path / "otherwise", profile={**more, "runtimes.onnxruntime.int8": True})
    assert before.joined(after).differences(otherwise) == (
        "profile.runtimes.onnxruntime.int8: expected false, found true",
    )
    together = [_origin(tmp_path / f"all{i}", profile=p, by_runtime=False) for i, p in enumerate(({}, more))]
    assert "profile.runtimes.tflite.int8: expected nothing, found true" in together[0].differences(together[1])


def _open(output: Path, *options: str, origin: Origin = ORIGIN) -> KeptRows[Row]:
    parser = argparse.ArgumentParser()
    add_output(parser)
    tool = TOOLS / "bench_quantization.py"
    return kept_rows(parser, parser.parse_args(["--output", str(output), *options]), Row, lambda: origin, str(tool))


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What is said when rows are not opened."""

    def refused(output: Path, *options: str, origin: Origin = ORIGIN) -> str:
        with pytest.raises(SystemExit) as exit_:
            _open(output, *options, origin=origin)
        assert exit_.value.code == 2
        return capsys.readouterr().err

    return refused


def test_rows_are_gone_on_with_only_where_they_mean_the_same(tmp_path: Path, refusal: Callable[..., str]) -> None:
    _open(tmp_path, "--resume").add(Row(part="deployed", seed=0))
    assert "give --resume" in refusal(tmp_path)
    more = replace(ORIGIN, parts={**ORIGIN.parts, "version.nncf": '"3.0"'})
    assert list(_open(tmp_path, "--resume", origin=more).rows) == [("deployed", 0)]

    stored = {path: path.read_bytes() for path in tmp_path.iterdir()}
    # What the second run added is held against the third, which lacks nothing else.
    later = Origin(settings={**ORIGIN.settings, "epochs": "4"}, parts={"version.nncf": '"3.1"'})
    told = refusal(tmp_path, "--resume", origin=later)
    assert "1 rows: deployed / 0" in told
    assert told.index("  epochs: expected 3, found 4") < told.index('  version.nncf: expected "3.0", found "3.1"')
    assert "data" not in told.split("something else")[1]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == stored


def test_rows_that_nothing_is_known_of_are_not_gone_on_with(tmp_path: Path, refusal: Callable[..., str]) -> None:
    rows = [{"part": "deployed", "seed": seed} for seed in range(10)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    told = refusal(tmp_path, "--resume")
    assert "10 rows: deployed / 0; deployed / 1;" in told
    assert "deployed / 7; and 2 more" in told
    assert "no made_with.json" in told
    # Without a row there is nothing to be mixed.
    (tmp_path / "rows.json").unlink()
    (tmp_path / "made_with.json").write_text('{"settings": {"epochs": "9"}, "parts": {}}')
    _open(tmp_path)
    assert json.loads((tmp_path / "made_with.json").read_text())["settings"] == ORIGIN.settings


def test_rows_of_other_code_stay_and_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for seed in (0, 1, 2):
        KeptRows(path, Row, OLD).add(Row(part="x", seed=seed))
    kept = KeptRows(path, Row, NEW)
    kept.add(Row(part="x", seed=3))
    # Made anew, it is of this code alone; a row that goes on with the figures of the one before is of both.
    kept.add(Row(part="x", seed=1))
    kept.add(Row(part="x", seed=2, test=0.9), begun=True)

    again = KeptRows(path, Row, NEW)
    rows = list(again.rows.values())
    assert [again.is_of_this_code(row) for row in rows] == [False, True, False, True]
    this = "of 4 rows are of other code than this, new (digest 4567)"
    assert again.of_other_code(rows) == [
        f"1 {this}: of old (digest 0123): x / 0",
        f"1 {this}: of old (digest 0123), then new (digest 4567): x / 2",
    ]
    assert again.of_other_code(row for row in rows if row.seed in {1, 3}) == []
    # Another commit with the same sources is the same code.
    assert KeptRows(path, Row, replace(NEW, revision="docs")).of_other_code(rows[1:2]) == []
    assert len(KeptRows(path, Row, OLD).of_other_code(rows)) == 2


def test_the_code_is_that_of_the_tool_and_of_the_tools_that_it_imports(tmp_path: Path) -> None:
    found = {path.name for path in tool_files(TOOLS / "bench_planner.py")}
    assert {"bench_planner.py", "bench_parts.py", "planner_contest.py", "planner_rivals.py"} <= found
    assert "bench_compression.py" not in found
    tool, part = tmp_path / "tool.py", tmp_path / "part.py"
    tool.write_text("import json\nfrom part import X\n")
    part.write_text("X = 1\n")
    before = code_of(tool)
    assert before.revision == ""
    part.write_text("X = 1  # one\n")
    assert code_of(tool) == before
    part.write_text("X = 2\n")
    assert code_of(tool) != before
    assert code_of(TOOLS / "bench_planner.py") != code_of(TOOLS / "bench_compression.py")
