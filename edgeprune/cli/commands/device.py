"""`edgeprune device`: the inventory of enrolled devices."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from edgeprune.cli import options


@click.group()
def command() -> None:
    """Enrol, list, check, provision, calibrate and remove devices."""


@command.command()
@click.argument("name")
@click.option("--host", required=True, help="Host name or address, or a Host of your OpenSSH configuration.")
@click.option("--port", type=click.IntRange(1, 65535), help="By default what the OpenSSH configuration says, or 22.")
@click.option("--user", default="", help="User on the device; it needs no root. By default the configuration's.")
@click.option(
    "--identity", metavar="FILE", default="", help="Private key file; by default the configuration's, and ssh-agent's."
)
@click.option("--ssh-config", metavar="FILE|none", default="", help="OpenSSH configuration. [default: ~/.ssh/config]")
@click.option("--profile", required=True, metavar="NAME|FILE", help="The device's profile.")
@click.option("--python", default="python3", show_default=True, help="The Python there that has the runtimes.")
@click.option(
    "--fingerprint", metavar="SHA256:...", help="Expected host key fingerprint, for scripts; without it, you are asked."
)
@click.option("--replace", is_flag=True, help="Enrol again under a name that exists, with the key found now.")
def add(
    name: str, host: str, port: int | None, user: str, identity: str, ssh_config: str, profile: str, python: str,
    fingerprint: str | None, replace: bool,
) -> int:  # fmt: skip
    """Enrol a device under NAME: show its host key's fingerprint, ask, pin it, and check it as `device check` does.

    Jump hosts on the way (ProxyJump) must be in your known_hosts: log in there once with ssh.
    """
    from edgeprune.cli.render import devices
    from edgeprune.steps.enrolment import Enrolment, enrol
    from edgeprune.steps.health import check_device

    found = Enrolment(
        name=name, host=host, port=port or 0, user=user, identity_file=identity, ssh_config=ssh_config,
        profile=profile, python=python, replace=replace,
    )  # fmt: skip

    def confirm(key_type: str, found_fingerprint: str) -> bool:
        click.echo(f"{host} shows the {key_type} host key {found_fingerprint}", err=True)
        return click.confirm("Is that this device's key? Pin it?", err=True)

    spec = enrol(found, fingerprint=fingerprint, confirm=confirm)
    click.echo(f"enrolled {name}; its host key is pinned")
    report = check_device(spec)
    click.echo(devices.report(report, "text"))
    return devices.exit_code(report.health)


@command.command("list")
@options.output_format
def list_devices(output_format: str) -> None:
    """List the enrolled devices, with the health that their last check found; `local` is always there."""
    import time

    from edgeprune.cli.render.devices import inventory as shown
    from edgeprune.deployment import inventory
    from edgeprune.steps.health_files import load_health

    devices = [inventory.load_device(name) for name in inventory.list_devices()]
    click.echo(shown([(d, load_health(d)) for d in devices], output_format, now_unix_s=time.time()))


@command.command()
@click.argument("name")
@options.output_format
def check(name: str, output_format: str) -> int:
    """Connect to a device and grade it: ok, warning or problem for all that measuring there needs, and what to do.

    Looked at are: reach, host key, Python, numpy, runtimes, disk, memory, clock, cores, memory limits, and whether its
    fingerprint changed. Exits with 0, or with 5 where there is a problem: then bench, build, plan and calibrate refuse
    the device. The result is kept for `device list`; a failed one is believed for ten minutes, then taken again.
    """
    from edgeprune.cli.render import devices
    from edgeprune.deployment.inventory import load_device
    from edgeprune.steps.health import check_device

    report = check_device(load_device(name))
    click.echo(devices.report(report, output_format))
    return devices.exit_code(report.health)


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
    from edgeprune.steps.health_files import forget_health

    remove_device(name)
    forget_health(name)
    click.echo(f"removed {name}")


COMMAND: Final[click.Command] = command
