# SPDX-License-Identifier: Apache-2.0
"""A card that writes down what reaches it, and knows which of its applications is selected."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccid_protocol.atr import ATR
from ccidd.card.card import Card

PIV: Final = "A000000308000010000100"
CAC_CCC: Final = "A000000116DB00"
CAC_IDENTITY: Final = "A0000000790100"
CAC_ENCRYPTION: Final = "A0000000790102"
OPENPGP: Final = "D27600012401"
OTHER: Final = "A0000005272101"

AIDS: Final = (PIV, CAC_CCC, CAC_IDENTITY, CAC_ENCRYPTION, OPENPGP, OTHER)


@dataclass(frozen=True, slots=True)
class Received:
    """A command that has reached the card, and the application that it was for."""

    command: CommandAPDU
    selected: str


class RecordingCard(Card):
    """The card.

    Args:
        default: the application that is selected after power-on, and after a SELECT by name that
            fails if such a SELECT deselects.
        failed_select_deselects: whether it does.
        answers: the responses to some commands, by their first four bytes in hexadecimal.
    """

    def __init__(
        self,
        default: str = OTHER,
        *,
        failed_select_deselects: bool = False,
        answers: Mapping[str, Callable[[], ResponseAPDU]] | None = None,
    ) -> None:
        self._default = default
        self._failed_select_deselects = failed_select_deselects
        self._answers = answers or {}
        self._selected = default
        self.received: list[Received] = []

    @property
    def commands(self) -> list[str]:
        """What has reached it, in hexadecimal."""
        return [each.command.encode().hex().upper() for each in self.received]

    async def power_on(self) -> ATR:
        self._selected = self._default
        return ATR(b"recording")

    async def power_off(self) -> None:
        self._selected = self._default

    async def transmit(self, command: bytes) -> bytes:
        apdu = CommandAPDU.decode(command)
        self.received.append(Received(apdu, self._selected))
        answer = self._answers.get(command[:4].hex().upper())
        if answer is not None:
            return answer().encode()
        if apdu.ins == 0xA4 and apdu.p1 == 0x04:
            return self._select(apdu).encode()
        return ResponseAPDU().encode()

    def _select(self, command: CommandAPDU) -> ResponseAPDU:
        wanted = command.data.hex().upper()
        # P2 02 is the next of those that the identifier may mean.
        found = [aid for aid in AIDS if wanted and aid.startswith(wanted)]
        if command.p2 & 0x02:
            found = found[1:]
        if found:
            self._selected = found[0]
            return ResponseAPDU()
        if self._failed_select_deselects:
            self._selected = self._default
        return ResponseAPDU(sw=0x6A82)


def select(aid: str) -> str:
    return f"00A40400{len(aid) // 2:02X}{aid}"
