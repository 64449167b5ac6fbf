"""Options that several commands share."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cpu_list import parse_cpus

if TYPE_CHECKING:
    from edgeprune.events import Reporter

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class _Duration(click.ParamType[float]):
    """`90s`, `30m`, `1.5h`; a bare number means seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip())
        unit = _UNIT_SECONDS.get(found[2] or "s") if found else None
        if found is None or unit is None or float(found[1]) == 0:
            self.fail(f"expected a duration such as 90s, 30m or 1h, got {value!r}", param, ctx)
        return float(found[1]) * unit


class _Names(click.ParamType[tuple[str, ...]]):
    """`openvino,tflite`: names with commas between them."""

    name = "names"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(part.strip() for part in str(value).split(","))
        if not all(names):
            self.fail(f"expected names with commas between them, got {value!r}", param, ctx)
        return names


class _Cpus(click.ParamType[tuple[int, ...]]):
    """`0-3,8`: cores by number; `last`: none in particular."""

    name = "cpus"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if value == "last":
            return ()
        try:
            return parse_cpus(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


CPUS = _Cpus()
DURATION = _Duration()
NAMES = _Names()

output_format = click.option(
    "--format", "output_format", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="What goes to stdout; progress goes to stderr.",
)  # fmt: skip
quiet = click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
profile = click.option(
    "--profile", "-p", metavar="NAME|FILE",
    help="Device profile; by default the device's own, or for `local` the first that the target names.",
)  # fmt: skip


def _only(ctx: click.Context, _param: click.Parameter, devices: tuple[str, ...]) -> str:
    """The one device of a command that takes one: click would take the last of several and say nothing."""
    if len(devices) > 1:
        raise click.UsageError(
            f"{ctx.info_name} works on one device, got {', '.join(devices)}; `edgeprune bench` measures several", ctx
        )
    return devices[0]


device = click.option(
    "--device", "-d", default=("local",), show_default=True, metavar="NAME", multiple=True, callback=_only,
    help="An enrolled device (`edgeprune device list`), or `local`.",
)  # fmt: skip
devices = click.option(
    "--device", "-d", "devices", default=("local",), show_default=True, metavar="NAME|profile:NAME|all", multiple=True,
    help="An enrolled device, or `local`; may be repeated. `all`: every enrolled one; `profile:NAME`: those of a "
    "profile. Several are measured at the same time.",
)  # fmt: skip
output = click.option(
    "--output", "-o", type=click.Path(file_okay=False, path_type=Path), default=Path("runs"), show_default=True,
    help="Where run folders lie.",
)  # fmt: skip
releases = click.option(
    "--releases", type=click.Path(file_okay=False, path_type=Path), default=Path("releases"), show_default=True,
    help="Where releases lie.",
)  # fmt: skip


@contextmanager
def reporting(*, silent: bool) -> Iterator[Reporter]:
    """A progress display on stderr: live bars on a terminal, plain lines elsewhere, nothing when silent."""
    if silent:
        from edgeprune.events import NullReporter

        yield NullReporter()
    elif sys.stderr.isatty():
        from edgeprune.cli.render.live import LiveReporter

        with LiveReporter() as live:
            yield live
    else:
        from edgeprune.cli.render.plain import PlainReporter

        yield PlainReporter(sys.stderr)
