# SPDX-License-Identifier: Apache-2.0
"""A card that is both PIV card and CAC, with one PIN and one set of keys.

Each side keeps its own rules. The PIV card application's security status ends when a CAC applet is
selected (SP 800-73-4, part 2, 3.1.1), and a PIN that was verified there opens nothing here; that of
the CAC applets lasts until the card is reset. The tries are common, and a wrong one on either side
ends both. A key has the rule for the PIN of the side that it is used through: the CAC knows no "PIN
always".

Clients that know both take such a card for a PIV card, because OpenSC's driver for it comes first.
The card capability container of PIV names no CAC applets (CardURLs): OpenSC then thinks of certain
old cards that are both, uses neither the discovery object, by which it notices that somebody has
selected a CAC applet meanwhile, nor the card's random numbers, and asks for the PIN more often.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ccid_protocol import tlv
from ccid_protocol.atr import ATR
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.cac.card import cac_applets, stored_contents
from ccidd.card.cac.keys import MAX_CERTIFICATE_SIZE, ChipIdentity, PkiCredential
from ccidd.card.cac.pki import is_supported
from ccidd.card.cac.references import MAX_PKI_APPLETS
from ccidd.card.emulated import Conventions, EmulatedCard
from ccidd.card.memory import CardMemory
from ccidd.card.pin import Pin, PinMemory
from ccidd.card.piv.application import PivApplication
from ccidd.card.piv.card import HISTORICAL_BYTES, INTERFACE
from ccidd.card.piv.identity import Identity
from ccidd.card.piv.objects import DataObjects
from ccidd.card.piv.options import PivOptions
from ccidd.card.piv.records import Records
from ccidd.card.piv.references import KeyReference, PinReference
from ccidd.card.piv.slots import Slots
from ccidd.keys.key import Credential

# As on a PIV card: category 80 (compact TLV), and tag F with the AID of PIV. Tag 6 (pre-issuing
# data) makes the ATR another one, because Windows keeps by it what it has learnt of a card.
_HISTORICAL_BYTES: Final = HISTORICAL_BYTES + b"\x62CA"

_PRE_ISSUING_DATA: Final = 0x63
"""The tag, and the length of a part of the GUID in the place of that."""

# A certificate container (SP 800-73-4, part 1, table 10).
_CERTIFICATE: Final = 0x70
_CERTIFICATE_INFORMATION: Final = 0x71
_COMPRESSED: Final = 0x01


class _CommonPin(PinMemory):
    """The PIN's memory, as one of the sides sees it."""

    def __init__(self, memory: PinMemory) -> None:
        self._memory = memory

    async def tries_left(self) -> int:
        """See `PinMemory.tries_left`."""
        return await self._memory.tries_left()

    async def max_tries(self) -> int:
        """See `PinMemory.max_tries`."""
        return await self._memory.max_tries()

    async def compare(self, candidate: bytes) -> bool:
        """See `PinMemory.compare`."""
        return await self._memory.compare(candidate)

    async def change(self, new: bytes) -> None:
        """See `PinMemory.change`."""
        await self._memory.change(new)

    async def replace(self, current: bytes, new: bytes) -> None:
        """See `PinMemory.replace`."""
        await self._memory.replace(current, new)

    def end(self) -> None:
        """See `PinMemory.end`."""
        self._memory.end()

    @property
    def is_token_pin(self) -> bool:
        """See `PinMemory.is_token_pin`."""
        return self._memory.is_token_pin

    async def set_max_tries(self, count: int) -> None:
        """See `PinMemory.set_max_tries`."""
        await self._memory.set_max_tries(count)


class _CacPin(_CommonPin):
    """The PIN of the CAC side; a change there is one that the PIV side tells of."""

    def __init__(self, memory: PinMemory, records: Records) -> None:
        super().__init__(memory)
        self._records = records

    async def replace(self, current: bytes, new: bytes) -> None:
        """See `PinMemory.replace`."""
        await super().replace(current, new)
        await self._records.note_pin_changed(PinReference.APPLICATION_PIN)


