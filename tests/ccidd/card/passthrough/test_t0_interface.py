# SPDX-License-Identifier: Apache-2.0
"""APDUs for cards that speak T=0."""

from pathlib import Path

import pytest

from cards import ScriptedCard, response_of_length
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU, bytes_available, wrong_le
from ccid_protocol.atr import InterfaceBytes
from ccidd.card.passthrough.t0_interface import transmit_over_t0
from ccidd.reader.slot import Slot
from passthrough import following, powered
from pcscd import pcscd_with, serial_reader, serving, use_from_here


class T0Card:
    """A card as its contacts show it, which keeps what it has to say for GET RESPONSE.

    Args:
        content: what it answers to any command but GET RESPONSE.
        knows_envelopes: whether it takes ENVELOPE.
    """

    def __init__(self, content: bytes = b"", *, knows_envelopes: bool = True) -> None:
        self._content = content
        self._knows_envelopes = knows_envelopes
        self._rest = b""
        self._enveloped = b""
        self.seen: list[bytes] = []
        self.commands: list[CommandAPDU] = []

    def send(self, tpdu: bytes) -> bytes:
        assert len(tpdu) >= 5
        self.seen.append(tpdu)
        p3, data = tpdu[4], tpdu[5:]
        assert len(data) in {0, p3}, "no TPDU has both Lc and Le"
        if tpdu[1] == 0xC2:
            return self._take_envelope(data)
        if tpdu[1] == 0xC0:
            return self._give(p3 or 256)
        self.commands.append(CommandAPDU.decode(tpdu))
        self._rest = self._content
        if data:
            return self._more()
        if 0 < len(self._content) < (p3 or 256):
            return ResponseAPDU(sw=wrong_le(len(self._content))).encode()
        return self._give(p3 or 256)

    def _take_envelope(self, data: bytes) -> bytes:
        if not self._knows_envelopes:
            return b"\x6d\0"
        self._enveloped += data
        if len(data) == 255:
            return b"\x90\0"
        self.commands.append(CommandAPDU.decode(self._enveloped))
        self._rest = self._content
        return self._more()

    def _give(self, size: int) -> bytes:
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece + self._more()

    def _more(self) -> bytes:
        sw = bytes_available(len(self._rest)) if self._rest else 0x9000
        return sw.to_bytes(2)


@pytest.mark.parametrize(
    ("command", "tpdu"),
    [
        ("00A40000", "00A4000000"),
        ("00B0000010", "00B0000010"),
        ("00B0000000", "00B0000000"),
        ("00D6000003ABCDEF", "00D6000003ABCDEF"),
        ("00A4040003ABCDEF00", "00A4040003ABCDEF"),
    ],
    ids=["1", "2S", "2S, 256", "3S", "4S"],
)
def test_a_short_command_is_one_tpdu(command: str, tpdu: str) -> None:
    card = T0Card()
    assert transmit_over_t0(bytes.fromhex(command), card.send) == b"\x90\0"
    assert card.seen == [bytes.fromhex(tpdu)]


@pytest.mark.parametrize("sw", ["6110", "6c08", "6a82"])
def test_a_short_command_gets_what_the_card_says(sw: str) -> None:
    response = transmit_over_t0(bytes.fromhex("00A4040003ABCDEF00"), lambda _: bytes.fromhex(sw))
    assert response == bytes.fromhex(sw)


@pytest.mark.parametrize("command", ["", "00A4", "00A4040005AB", "00A40400000005AB"])
def test_a_broken_command_reaches_no_card(command: str) -> None:
    card = T0Card()
    assert transmit_over_t0(bytes.fromhex(command), card.send) == b"\x67\0"
    assert not card.seen


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 700])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 300, 2000])
def test_an_extended_command_gets_its_whole_response(size: int, length: int) -> None:
    content = bytes(i % 251 for i in range(length))
    card = T0Card(content)
    command = CommandAPDU(0, 0x10, 1, 2, bytes(size), 65536, extended=True)
    response = transmit_over_t0(command.encode(), card.send)
    assert response == content + b"\x90\0"
    (seen,) = card.commands if size else card.commands[-1:]
    assert (seen.ins, seen.data) == (0x10, bytes(size))


def test_a_long_command_that_ends_with_its_envelope_gets_another(tmp_path: Path) -> None:
    card = T0Card()
    # 4 + 3 bytes come before the data.
    command = CommandAPDU(0, 0x10, 0, 0, bytes(2 * 255 - 7), extended=True)
    assert transmit_over_t0(command.encode(), card.send) == b"\x90\0"
    assert [len(tpdu) for tpdu in card.seen] == [260, 260, 5]
    assert card.commands == [command]


def test_an_extended_command_gets_no_more_than_it_asked_for() -> None:
    card = T0Card(bytes(1000))
    command = CommandAPDU(0, 0x10, 0, 0, b"data", 300, extended=True)
    response = transmit_over_t0(command.encode(), card.send)
    assert len(response) == 302
    assert response[-2:] == bytes_available(700).to_bytes(2)


def test_a_card_without_envelopes_takes_no_long_command() -> None:
    card = T0Card(knows_envelopes=False)
    command = CommandAPDU(0, 0x10, 0, 0, bytes(300), extended=True)
    assert transmit_over_t0(command.encode(), card.send) == b"\x67\0"
    assert len(card.seen) == 1


def test_a_class_of_its_own_is_kept_for_what_belongs_to_a_command() -> None:
    card = T0Card(bytes(500))
    for cla, expected in ((0xA0, 0xA0), (0x0C, 0x00), (0x01, 0x01)):
        card.seen.clear()
        command = CommandAPDU(cla, 0x10, 0, 0, b"data", 65536, extended=True)
        transmit_over_t0(command.encode(), card.send)
        assert [tpdu[0] for tpdu in card.seen] == [cla, expected, expected]


# A card at the end of a real pcscd and libccid, which is another ccidd's reader.


@pytest.mark.parametrize("size", [2, 100, 258, 5000])
async def test_a_real_reader_takes_these_tpdus(size: int, tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def answer(command: bytes) -> bytes:
        seen.append(command)
        return await response_of_length(command)

    card = ScriptedCard(answer, interface=(InterfaceBytes(ta=0x11, protocol=0),))
    link = tmp_path / "line"
    async with (
        serving(link, [Slot(card)]),
        pcscd_with(tmp_path, serial_reader(link, "GemPCTwin", "Line")) as host,
    ):
        use_from_here(host)
        async with following("Line 00 00") as slot:
            guest = await powered(slot)
            header = b"\0\x10" + size.to_bytes(2)
            expected = await response_of_length(header)
            for body in ("000000", "000003ABCDEF0000"):
                assert await guest.transmit(header + bytes.fromhex(body)) == expected
    assert [command[4:] for command in seen] == [b"\0", b"\3\xab\xcd\xef"]
