# SPDX-License-Identifier: Apache-2.0
"""Commands about readers and the guests that are connected to them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from ccid_protocol.qmp import JSON
from ccidd.service.configfile import READER_KEYS, read_reader
from ccidd.service.configtable import Table
from ccidd.service.control.commands.lookup import card_text, find_reader
from ccidd.service.control.context import Context
from ccidd.service.control.errors import CommandError
from ccidd.service.control.registry import command
from ccidd.service.control.roles import Role
from ccidd.service.served import ServedReader
from ccidd.service.service import Changes
from ccidd.service.where import Where

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class ReaderInfo:
    """A reader.

    Attributes:
        name: its name; the only one is called `reader`.
        transport: what is spoken at its front door.
        socket_path: the Unix socket where it listens, if it does.
        connect: where it connects to, if it does.
        listen: the TCP port where it listens, if it does.
        fd: the socket that it inherited, if it did.
        slots: how many slots it has.
        cards: how many of them have a card.
        connected: whether a guest is connected.
        guest: what the guest is called.
        trace: the file that its trace is written into, if there is one.
    """

    name: str
    transport: str
    socket_path: str | None
    connect: str | None
    listen: str | None
    fd: int | None
    slots: int
    cards: int
    connected: bool
    guest: str | None
    trace: str | None


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """A slot.

    Attributes:
        reader: the reader.
        slot: its number, from 0.
        present: whether the guest sees a card in it.
        card: what fills it, as `--card` has it; a card that follows hardware may not be there.
    """

    reader: str
    slot: int
    present: bool
    card: str | None


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A guest that is connected.

    Attributes:
        reader: the reader.
        guest: what the guest is called.
    """

    reader: str
    guest: str


@command(Role.OBSERVE)
async def query_readers(context: Context) -> Sequence[ReaderInfo]:
    """Lists the readers."""
    await trio.lowlevel.checkpoint()
    return [_info(reader) for reader in context.service.readers.values()]


def _info(reader: ServedReader) -> ReaderInfo:
    configuration = reader.configuration
    assert configuration is not None
    path = configuration.socket_path
    trace = None if reader.tracer is None else reader.tracer.file
    return ReaderInfo(
        name=reader.name,
        transport=configuration.transport,
        socket_path=None if path is None else str(path),
        connect=configuration.connect,
        listen=configuration.listen,
        fd=configuration.fd,
        slots=len(reader.slots),
        cards=sum(slot.insertion is not None for slot in reader.slots),
        connected=reader.is_connected,
        guest=reader.guest.name if reader.is_connected else None,
        trace=None if trace is None else str(trace),
    )


@command(Role.OBSERVE)
async def query_slots(context: Context, *, reader: str | None = None) -> Sequence[SlotInfo]:
    """Lists the slots of all readers, or of one."""
    await trio.lowlevel.checkpoint()
    readers = context.service.readers.values() if reader is None else [find_reader(context, reader)]
    return [
        SlotInfo(
            each.name,
            slot.index,
            present=slot.insertion is not None,
            card=None if card is None else card_text(card),
        )
        for each in readers
        for slot, card in zip(each.slots, each.cards, strict=True)
    ]


@command(Role.OBSERVE)
async def query_connections(context: Context) -> Sequence[ConnectionInfo]:
    """Lists the guests that are connected."""
    await trio.lowlevel.checkpoint()
    return [
        ConnectionInfo(reader.name, reader.guest.name)
        for reader in context.service.readers.values()
        if reader.is_connected
    ]


@command(Role.OPERATE)
async def reader_add(
    context: Context, *, reader: str, configuration: Mapping[str, JSON]
) -> ReaderInfo:
    """Adds a reader, with the keys that `[readers.NAME]` has in a configuration file."""
    if not _NAME.fullmatch(reader):
        raise CommandError(
            "the name of a reader is up to 64 letters, digits, dots, hyphens and underscores"
        )
    table = Table(Where(f"the reader {reader}", ": "), configuration, READER_KEYS)
    if "fd" in table:
        raise CommandError("a reader with an inherited socket (fd) is there from the start")
    return _info(await context.service.add(read_reader(reader, table, {})))


@command(Role.OPERATE)
async def reader_remove(context: Context, *, reader: str) -> None:
    """Unplugs a reader: what is in flight is answered, and the guest sees its cards go."""
    await context.service.remove(find_reader(context, reader).name)


@command(Role.OPERATE)
async def reload(context: Context) -> Changes:
    """Reads the configuration file again, as SIGHUP does; readers that stay are left alone."""
    return await context.service.reload()


COMMANDS: Final = (
    query_readers,
    query_slots,
    query_connections,
    reader_add,
    reader_remove,
    reload,
)