class _PivPin(_CommonPin):
    """The PIN of the PIV side, which ends what the CAC side's has opened when it must.

    The other way round there is nothing to end: while a CAC applet is selected, PIV has no status.
    """

    def __init__(self, memory: PinMemory, other: Pin) -> None:
        super().__init__(memory)
        self._other = other

    async def compare(self, candidate: bytes) -> bool:
        """See `PinMemory.compare`."""
        matches = await super().compare(candidate)
        if not matches:
            self._other.end()
        return matches

    async def change(self, new: bytes) -> None:
        """See `PinMemory.change`."""
        self._other.verified = False
        await super().change(new)

    async def replace(self, current: bytes, new: bytes) -> None:
        """See `PinMemory.replace`."""
        self._other.verified = False
        await super().replace(current, new)

    def end(self) -> None:
        """See `PinMemory.end`: the CAC side may still need what is open, and ends with the card."""

    async def set_max_tries(self, count: int) -> None:
        """See `PinMemory.set_max_tries`."""
        self._other.verified = False
        await super().set_max_tries(count)


class _PivMemory(CardMemory):
    """The card's memory for the PIV side."""

    def __init__(self, memory: CardMemory, other: Pin) -> None:
        self._memory = memory
        self._other = other

    @property
    def contents(self) -> Mapping[str, bytes]:
        """See `CardMemory.contents`."""
        return self._memory.contents

    async def store(self, changes: Mapping[str, bytes | None]) -> None:
        """See `CardMemory.store`."""
        await self._memory.store(changes)

    def pin(self, reference: int) -> PinMemory:
        """See `CardMemory.pin`."""
        pin = self._memory.pin(reference)
        return _PivPin(pin, self._other) if reference == PinReference.APPLICATION_PIN else pin


class _PkiKeys:
    """The keys of the PIV side that the PKI applets have.

    They are 9A, 9C and 9D and then the retired ones, those that have a certificate and that a CAC
    can have; the card authentication key, which needs no PIN, is for PIV alone.
    """

    def __init__(self, slots: Slots, objects: DataObjects) -> None:
        self._slots = slots
        self._objects = objects

    def credentials(self) -> Sequence[PkiCredential]:
        """Gives them as they are now."""
        return list(self._all())[:MAX_PKI_APPLETS]

    def _all(self) -> Iterator[PkiCredential]:
        for reference in KeyReference:
            slot = self._slots.get(reference)
            if reference is KeyReference.CARD_AUTHENTICATION or slot is None:
                continue
            try:
                container = tlv.decode_to_dict(
                    self._objects.content(reference.certificate_tag) or b""
                )
            except RemoteProtocolError:
                continue  # a host has put something else there
            certificate = container.get(_CERTIFICATE, b"")
            if is_supported(slot.key) and 0 < len(certificate) <= MAX_CERTIFICATE_SIZE:
                information = container.get(_CERTIFICATE_INFORMATION, b"")[:1]
                compressed = bool(int.from_bytes(information) & _COMPRESSED)
                yield PkiCredential(slot.key, certificate, compressed)


def dual_card(
    credentials: Mapping[KeyReference, Credential],
    memory: CardMemory,
    *,
    vendor_extensions: bool = False,
    legacy_rsa: bool = False,
    guid: uuid.UUID | None = None,
) -> EmulatedCard:
    """Makes a card that is both.

    There is no Windows plug and play on it, so that Windows takes the driver that it has for PIV.

    Args:
        credentials: keys from outside, with their certificates.
        memory: what the card remembers, as for `piv_card` and `cac_card`; its PIN is that of the
            PIV card application.
        vendor_extensions: as for `piv_card`.
        legacy_rsa: as for `piv_card`.
        guid: as for `piv_card`.

    Raises:
        UserError: The card cannot have one of the keys, or has no identity, or an object in the
            memory is broken.
    """
    options = PivOptions(vendor_extensions=vendor_extensions, legacy_rsa=legacy_rsa, guid=guid)
    records = Records(memory)
    pin = Pin(_CacPin(memory.pin(PinReference.APPLICATION_PIN), records))
    identity = Identity.of(records, credentials.values(), guid)
    slots = Slots(credentials, records)
    objects = DataObjects(records, slots, identity, extensions=vendor_extensions)
    keys = _PkiKeys(slots, objects)
    piv = PivApplication(credentials, _PivMemory(memory, pin), options)
    chip = ChipIdentity.of(identity.guid.bytes)
    applets = cac_applets(keys.credentials, chip, stored_contents(memory), pin)
    historical = _HISTORICAL_BYTES
    if guid is not None:
        historical = HISTORICAL_BYTES + bytes([_PRE_ISSUING_DATA]) + guid.bytes[:3]
    return EmulatedCard(
        ATR(historical, INTERFACE),
        [piv, *applets],
        # As on a PIV card.
        conventions=Conventions(data_without_le=vendor_extensions),
    )
