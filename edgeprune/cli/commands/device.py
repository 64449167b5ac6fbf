"""`edgeprune device`: the inventory of enrolled devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from edgeprune.cli import options


@click.group()
def command() -> None:
    """Enrol, list, check, provision, calibrate and remove devices."""


@command.command()
@click.argument("name")
@click.option("--host", required=True, help="Host name or address.")
@click.option("--port", type=click.IntRange(1, 65535), default=22, show_default=True)
@click.option("--user", required=True, help="User on the device; it needs no root.")
@click.option("--identity", metavar="FILE", default="", help="Private key file; without it, ssh-agent's keys are used.")
@click.option("--profile", required=True, metavar="NAME|FILE", help="The device's profile.")
@click.option("--python", default="python3", show_default=True, help="The Python there that has the runtimes.")
@click.option(
    "--fingerprint", metavar="SHA256:...", help="Expected host key fingerprint, for scripts; without it, you are asked."
)
@click.option("--replace", is_flag=True, help="Enrol again under a name that exists, with the key found now.")
def add(
    name: str, host: str, port: int, user: str, identity: str, profile: str, python: str, fingerprint: str | None,
    replace: bool,
) -> None:  # fmt: skip
    """Enrol a device under NAME: show its host key's fingerprint, ask, pin it, and look at what it can do."""
    from edgeprune.cli.render.tables import device_details
    from edgeprune.steps.enrolment import Enrolment, check_device, enrol

    found = Enrolment(
        name=name, host=host, port=port, user=user, identity_file=identity, profile=profile, python=python,
        replace=replace,
    )  # fmt: skip

    def confirm(key_type: str, found_fingerprint: str) -> bool:
        click.echo(f"{host}:{port} shows the {key_type} host key {found_fingerprint}", err=True)
        return click.confirm("Is that this device's key? Pin it?", err=True)

    spec = enrol(found, fingerprint=fingerprint, confirm=confirm)
    click.echo(f"enrolled {name}; its host key is pinned")
    click.echo(device_details(check_device(spec)))


@command.command("list")
@options.output_format
def list_devices(output_format: str) -> None:
    """List the enrolled devices; `local` is always there."""
    from edgeprune.cli.render.tables import device_table
    from edgeprune.deployment import inventory

    devices = [inventory.load_device(name) for name in inventory.list_devices()]
    if output_format == "json":
        rows = [d.model_dump(mode="json", by_alias=True) for d in devices]
        click.echo(json.dumps({"schema": 1, "devices": rows}))
        return
    click.echo(device_table(devices))


@command.command()
@click.argument("name")
@options.output_format
def check(name: str, output_format: str) -> None:
    """Connect to a device and say what it has: Python, runtimes, memory, disk, cores."""
    from edgeprune.cli.render.tables import device_details
    from edgeprune.deployment.inventory import load_device
    from edgeprune.records.codec import to_plain
    from edgeprune.steps.enrolment import check_device

    report = check_device(load_device(name))
    click.echo(json.dumps({"schema": 1, **to_plain(report)}) if output_format == "json" else device_details(report))


@command.command()
@click.argument("name")
@click.option(
    "--artifact",
    type=click.Path(path_type=Path),
    help="Compare this with itself; by default a small model that is compiled here.",
)
@click.option("--campaigns", type=click.IntRange(3, 1000), default=20, show_default=True, help="Comparisons.")
@click.option("--rounds", type=click.IntRange(5, 200), default=10, show_default=True, help="Of each campaign.")
@options.output_format
@options.quiet
def calibrate(
    name: str, artifact: Path | None, campaigns: int, rounds: int, output_format: str, quiet: bool
) -> None:  # fmt: skip
    """Learn what differences a device can resolve, by comparing an artifact with itself."""
    from edgeprune import api
    from edgeprune.cli.render import series

    with options.reporting(silent=quiet) as reporter:
        found = api.calibrate(name, artifact=artifact, campaigns=campaigns, rounds=rounds, reporter=reporter)
    click.echo(series.calibration(found, output_format))


@command.command()
@click.argument("name")
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    type=options.NAMES,
    metavar="NAME[,NAME...]",
    help="What it shall run, and nothing else; by default all runtimes of its profile.",
)
@click.option(
    "--python",
    default="",
    metavar="PROGRAM",
    help="The Python there to make it with; by default the one of the last time, or the one it was enrolled with.",
)
@options.output_format
@options.quiet
def provision(
    name: str, runtimes: tuple[tuple[str, ...], ...], python: str, output_format: str, quiet: bool
) -> None:  # fmt: skip
    """Give a device a Python environment with runtimes; it needs no internet, pip or root, and this host fetches."""
    from edgeprune import api
    from edgeprune.cli.render import provisioning

    wanted = tuple(runtime for names in runtimes for runtime in names)
    with options.reporting(silent=quiet) as reporter:
        found = api.provision(name, wanted, base_python=python, reporter=reporter)
    click.echo(provisioning.provision(found, output_format))


@command.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a device. Nothing is done on the device itself."""
    from edgeprune.deployment.inventory import remove_device

    remove_device(name)
    click.echo(f"removed {name}")


COMMAND: Final[click.Command] = command
