"""`<config>/devices/<name>.toml`: one physical box, enrolled once. Kept in the user's inventory, not in the repo."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgeprune.schema.base import FileModel
from edgeprune.schema.profile import Name


class DeviceSpec(FileModel):
    """How to reach a device and prove that it is the one that was enrolled."""

    schema_version: Literal[1] = Field(1, alias="schema")
    """Version of this file's format."""
    name: Name
    """Equal to the file's name without `.toml`."""
    connection: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "ssh"
    """A file of `deployment/connections`: `ssh` or `local`."""
    profile: str
    """Name or path of the device's profile."""
    host: str = ""
    """Name, address, or a `Host` of the OpenSSH configuration."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Of the SSH server; 0: what the OpenSSH configuration says, else 22."""
    user: str = ""
    """Who logs in there; needs no root. Empty: what the OpenSSH configuration says, else your own name."""
    identity_file: str = ""
    """Private key file, the only one to be tried; empty: those of the OpenSSH configuration, and ssh-agent's. The key
    itself is never copied."""
    ssh_config: str = ""
    """OpenSSH client configuration to honour (ProxyJump, IdentityFile and so on); empty: ~/.ssh/config and the
    system's; `none`: none."""
    host_key: str = ""
    """The pinned host key in OpenSSH form: type and base64, such as `ssh-ed25519 AAAA...`."""
    python: str = "python3"
    """The Python on the device that has the runtimes."""
    base_python: str = ""
    """The Python there that `device provision` makes environments with; empty: `python` is it."""
    work_folder: str = ".cache/edgeprune"
    """On the device; a relative one is below the login folder."""
    lease_folder: str = ""
    """On the device: where it is kept who may measure. Empty: a place that all its users share (/run/lock, or /tmp).
    Entries that share a machine (containers, a lab) and shall be measured at once need one each."""
    cache_mb: Annotated[float, Field(gt=0)] = 1000.0
    """What artifacts may take in the work folder; the ones not used for longest go first."""
    connect_timeout_s: Annotated[float, Field(gt=0)] = 15.0
    """For connecting and logging in."""
