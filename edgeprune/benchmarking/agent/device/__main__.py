"""The agent's commands: probe, condition, bench, profile, infer, receive, have, tidy, environment, lease.

Exit code 1 after an error, 2 on bad usage. A command imports what it needs itself: no interpreter keeps the bytecode of
a zip file's modules, so each one costs every command its compilation, and a build runs hundreds.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Callable, Dict, List, Set

from . import sessions
from .reply import AgentError, Replies, claim_stdout


def main(argv: List[str]) -> int:
    """Run one command; the last line on stdout is an error event where it fails."""
    arguments = parser().parse_args(argv)
    replies = claim_stdout()
    try:
        dispatch(replies, arguments)
    except BrokenPipeError:
        # The host is gone: nobody is left to tell.
        os._exit(1)
    except AgentError as error:
        replies.emit("error", kind=error.kind, message=error.message)
    except MemoryError:
        replies.emit("error", kind="memory", message="out of memory")
    except OSError as error:
        replies.emit("error", kind="io", message=str(error))
    except Exception as error:
        import traceback

        traceback.print_exc()
        replies.emit("error", kind="runtime", message="%s: %s" % (type(error).__name__, error))
    else:
        return 0
    return 1


def dispatch(replies: Replies, a: argparse.Namespace) -> None:
    """Call what the command line asks for."""
    _COMMANDS[a.command](replies, a)


def _probe(replies: Replies, a: argparse.Namespace) -> None:
    from .probe import probe

    probe(replies, a.work)


def _condition(replies: Replies, _: argparse.Namespace) -> None:
    from .probe import condition

    condition(replies)


def _bench(replies: Replies, a: argparse.Namespace) -> None:
    from . import lease, limits
    from .bench import Fill, Job, Warmup, bench
    from .files import touch
    from .paced import Pacing

    warmup = Warmup(a.warmup_min_runs, a.warmup_max_runs, a.warmup_max_s)
    model = (a.runtime, a.artifact, a.precision, a.threads)
    pacing = Pacing(a.rate, a.seconds, a.bucket_s or a.seconds) if a.seconds else None
    fill = Fill(a.fill_s, a.max_runs, a.max_s)
    job = Job(a.work, *model, a.runs, warmup, a.cpus, a.inputs, fill, pacing)
    folders = [os.path.dirname(path) for path in (a.artifact, a.inputs)]
    with lease.block(a.lease_folder, a.lease, a.deadline_s, folders):
        for folder in folders:
            touch(folder)
        if a.memory_limit_bytes is None:
            bench(replies, job)
        else:
            limit = limits.Limit(a.memory_limit_bytes, a.memory_limit_of)
            limits.run_limited(replies, limit, lambda holder: bench(replies, job._replace(limit=holder)))


def _profile(replies: Replies, a: argparse.Namespace) -> None:
    from . import lease
    from .bench import Warmup
    from .files import touch
    from .profile import Trip, profile

    warmup = Warmup(a.warmup_min_runs, a.warmup_max_runs, a.warmup_max_s)
    trip = Trip(a.work, a.trip, a.runtime, a.threads, a.rounds, a.round_s, a.hold_bytes, warmup, a.cpus)
    with lease.block(a.lease_folder, a.lease, a.deadline_s, [os.path.dirname(a.trip)]):
        touch(os.path.dirname(a.trip))
        profile(replies, trip)


def _infer(replies: Replies, a: argparse.Namespace) -> None:
    from .infer import infer

    infer(replies, a.runtime, a.artifact, a.precision, a.threads, (a.inputs, a.outputs))


def _receive(replies: Replies, a: argparse.Namespace) -> None:
    from .files import receive

    receive(replies, a.part, a.sha256, a.size, a.to)


def _have(replies: Replies, a: argparse.Namespace) -> None:
    from .files import have

    have(replies, a.path, a.sha256, a.part)


def _tidy(replies: Replies, a: argparse.Namespace) -> None:
    from .files import tidy
    from .lease import in_use

    spared: Set[str] = {*in_use(a.lease_folder), *map(os.path.realpath, a.keep)}
    tidy(replies, a.work, a.limit, spared)


def _environment(replies: Replies, a: argparse.Namespace) -> None:
    from . import environments, lease

    if a.action == "describe":
        environments.describe(replies, a.work)
    elif a.action == "make":
        with lease.block(a.lease_folder, a.lease, a.deadline_s, [os.path.dirname(path) for path in a.wheel]):
            environments.make(replies, a.work, a.digest, a.runtime, a.wheel)
    else:
        environments.check(replies, a.runtime)


def _lease(replies: Replies, a: argparse.Namespace) -> None:
    from . import lease

    if a.action == "acquire":
        lease.acquire(replies, a.lease_folder, a.holder, a.ttl_s, a.wait_s, a.uses)
    elif a.action == "renew":
        lease.renew(replies, a.lease_folder, a.token)
    elif a.action == "release":
        lease.release(replies, a.lease_folder, a.token)
    else:
        lease.status(replies, a.lease_folder)


_COMMANDS: Dict[str, Callable[[Replies, argparse.Namespace], None]] = {
    "probe": _probe,
    "condition": _condition,
    "bench": _bench,
    "profile": _profile,
    "infer": _infer,
    "receive": _receive,
    "have": _have,
    "tidy": _tidy,
    "environment": _environment,
    "lease": _lease,
}


def parser() -> argparse.ArgumentParser:
    """The command line, one sub-command a command."""
    top = argparse.ArgumentParser(prog="edgeprune-agent", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    command = commands.add_parser("probe", help="facts of this device")
    command.add_argument("--work", required=True)
    commands.add_parser("condition", help="clock, free memory, and whether memory can be limited")
    _add_bench(commands.add_parser("bench", help="time an artifact"))
    _add_profile(commands.add_parser("profile", help="time many artifacts in one process"))
    command = commands.add_parser("infer", help="run samples and save the outputs")
    _add_model(command)
    command.add_argument("--outputs", required=True)
    command = commands.add_parser("receive", help="check an uploaded part and move it to its name")
    command.add_argument("--part", required=True)
    command.add_argument("--sha256", required=True)
    command.add_argument("--size", type=int, required=True)
    command.add_argument("--to", required=True)
    command = commands.add_parser("have", help="is a file there with this content?")
    command.add_argument("--path", required=True)
    command.add_argument("--sha256", required=True)
    command.add_argument("--part", help="where an earlier upload may have left a part of it")
    command = commands.add_parser("tidy", help="make room for an artifact")
    command.add_argument("--work", required=True)
    command.add_argument("--limit", type=int, required=True)
    command.add_argument("--keep", action="append", default=[])
    command.add_argument("--lease-folder", default="")
    _add_environment(commands.add_parser("environment", help="a Python environment made of wheels"))
    _add_lease(commands.add_parser("lease", help="the right to measure on this device"))
    return top


def _add_environment(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True)
    action = actions.add_parser("describe", help="what wheels must fit, and what there is")
    action.add_argument("--work", required=True)
    action = actions.add_parser("make", help="make one and switch to it")
    action.add_argument("--work", required=True)
    action.add_argument("--digest", required=True)
    action.add_argument("--wheel", action="append", required=True)
    _add_runtimes(action)
    _add_token(action)
    _add_runtimes(actions.add_parser("check", help="import what is here"))


def _add_runtimes(action: argparse.ArgumentParser) -> None:
    action.add_argument("--runtime", action="append", choices=sessions.names(), required=True)


def _add_token(command: argparse.ArgumentParser) -> None:
    command.add_argument("--lease", default="", help="the token; without it nothing is checked")
    command.add_argument("--lease-folder", default="")
    command.add_argument("--deadline-s", type=float, default=0.0, help="after which the client has given up")


def _add_lease(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True)
    action = actions.add_parser("acquire", help="wait for it in turn")
    action.add_argument("--holder", required=True)
    action.add_argument("--ttl-s", type=float, required=True)
    action.add_argument("--wait-s", type=float, required=True)
    action.add_argument("--uses", action="append", default=[])
    action.add_argument("--lease-folder", default="")
    for name, purpose in (("renew", "give a sign"), ("release", "give it back")):
        action = actions.add_parser(name, help=purpose)
        action.add_argument("--token", required=True)
        action.add_argument("--lease-folder", default="")
    action = actions.add_parser("status", help="who holds it")
    action.add_argument("--lease-folder", default="")


def _add_model(command: argparse.ArgumentParser) -> None:
    _add_runtime(command)
    command.add_argument("--artifact", required=True)
    command.add_argument("--precision", choices=["float32", "bf16", "fp16", "int8"], required=True)
    command.add_argument("--inputs", required=True)


def _add_runtime(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runtime", choices=sessions.names(), required=True)
    command.add_argument("--threads", type=_positive, required=True)


def _add_timing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--work", required=True)
    command.add_argument("--warmup-min-runs", type=int, required=True)
    command.add_argument("--warmup-max-runs", type=int, required=True)
    command.add_argument("--warmup-max-s", type=float, required=True)
    command.add_argument("--cpus", type=_cpus, default=())
    _add_token(command)


def _add_profile(command: argparse.ArgumentParser) -> None:
    _add_runtime(command)
    _add_timing(command)
    command.add_argument("--trip", required=True, help="the zip file with the artifacts")
    command.add_argument("--rounds", type=_positive, required=True)
    command.add_argument("--round-s", type=float, required=True, help="of one artifact in one round, about")
    command.add_argument("--hold-bytes", type=_positive, required=True, help="of artifacts loaded at the same time")


def _add_bench(command: argparse.ArgumentParser) -> None:
    _add_model(command)
    _add_timing(command)
    command.add_argument("--runs", type=_positive, required=True)
    command.add_argument("--fill-s", type=float, default=0.0, help="more runs than --runs, until they take so long")
    command.add_argument("--max-runs", type=int, default=0, help="with --fill-s: but not more")
    command.add_argument("--max-s", type=float, default=0.0, help="fewer than --runs where they would take longer")
    command.add_argument("--seconds", type=float, default=0.0, help="for this long, in place of --runs")
    command.add_argument("--rate", type=float, default=0.0, help="with --seconds: frames per second; 0: flat out")
    command.add_argument("--bucket-s", type=float, default=0.0, help="with --seconds: sum up each such stretch")
    command.add_argument("--memory-limit-bytes", type=_positive, help="run in a child process under this limit")
    command.add_argument("--memory-limit-of", choices=["process", "model"], default="process")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected a number > 0, got %s" % text)
    return number


def _cpus(text: str) -> "tuple[int, ...]":
    return tuple(int(c) for c in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
