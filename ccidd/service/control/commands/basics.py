# SPDX-License-Identifier: Apache-2.0
"""Commands about the service as a whole, with QEMU's names where QEMU has them.

Source: QEMU, qapi/control.json and qapi/introspect.json.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from ccid_protocol.qmp import JSON, ErrorClass
from ccidd import __version__
from ccidd.service.control.context import Context
from ccidd.service.control.errors import CommandError
from ccidd.service.control.registry import command
from ccidd.service.control.roles import Role, role_names
from ccidd.service.control.schema import schema
from ccidd.service.sandbox.confine import Confinement


@dataclass(frozen=True, slots=True)
class VersionTriple:
    """A version in QEMU's form.

    Attributes:
        major: the first number.
        minor: the second.
        micro: the third.
    """

    major: int
    minor: int
    micro: int


@dataclass(frozen=True, slots=True)
class Version:
    """Which ccidd it is.

    Attributes:
        qemu: its version, under the name that QEMU's clients look for.
        package: its name and version.
    """

    qemu: VersionTriple
    package: str


@dataclass(frozen=True, slots=True)
class Name:
    """A command's name.

    Attributes:
        name: it.
    """

    name: str


class ServiceState(enum.StrEnum):
    """How the service is."""

    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class MissingPart:
    """A part of the sandbox that is not in force.

    Attributes:
        part: its name.
        reason: why.
    """

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class Confined:
    """The sandbox.

    Attributes:
        mode: what was asked for: auto, on or off.
        in_force: the names of the parts that are in force.
        missing: the others.
    """

    mode: str
    in_force: Sequence[str]
    missing: Sequence[MissingPart]


@dataclass(frozen=True, slots=True)
class Status:
    """How the service is.

    Attributes:
        version: ccidd's version.
        state: whether it serves or ends.
        uptime: seconds since it began to serve.
        readers: how many readers there are.
        connected: how many of them have a guest.
        roles: what this control socket is for.
        confinement: what keeps ccidd to what it needs (docs/security.md).
    """

    version: str
    state: ServiceState
    uptime: float
    readers: int
    connected: int
    roles: Sequence[str]
    confinement: Confined


def version() -> Version:
    """Tells which ccidd this is."""
    major, minor, micro = (int(part) for part in __version__.split(".")[:3])
    return Version(VersionTriple(major, minor, micro), f"ccidd {__version__}")


@command(Role.OBSERVE | Role.AGENT, "qmp_capabilities")
async def qmp_capabilities(context: Context, *, enable: Sequence[str] = ()) -> None:  # noqa: ARG001 (see `Session`)
    """Begins the session: the first command, and never another."""
    await trio.lowlevel.checkpoint()
    raise CommandError(
        "the capabilities are negotiated already, by the first command",
        ErrorClass.COMMAND_NOT_FOUND,
    )


@command(Role.OBSERVE | Role.AGENT)
async def query_commands(context: Context) -> Sequence[Name]:
    """Lists the commands that this socket has."""
    await trio.lowlevel.checkpoint()
    return [Name(name) for name in context.registry.for_roles(context.roles).commands]


@command(Role.OBSERVE | Role.AGENT)
async def query_schema(context: Context) -> Sequence[Mapping[str, JSON]]:
    """Describes the commands and events that this socket has, with their types."""
    await trio.lowlevel.checkpoint()
    return schema(context.registry.for_roles(context.roles))


@command(Role.OBSERVE | Role.AGENT)
async def query_qmp_schema(context: Context) -> Sequence[Mapping[str, JSON]]:
    """Does what `query-schema` does, under QEMU's name."""
    await trio.lowlevel.checkpoint()
    return schema(context.registry.for_roles(context.roles))


@command(Role.OBSERVE | Role.AGENT)
async def query_version(context: Context) -> Version:  # noqa: ARG001 (every command has it)
    """Tells which ccidd this is."""
    await trio.lowlevel.checkpoint()
    return version()


@command(Role.OBSERVE | Role.AGENT)
async def query_status(context: Context) -> Status:
    """Tells how the service is."""
    await trio.lowlevel.checkpoint()
    readers = context.service.readers.values()
    return Status(
        version=__version__,
        state=ServiceState.STOPPING if context.service.is_over else ServiceState.RUNNING,
        uptime=round(trio.current_time() - context.started, 3),
        readers=len(readers),
        connected=sum(reader.is_connected for reader in readers),
        roles=role_names(context.roles),
        confinement=_confined(context.service.confinement),
    )


def _confined(confinement: Confinement) -> Confined:
    missing = [MissingPart(part, reason) for part, reason in confinement.missing.items()]
    return Confined(confinement.mode.value, confinement.in_force, missing)


@command(Role.OPERATE)
async def quit(context: Context) -> None:  # noqa: A001 (QEMU's name for it)
    """Ends ccidd as SIGTERM does: what is in flight is answered, and guests see their cards go."""
    await trio.lowlevel.checkpoint()
    context.service.quit()


COMMANDS: Final = (
    qmp_capabilities,
    query_commands,
    query_schema,
    query_qmp_schema,
    query_version,
    query_status,
    quit,
)
