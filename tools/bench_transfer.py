"""Compares uploads by edgeprune with OpenSSH's own sftp, in turn, in one run.

    python tools/bench_transfer.py
    python tools/bench_transfer.py --edgelab ../shared/edgelab/edgelab --latency 10ms --megabytes 60

Each upload is the whole of it: connect, send, end. Without --edgelab the device is an sshd on loopback that the tests
start; with it, one behind a link with that latency each way. Exit code 1 where edgeprune is slower than --least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from sshd import SshServer

from edgeprune.deployment.connections import connect
from edgeprune.schema.device import DeviceSpec
from edgeprune.units import BYTES_PER_MB

_SSH_PORT = 22


def main() -> int:
    """Measure, print, and say by the exit code whether we are quick enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--least", type=float, default=1.0, help="the ratio that must be reached")
    parser.add_argument("--edgelab", type=Path, help="the device lab's script")
    parser.add_argument("--latency", default="10ms", help="each way, with --edgelab; 10ms is a round trip of 20 ms")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        source = Path(folder) / "random.bin"
        source.write_bytes(os.urandom(options.megabytes * BYTES_PER_MB))
        where = _lab(options.edgelab, options.latency, Path(folder)) if options.edgelab else _loopback()
        with where as device:
            ours, theirs = _in_turn(device, source, options.rounds, Path(folder) / "known_hosts")
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    for name, rates in (("edgeprune", ours), ("sftp", theirs)):
        print(f"{name:10} median {statistics.median(rates):6.1f} MB/s   {' '.join(f'{r:.1f}' for r in rates)}")
    print(f"ratio      median {ratio:6.2f}   (over {options.rounds} pairs, at least {options.least:g} asked)")
    return 0 if ratio >= options.least else 1


def _in_turn(device: DeviceSpec, source: Path, rounds: int, known_hosts: Path) -> tuple[list[float], list[float]]:
    """Rates in MB/s of both, ABBA: a drift of the machine falls on both alike. The first pair is not counted."""
    at = device.host if device.port == _SSH_PORT else f"[{device.host}]:{device.port}"
    known_hosts.write_text(f"{at} {device.host_key}\n")
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds + 1):
        pair = [(ours, lambda: _edgeprune(device, source)), (theirs, lambda: _sftp(device, source, known_hosts))]
        for rates, upload in pair if number % 2 else pair[::-1]:
            rates.append(source.stat().st_size / BYTES_PER_MB / _seconds(upload))
    return ours[1:], theirs[1:]


def _edgeprune(device: DeviceSpec, source: Path) -> None:
    connection = connect(device)
    connection.put(source, "bench-transfer.bin")
    connection.close()


def _sftp(device: DeviceSpec, source: Path, known_hosts: Path) -> None:
    options = ["-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR"]
    login = ["-P", str(device.port), "-i", device.identity_file, f"{device.user}@{device.host}"]
    batch = f"put {source} bench-transfer.bin\n"
    subprocess.run(["sftp", "-q", "-b", "-", *options, *login], input=batch, text=True, check=True, capture_output=True)


def _seconds(upload: Callable[[], None]) -> float:
    start = time.perf_counter()
    upload()
    return time.perf_counter() - start


@contextlib.contextmanager
def _loopback() -> Iterator[DeviceSpec]:
    with SshServer() as server:
        yield server.device()


@contextlib.contextmanager
def _lab(edgelab: Path, latency: str, folder: Path) -> Iterator[DeviceSpec]:
    lab = folder / "lab"
    subprocess.run([sys.executable, edgelab, "up", lab, "--latency", latency], check=True, stdout=sys.stderr)
    try:
        found = json.loads((lab / "inventory.json").read_text())["devices"][0]
        keys = [line.split() for line in Path(found["known_hosts"]).read_text().splitlines()]
        key = next(words[1:3] for words in keys if words[1] == "ssh-ed25519")
        yield DeviceSpec(
            schema=1,
            name="lab",
            profile="local",
            host=found["host"],
            port=found["port"],
            user=found["user"],
            identity_file=found["identity_file"],
            host_key=" ".join(key),
        )
    finally:
        subprocess.run([sys.executable, edgelab, "down", lab], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
