"""Writes the parts of README.md and docs/ that follow from the code, and the outputs that were really seen.

    python tools/update_docs.py                  # write the tables anew
    python tools/update_docs.py --check          # exit 1 where a table is not what the code says
    python tools/update_docs.py --demo LOG       # put the output of `make demo` in
    python tools/update_docs.py --test LOG       # put the output of `make test` in

A part stands between `<!-- generated: NAME -->` or `<!-- output: NAME -->` and `<!-- end -->`. Generated parts are
checked by the tests; outputs are as they were when somebody ran the command, so they are only replaced on request.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgeprune.cli import cli
from edgeprune.cli.render.tables import budget_text
from edgeprune.errors import EXIT_CODES
from edgeprune.gating.gates import GATES
from edgeprune.protocols import Granularity
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.records.measurement import DeviceFacts
from edgeprune.records.rung import Precision
from edgeprune.registry import Registry
from edgeprune.runtimes import RUNTIMES
from edgeprune.schema.base import FileModel
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import DeviceProfile
from edgeprune.schema.target import TargetSpec
from edgeprune.steps.inputs import load_profile

ROOT = Path(__file__).resolve().parent.parent

_PART = re.compile(r"(<!-- (generated|output): ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
# Dots and percentages of pytest's quiet mode: they say only that it is still running.
_PYTEST_PROGRESS = re.compile(r"^[.sxXFE]+(\s+\[\s*\d+%\])?$")
_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
# The fastest CPU of each kind, so that every precision that a runtime can have is seen.
_CPUS = {"x86_64": ("avx512_bf16", "amx_bf16"), "aarch64": ("asimdhp", "fphp")}


class MarkerError(Exception):
    """A marker names a part that there is none of."""


def commands() -> str:
    """Every command with the first sentence of its help."""
    return _table(("command", "what it does"), ((f"`edgeprune {name}`", text) for name, text in _commands(cli, "")))


def runtimes() -> str:
    """What each runtime's artifact is, what it can compute in, and how it is quantized."""
    rows = []
    for name in RUNTIMES.names():
        runtime = RUNTIMES.get(name)
        rows.append((f"`{name}`", _summary(RUNTIMES, name), _precisions(name), f"`{runtime.int8_scheme()}`"))
    return _table(("runtime", "artifact", "precisions", "INT8 scheme"), rows)


def profiles() -> str:
    """The shipped profiles with their budgets."""
    found = [load_profile(path) for path in sorted((ROOT / "profiles").glob("*.toml"))]
    rows = [
        (f"`{p.name}`", p.description, p.hardware.arch, ", ".join(p.runtimes), _list(p.threads), budget_text(p.budget))
        for p in found
    ]
    return _table(("profile", "device", "arch", "runtimes", "threads", "budget"), rows)


def exit_codes() -> str:
    """Of every command."""
    return _table(("exit code", "meaning"), ((str(code), meaning) for code, meaning in EXIT_CODES.items()))


def criteria() -> str:
    """The files of the criteria's folder."""
    rows = []
    for name in CRITERIA.names():
        criterion = CRITERIA.get(name)
        scored = (Granularity.WEIGHT in criterion.granularities, bool(criterion.granularities - {Granularity.WEIGHT}))
        what = ", ".join(n for n, there in zip(("weights", "channels"), scored, strict=True) if there)
        rows.append((f"`{name}`", what, "yes" if criterion.needs_data else "-", _summary(CRITERIA, name)))
    return _table(("criterion", "scores", "looks at data", "what it is"), rows)


def gates() -> str:
    """The files of the gates' folder."""
    return _table(("gate", "what it holds to what"), ((f"`{name}`", _summary(GATES, name)) for name in GATES.names()))


def file_keys(kind: type[FileModel]) -> str:
    """Every key of a TOML file with its type, default and meaning, a table a section."""
    schema = kind.model_json_schema(by_alias=True)
    return "\n\n".join(_sections(schema, schema.get("$defs", {}), ""))


GENERATED: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "runtimes": runtimes,
    "profiles": profiles,
    "exit-codes": exit_codes,
    "criteria": criteria,
    "gates": gates,
    "profile-keys": lambda: file_keys(DeviceProfile),
    "target-keys": lambda: file_keys(TargetSpec),
    "device-keys": lambda: file_keys(DeviceSpec),
}


def demo_result(log: str) -> str:
    """From the head of the table to the path of the report: what `build` prints on stdout."""
    lines = _lines(log)
    last = max((i for i, line in enumerate(lines) if line.startswith("report ")), default=None)
    if last is None:
        raise MarkerError("the demo's log has no line that begins with 'report': did the build end?")
    rule = max(i for i, line in enumerate(lines[:last]) if line.strip().startswith("─"))
    first = max(i for i, line in enumerate(lines[:rule]) if not line.strip()) + 1
    return _block(lines[first : last + 1])


def demo_progress(log: str) -> str:
    """What `build` prints on stderr before that: one line a stage."""
    lines = _lines(log)
    end = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
    return _block(lines[:end])


def test_result(log: str) -> str:
    """The output of `make test` without pytest's dots."""
    return _block([line for line in _lines(log) if line.strip() and not _PYTEST_PROGRESS.match(line.strip())])


OUTPUTS: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "demo": ("demo", demo_result),
    "demo-progress": ("demo", demo_progress),
    "test": ("test", test_result),
}
"""By name of the part: the option whose log it is cut from, and how."""


