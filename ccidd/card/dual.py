# SPDX-License-Identifier: Apache-2.0
"""A card that is both PIV card and CAC, with one PIN and one set of keys.

Each side keeps its own rules. The PIV card application's security status ends when a CAC applet is
selected (SP 800-73-4, part 2, 3.1.1), and a PIN that was verified there opens nothing here; that of
the CAC applets lasts until the card is reset. The tries are common, and a wrong one on either side
ends both. A key has the rule for the PIN of the side that it is used through: the CAC knows no "PIN
always".

Clients that know both take such a card for a PIV card (OpenSC's driver for it comes first).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from ccid_protocol.atr import ATR, InterfaceBytes
from ccidd.card.cac.card import cac_applets, stored_contents
from ccidd.card.cac.keys import ChipIdentity, PkiCredential
from ccidd.card.cac.pki import is_supported
from ccidd.card.cac.references import MAX_PKI_APPLETS
from ccidd.card.emulated import EmulatedCard
from ccidd.card.memory import CardMemory
from ccidd.card.pin import Pin, PinMemory
from ccidd.card.piv.application import PivApplication
from ccidd.card.piv.objects import guid_of
from ccidd.card.piv.references import KeyReference, PinReference
from ccidd.keys.key import Credential

# As on a PIV card: category 80 (compact TLV), and tag F with the AID of PIV. Tag 6 (pre-issuing
# data) makes the ATR another one, because Windows keeps by it what it has learnt of a card.
_HISTORICAL_BYTES: Final = bytes.fromhex("80F9A00000030800001000") + b"\x62CA"

_INTERFACE: Final = (
    InterfaceBytes(ta=0x11, protocol=0),
    InterfaceBytes(protocol=1),
    InterfaceBytes(ta=0xFE, tb=0x45),
)


class _WatchedPin(PinMemory):
    """The PIN of the PIV side, which ends what the CAC side's has opened when it must.

    The other way round there is nothing to end: while a CAC applet is selected, PIV has no status.
    """

    def __init__(self, memory: PinMemory, other: Pin) -> None:
        self._memory = memory
        self._other = other

    async def tries_left(self) -> int:
        """See `PinMemory.tries_left`."""
        return await self._memory.tries_left()

    async def max_tries(self) -> int:
        """See `PinMemory.max_tries`."""
        return await self._memory.max_tries()

    async def compare(self, candidate: bytes) -> bool:
        """See `PinMemory.compare`."""
        matches = await self._memory.compare(candidate)
        if not matches:
            self._other.end()
        return matches

    async def change(self, new: bytes) -> None:
        """See `PinMemory.change`."""
        self._other.end()
        await self._memory.change(new)

    async def set_max_tries(self, count: int) -> None:
        """See `PinMemory.set_max_tries`."""
        self._other.end()
        await self._memory.set_max_tries(count)


def dual_card(credentials: Mapping[KeyReference, Credential], memory: CardMemory) -> EmulatedCard:
    """Makes a card that is both.

    Its PKI applets have the keys 9A, 9C and 9D and then the retired ones, those that a CAC can have
    and 16 at most; the card authentication key, which needs no PIN, is for PIV alone. There is no
    Windows plug and play, so that Windows takes the driver that it has for PIV.

    Args:
        credentials: the keys on it and their certificates.
        memory: where its PIN, that of the PIV card application, is remembered.

    Raises:
        UserError: An object in the memory is broken.
    """
    pin_memory = memory.pin(PinReference.APPLICATION_PIN)
    pin = Pin(pin_memory)
    piv = PivApplication(credentials, Pin(_WatchedPin(pin_memory, pin)))

    def pki_credentials() -> Sequence[PkiCredential]:
        references = [r for r in KeyReference if r is not KeyReference.CARD_AUTHENTICATION]
        present = [credentials[r] for r in references if r in credentials]
        return [PkiCredential.of(c) for c in present if is_supported(c.key)][:MAX_PKI_APPLETS]

    identity = ChipIdentity.of(guid_of(credentials.values()).bytes)
    applets = cac_applets(pki_credentials, identity, stored_contents(memory), pin)
    return EmulatedCard(ATR(_HISTORICAL_BYTES, _INTERFACE), [piv, *applets])
