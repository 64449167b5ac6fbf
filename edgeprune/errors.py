"""One tree of errors; a branch is an exit code, and the facts of a message are fields too."""

from __future__ import annotations

from typing import ClassVar


class EdgepruneError(Exception):
    """Base of all errors that edgeprune raises on purpose.

    Args:
        message: where, what was expected, what was found; one sentence a person can act on.
        facts: the numbers and names of the message, for programs; JSON-serialisable.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class InputError(EdgepruneError):
    """A profile, target, device, weights or data file that cannot be used as it is."""

    exit_code = 2


class PlanError(EdgepruneError):
    """No plan fits the budget; `facts` tells the best that was measured."""

    exit_code = 3


class BuildError(EdgepruneError):
    """Training, pruning, quantization or compilation failed."""

    exit_code = 4


class NotInstalledError(BuildError):
    """A library that the request needs is not installed on the build host."""


class DeployError(EdgepruneError):
    """The device could not be reached, was refused, or could not take the files."""

    exit_code = 5


class HostKeyError(DeployError):
    """The device's host key is not the pinned one: a stranger, or a re-installed device."""


class UnfitDeviceError(DeployError):
    """The device failed its check; `facts` names what."""


class DeviceTimeoutError(DeployError):
    """A command or transfer on the device passed its deadline."""


class MeasurementError(EdgepruneError):
    """The device was reached but the measurement could not be taken."""

    exit_code = 6

    @property
    def about_artifact(self) -> bool:
        """Whether it was the artifact that failed, and not the device, the link or the time."""
        return self.facts.get("kind") in _ARTIFACT_FAULTS


_ARTIFACT_FAULTS = ("bad_artifact", "runtime", "not_installed", "memory", "killed")
"""What the agent calls them: see `benchmarking/client.py`."""


EXIT_CODES: dict[int, str] = {
    0: "pass",
    1: "a bug of ours",
    2: "bad input (profile, target, device, weights or data)",
    3: "no plan fits the budget",
    4: "the build failed",
    5: "the device could not be reached, failed its check, or could not take the files",
    6: "the measurement could not be taken",
    7: "gate verdict FAIL",
    8: "gate verdict INCONCLUSIVE: too few samples to say",
    9: "gate verdict INVALID: the device was disturbed",
    130: "interrupted",
}