def updated(text: str, logs: Mapping[str, str], *, where: str) -> str:
    """The text with its generated parts made anew, and with the outputs whose log was given.

    Raises:
        MarkerError: a marker names an unknown part.
    """

    def replace(match: re.Match[str]) -> str:
        begin, kind, name, old, end = match.groups()
        known: Iterable[str] = GENERATED if kind == "generated" else OUTPUTS
        if name not in known:
            raise MarkerError(f"{where}: no {kind} part {name!r}; known: {', '.join(known)}")
        if kind == "generated":
            return f"{begin}{GENERATED[name]()}\n{end}"
        option, cut = OUTPUTS[name]
        return f"{begin}{cut(logs[option]) if option in logs else old.rstrip()}\n{end}"

    return _PART.sub(replace, text)


def pages(root: Path) -> list[Path]:
    """The files that have parts."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Write, or with `--check` compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where something would change")
    parser.add_argument("--demo", type=Path, metavar="LOG", help="output of `make demo`, both streams")
    parser.add_argument("--test", type=Path, metavar="LOG", help="output of `make test`, both streams")
    options = parser.parse_args(arguments)
    given = {"demo": options.demo, "test": options.test}
    logs = {name: path.read_text(encoding="utf-8") for name, path in given.items() if path is not None}
    stale = []
    try:
        for page in pages(root):
            text = page.read_text(encoding="utf-8")
            wanted = updated(text, logs, where=str(page.relative_to(root)))
            if wanted == text:
                continue
            stale.append(str(page.relative_to(root)))
            if not options.check:
                page.write_text(wanted, encoding="utf-8")
    except MarkerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name in stale:
        print(f"{name}: {'not what the code says; run tools/update_docs.py' if options.check else 'updated'}")
    return 1 if stale and options.check else 0


def _commands(group: click.Group, prefix: str) -> Iterator[tuple[str, str]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        alone = not isinstance(command, click.Group) or hasattr(command, "default_command")
        if alone and command is not None:
            paragraph = " ".join((command.help or "").split("\n\n")[0].split())
            yield f"{prefix}{name}", re.split(r"(?<=\.)\s", paragraph)[0]
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")


def _precisions(name: str) -> str:
    """`float32, INT8` and, in brackets, the CPUs that the others need."""
    found: dict[Precision, list[str]] = {}
    for machine, flags in _CPUS.items():
        for precision in RUNTIMES.get(name).precisions(_facts(machine, flags)):
            found.setdefault(precision, []).append(machine)
    words = []
    for precision in (p for p in Precision if p in found):
        only = "" if len(found[precision]) == len(_CPUS) else f" ({found[precision][0]} CPUs that compute in it)"
        words.append(f"{precision}{only}")
    return ", ".join(words)


def _facts(machine: str, flags: tuple[str, ...]) -> DeviceFacts:
    return DeviceFacts(
        machine=machine,
        system="Linux",
        kernel="",
        cpu_model="",
        cpu_flags=flags,
        cores=1,
        memory_bytes=0,
        disk_free_bytes=0,
        python="",
        numpy="",
        runtimes=(),
    )


def _summary(registry: Registry[Any], name: str) -> str:
    """First line of the docstring of an entry's file, without its last full stop; the file is not imported."""
    folder = ROOT.joinpath(*registry.package.split("."))
    text = ast.get_docstring(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].rstrip(".")


def _sections(schema: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The keys of one table of the file, then its sub-tables."""
    rows: list[tuple[str, ...]] = []
    deeper: list[tuple[str, str]] = []
    for key, value in schema["properties"].items():
        inner, name = _inner_table(value), f"{prefix}{key}"
        if inner is None:
            default = "required" if key in schema.get("required", ()) else _default(value)
            rows.append((f"`{key}`", _type(value), default, _words(value.get("description", ""))))
        else:
            deeper.append((inner, f"{name}.NAME" if "patternProperties" in value else name))
    head = [f"**`[{prefix.rstrip('.')}]`** {_words(schema.get('description', ''))}"] if prefix else []
    if rows:
        yield "\n\n".join([*head, _table(("key", "type", "default", "meaning"), rows)])
    for inner, name in deeper:
        yield from _sections(definitions[inner], definitions, f"{name}.")


def _inner_table(value: Mapping[str, Any]) -> str | None:
    """The definition of a sub-table, or of the tables by name; None for a plain value."""
    by_name = [inner["$ref"] for inner in value.get("patternProperties", {}).values() if "$ref" in inner]
    # A table that may be left out is one of two choices, the other of which is nothing.
    references = [v["$ref"] for v in (value, *value.get("anyOf", ())) if "$ref" in v] or by_name
    return str(references[0]).rsplit("/", 1)[-1] if references else None


def _type(value: Mapping[str, Any]) -> str:
    choices = [v for v in value.get("anyOf", ()) if v.get("type") != "null"]
    if choices:
        return " or ".join(_type(v) for v in choices)
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return "one of " + ", ".join(f"`{json.dumps(v)}`" for v in value["enum"])
    if "prefixItems" in value:
        return f"[{', '.join(map(_type, value['prefixItems']))}]"
    if value["type"] == "array":
        return f"list of: {_type(value['items'])}"
    bounds = [f"{sign} {value[name]:g}" for name, sign in _BOUNDS.items() if name in value]
    return " ".join([str(value["type"]), ", ".join(bounds)]).strip()


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return "-" if default is None else f"`{json.dumps(default)}`"


def _words(text: str) -> str:
    return " ".join(text.split())


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _lines(log: str) -> list[str]:
    return [line.rstrip() for line in log.splitlines()]


def _block(lines: Sequence[str]) -> str:
    return "\n".join(["```", *lines, "```"])


if __name__ == "__main__":
    sys.exit(main())
