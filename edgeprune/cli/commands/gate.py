"""`edgeprune gate`: judge a run again from its raw samples; check and sign its evidence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click

from edgeprune.cli import options


class Percentage(click.ParamType[float]):
    """`5%`, as the share 0.05. A bare number could mean either, and is refused."""

    name = "percentage"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%", str(value))
        if found is None or float(found[1]) >= 100.0:  # noqa: PLR2004
            self.fail(f"expected a percentage under 100%, such as 5%, got {value!r}", param, ctx)
        return float(found[1]) / 100.0


class GateGroup(click.Group):
    """`gate RUN` judges; `gate verify` and `gate sign` are commands of their own."""

    @property
    def default_command(self) -> click.Command:
        """What is called when no command is named."""
        return judge

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the judging command in front where no other is named."""
        asked_for_help = args[:1] == ["--help"] or args[:1] == ["-h"]
        if args and not asked_for_help and args[0] not in self.commands:
            args = [self.default_command.name or "", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Without the one that is never typed."""
        return [name for name in super().list_commands(ctx) if name != self.default_command.name]

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both ways to call it."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] RUN")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those of judging, then the commands."""
        self.default_command.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=GateGroup, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Judge RUN (a run folder, or an evidence.zip) from its stored raw samples alone.

    The exit code is the verdict: 0 PASS, 7 FAIL, 8 INCONCLUSIVE, 9 INVALID. With --baseline the run is also held
    against a release.
    """


@command.command("judge", hidden=True)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write a JUnit file.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Also write a Markdown summary.")
@click.option(
    "--baseline", metavar="RELEASE", help="Hold p50 and p99 against a release: its name, `current`, or a path."
)
@click.option(
    "--max-regression", type=Percentage(), metavar="PERCENT", help="How much slower is allowed. [default: 5%]"
)
@options.releases
@options.output_format
@click.pass_context
def judge(
    ctx: click.Context,
    run: Path,
    junit: Path | None,
    markdown: Path | None,
    baseline: str | None,
    max_regression: float | None,
    releases: Path,
    output_format: str,
) -> int:
    """Judge RUN from its stored raw samples alone."""
    from edgeprune import api
    from edgeprune.cli.render import results

    if baseline is None and max_regression is not None:
        raise click.UsageError("--max-regression needs --baseline", ctx)
    judgement = api.gate(
        run,
        junit=junit,
        markdown=markdown,
        baseline=baseline,
        max_regression=0.05 if max_regression is None else max_regression,
        releases=releases,
    )
    click.echo(results.gate(judgement, output_format))
    return judgement.verdict.exit_code


@command.command()
@click.argument("evidence", type=click.Path(path_type=Path))
@click.option(
    "--allowed-signers",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Whose signatures count, see ssh-keygen(1); the evidence must then be signed by one of them.",
)
@options.output_format
def verify(evidence: Path, allowed_signers: Path | None, output_format: str) -> int:
    """Check EVIDENCE (an evidence.zip or a run folder): every byte, its signature, and its verdict from raw samples.

    Exits with the verdict's code when it is intact, and with 2 when it is not.
    """
    from edgeprune.cli.render import evidence as render
    from edgeprune.steps import gates

    found = gates.verify(evidence, allowed_signers)
    click.echo(render.verified(found, output_format))
    return found.verdict.exit_code


@command.command()
@click.argument("evidence", type=click.Path(path_type=Path))
@click.option(
    "--key", required=True, type=click.Path(dir_okay=False, path_type=Path),
    help="SSH private key file, or the public one of a key that the SSH agent has.",
)  # fmt: skip
def sign(evidence: Path, key: Path) -> None:
    """Sign EVIDENCE with an SSH key: writes evidence.zip.sig beside it."""
    from edgeprune.steps import gates

    path, signer = gates.sign_evidence(evidence, key)
    click.echo(f"wrote {path}: {signer.key_type} key {signer.fingerprint}")


COMMAND: Final[click.Command] = command
