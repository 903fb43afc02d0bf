# SPDX-License-Identifier: Apache-2.0
"""A slot of ccidd's that follows a virtual reader of a pcscd."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from cards import ScriptedCard
from ccid_protocol.atr import InterfaceBytes
from ccidd.card.card import Card
from ccidd.card.passthrough.card import Sharing
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.keys.key import KeyAlgorithm
from ccidd.reader.slot import Insertion, Slot
from ccidd.service.pcsc import PcscSupply
from ccidd.service.supply import UNPROTECTED, Protect
from credentials import credential
from pcscd import Pcscd, pcscd_with, place_of_socket, use_from_here
from piv import new_memory
from vpcd import VirtualReader, virtual_reader

READER = "Virtual 00 00"
"""What pcscd calls the first slot of the virtual reader."""

PATIENCE = 20
"""Seconds for what takes less than one."""


@dataclass(frozen=True)
class Bench:
    """A pcscd with a virtual reader, and what this process has in its slots of it.

    Attributes:
        host: the pcscd, which this process finds.
        reader: the reader.
        directory: where the pcscd has its files.
    """

    host: Pcscd
    reader: VirtualReader
    directory: Path


@asynccontextmanager
async def bench(directory: Path, card: Card | None = None) -> AsyncIterator[Bench]:
    """A pcscd with a virtual reader, and perhaps a card in it."""
    async with virtual_reader() as reader:
        if card is not None:
            reader.insert(card)
        async with pcscd_with(directory, reader.configuration) as host:
            use_from_here(host)
            yield Bench(host, reader, directory)


_DEFAULTS = Sharing()


@asynccontextmanager
async def following(
    pattern: str = READER, sharing: Sharing = _DEFAULTS, protect: Protect = UNPROTECTED.protect
) -> AsyncIterator[Slot]:
    """A slot that follows a reader."""
    # Before the first call, which looks for the place once and for all.
    place_of_socket()
    slot = Slot()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(PcscSupply(pattern, sharing, protect).run, [slot])
        yield slot
        nursery.cancel_scope.cancel()


async def inserted(slot: Slot, *, after: Insertion | None = None) -> Insertion:
    """Waits until there is a card in a slot, and other than one that was there before."""
    with trio.fail_after(PATIENCE):
        while (insertion := slot.insertion) is None or insertion is after:
            await slot.wait_until_not(insertion)
        return insertion


async def removed(slot: Slot) -> None:
    """Waits until there is no card in a slot."""
    with trio.fail_after(PATIENCE):
        while (insertion := slot.insertion) is not None:
            await slot.wait_until_not(insertion)


async def powered(slot: Slot, *, after: Insertion | None = None) -> Card:
    """Waits for a card in a slot, and powers it on as a guest does."""
    card = await inserted(slot, after=after)
    await card.power_on()
    return card


def scripted_card(answer: Callable[[bytes], Awaitable[bytes]], *, protocol: int = 1) -> Card:
    """A card that answers with what a function gives, and speaks one protocol."""
    return ScriptedCard(answer, interface=(InterfaceBytes(ta=0x11, protocol=protocol),))


def new_piv_card() -> Card:
    """A PIV card with a key of P-256."""
    keys = {KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256)}
    return piv_card(keys, new_memory())
