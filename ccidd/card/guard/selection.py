# SPDX-License-Identifier: Apache-2.0
"""Which application is selected: what a command means depends on it.

Source: ISO/IEC 7816-4:2013, 11.2.2 (SELECT), 12.1.1 (logical channels); the identifiers are those
of SP 800-73-4, part 1, 2.2, the GSC-IS 2.1, chapter 7, the OpenPGP card 3.4, 4.2.1, and the
GlobalPlatform Card Specification 2.3, appendix F.

A card tells nobody what is selected. So it is concluded from each SELECT and its status word, and
whatever leaves a doubt means that an unknown application is selected: after power-on, after a
SELECT that may mean several applications, after one without an answer. A SELECT that fails leaves
the application selected that was (11.2.2).
"""

import enum
from dataclasses import dataclass
from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU
from ccid_protocol.errors import RemoteProtocolError

_BY_NAME: Final = 0x04
_CAC_OBJECT: Final = 0x02
"""P1 of SELECT for an object within an applet (GSC-IS 2.1, 5.3.3.3)."""

_NO_RESPONSE_DATA: Final = 0x0C
"""The bits of P2 that choose the response data; the others ask for another occurrence."""

_PIV_RID: Final = bytes.fromhex("A000000308")
_PIV: Final = _PIV_RID + bytes.fromhex("000010000100")
_PIV_WITHOUT_VERSION: Final = 9
_OPENPGP: Final = bytes.fromhex("D27600012401")
_MAX_AID: Final = 16
_CAC_RIDS: Final = (bytes.fromhex("A000000079"), bytes.fromhex("A000000116"))
# The card manager by its names on cards in use, and Windows' plug and play.
_INFORMATION: Final = frozenset(
    bytes.fromhex(name)
    for name in (
        "A0000000030000",
        "A000000003000000",
        "A000000151000000",
        "A0000003974349445F0100",
    )
)

_FAILURES: Final = range(0x67, 0x6F)
"""SW1 of commands that were not carried out (ISO/IEC 7816-4:2013, table 6)."""

_SUCCESSES: Final = {0x61, 0x62, 0x63}
_MORE_DATA: Final = 0x61


class Kind(enum.Enum):
    """What is known of an application; the value names its card for people."""

    UNKNOWN = "card"
    PIV = "PIV card"
    CAC = "CAC"
    OPENPGP = "OpenPGP card"
    INFORMATION = "card's manager"
    """One that tells of the card, to anybody."""


@dataclass(frozen=True, slots=True)
class Selected:
    """The application that is selected.

    Attributes:
        kind: what it is.
        aid: the identifier by which it was selected.
    """

    kind: Kind = Kind.UNKNOWN
    aid: bytes = b""


UNKNOWN: Final = Selected()


class Selection:
    """The selected application of each logical channel."""

    def __init__(self) -> None:
        self._channels: dict[int, Selected] = {}
        # A SELECT by the provider's identifier alone, whose response goes on with GET RESPONSE.
        self._unnamed: tuple[int, CommandAPDU, bytes] | None = None

    def on(self, channel: int) -> Selected:
        """Gives what is selected on a channel."""
        return self._channels.get(channel, UNKNOWN)

    def forget(self) -> None:
        """Knows nothing any more."""
        self._channels.clear()
        self._unnamed = None

    def forget_others(self) -> None:
        """Knows nothing any more of the channels beside the basic one."""
        self._channels = {0: self.on(0)}

    def note(self, channel: int, command: CommandAPDU, response: ResponseAPDU) -> None:
        """Concludes from any command and its response what is selected now."""
        unnamed, self._unnamed = self._unnamed, None
        if command.ins == Instruction.SELECT:
            self._note_select(channel, command, response)
        elif command.ins == Instruction.GET_RESPONSE and unnamed is not None:
            on, select, data = unnamed
            whole = ResponseAPDU(data + response.data, response.sw)
            if on == channel:
                self._note_select(channel, select, whole)

    def _note_select(self, channel: int, command: CommandAPDU, response: ResponseAPDU) -> None:
        sw1 = response.sw >> 8
        if sw1 in _FAILURES:
            return
        current = self.on(channel)
        if response.sw != 0x9000 and sw1 not in _SUCCESSES:
            self._channels[channel] = UNKNOWN
        elif command.p1 == _BY_NAME:
            self._channels[channel] = _named(command, response)
            if command.data == _PIV_RID and sw1 == _MORE_DATA:
                self._unnamed = channel, command, response.data
        elif current.kind is not Kind.CAC or command.p1 != _CAC_OBJECT:
            # A file may belong to another application.
            self._channels[channel] = UNKNOWN


def _named(command: CommandAPDU, response: ResponseAPDU) -> Selected:
    """Gives the application that a SELECT by name has selected."""
    if command.p2 & ~_NO_RESPONSE_DATA:
        return UNKNOWN
    return Selected(_kind(command.data, response), command.data)


def _kind(aid: bytes, response: ResponseAPDU) -> Kind:
    if aid == _PIV_RID:
        # NIST may have other applications; the response names it.
        return Kind.PIV if _is_piv(response.data) else Kind.UNKNOWN
    if len(aid) >= _PIV_WITHOUT_VERSION and _PIV.startswith(aid):
        return Kind.PIV
    if aid.startswith(_OPENPGP) and len(aid) <= _MAX_AID:
        return Kind.OPENPGP
    if aid.startswith(_CAC_RIDS) and len(aid) <= _MAX_AID:
        return Kind.CAC
    return Kind.INFORMATION if aid in _INFORMATION else Kind.UNKNOWN


def _is_piv(properties: bytes) -> bool:
    """Whether an application property template (SP 800-73-4, part 2, table 3) is PIV's."""
    try:
        template = tlv.decode_to_dict(properties).get(0x61, b"")
        identifier = tlv.decode_to_dict(template).get(0x4F, b"")
    except RemoteProtocolError:
        return False
    return identifier in {_PIV, _PIV.removeprefix(_PIV_RID)}
