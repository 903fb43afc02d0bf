# SPDX-License-Identifier: Apache-2.0
"""What is on a CAC beside the applets of the GSC-IS: card manager and Windows plug and play.

Source: GlobalPlatform Card Specification 2.3.1, 11.3 (GET DATA), 11.9 (SELECT) and H.2 (card
recognition data); the smart card discovery process of Windows.
"""

from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU, StatusWord
from ccid_protocol.apdu import Instruction as IsoInstruction
from ccidd.card.application import CardError
from ccidd.card.cac.applet import GscApplication
from ccidd.card.cac.keys import ChipIdentity
from ccidd.card.cac.references import CARD_MANAGER, PLUG_AND_PLAY
from ccidd.card.pin import Pin

# Object identifiers: GlobalPlatform 2.2.1, and how the card is identified and managed (H.2).
_CARD_DATA: Final = bytes.fromhex(
    "732F06072A864886FC6B01"
    "600C060A2A864886FC6B02020201"
    "630906072A864886FC6B03"
    "640B06092A864886FC6B040310"
)

# A SEQUENCE of version 0 and, for the vendor MSFT, the GUID by which Windows finds the driver.
_DRIVER: Final = bytes.fromhex("301D02010016044D53465430120410E280E9D25188874F81D64F254E38001D")


class CardManager(GscApplication):
    """The issuer security domain, of which there is only what tells the card from others.

    Args:
        identity: which card it is.
        pin: the card's PIN.
    """

    def __init__(self, identity: ChipIdentity, pin: Pin) -> None:
        super().__init__(CARD_MANAGER, pin)
        self._data = {
            0x0066: tlv.encode(0x66, _CARD_DATA),
            0x9F7F: tlv.encode(0x9F7F, identity.production_life_cycle()),
        }

    def select(self) -> bytes:
        """See `Application.select`: the full identifier, product life cycle, and 255 bytes."""
        life_cycle = tlv.encode(0x9F6E, bytes.fromhex("129151810100"))
        proprietary = tlv.encode(0xA5, life_cycle, tlv.encode(0x9F65, b"\xff"))
        return tlv.encode(0x6F, tlv.encode(0x84, self.aid + b"\0"), proprietary)

    async def process_own(self, command: CommandAPDU) -> ResponseAPDU:
        """See `GscApplication.process_own`."""
        if command.ins != IsoInstruction.GET_DATA_CA:
            return await super().process_own(command)
        return ResponseAPDU(_get_data(command, self._data))


class PlugAndPlay(GscApplication):
    """What Windows asks first, to find the driver for the card."""

    def __init__(self, pin: Pin) -> None:
        super().__init__(PLUG_AND_PLAY, pin)

    async def process_own(self, command: CommandAPDU) -> ResponseAPDU:
        """See `GscApplication.process_own`."""
        if command.ins != IsoInstruction.GET_DATA_CA:
            return await super().process_own(command)
        return ResponseAPDU(_get_data(command, {0x7F68: _DRIVER}))


def _get_data(command: CommandAPDU, data: dict[int, bytes]) -> bytes:
    content = data.get(command.p1 << 8 | command.p2)
    if content is None:
        raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)
    return content
