# SPDX-License-Identifier: Apache-2.0
import pytest

from cards import ScriptedCard, echo_card
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccidd.reader.short_responses import ShortResponses


async def fetch(card: ShortResponses, command: bytes, ne: int = 256) -> tuple[list[int], bytes]:
    """Sends a command and all the GET RESPONSEs after it; gives the lengths and what came."""
    lengths = []
    received = b""
    while True:
        raw = await card.transmit(command)
        lengths.append(len(raw))
        response = ResponseAPDU.decode(raw)
        received += response.data
        if response.sw >> 8 != 0x61:
            return lengths, received + raw[-2:]
        count = response.sw & 0xFF or 256
        command = CommandAPDU(0, 0xC0, 0, 0, ne=min(ne, count)).encode()


@pytest.mark.parametrize("length", [*range(2, 60), 107, 108, 109, 257, 258, 373, 374, 375, 2000])
@pytest.mark.parametrize("ne", [256, 52, 53, 1])
async def test_every_response_arrives_whole_in_pieces_that_can_be_carried(
    length: int, ne: int
) -> None:
    card = ShortResponses(echo_card(), longest=374, forbidden={54})
    lengths, received = await fetch(card, CommandAPDU(0, 0x10, *divmod(length, 256)).encode(), ne)
    assert received == bytes(i % 251 for i in range(length - 2)) + b"\x90\x00"
    assert max(lengths) <= 374
    assert 54 not in lengths
    if length != 54 and length <= 374:
        assert lengths == [length]


async def test_another_command_drops_the_rest() -> None:
    card = ShortResponses(echo_card(), longest=374)
    first = ResponseAPDU.decode(await card.transmit(bytes.fromhex("00100200")))
    assert (len(first.data), first.sw) == (372, 0x6100 | 512 - 374)
    assert await card.transmit(bytes.fromhex("00100002")) == b"\x90\x00"
    # Now GET RESPONSE is a command like any other, for the card to answer.
    assert await card.transmit(bytes.fromhex("00C0000300")) == b"\x00\x90\x00"


@pytest.mark.parametrize("command", ["", "00", "00C00003", "00C0000305AA"])
async def test_what_is_no_get_response_goes_to_the_card(command: str) -> None:
    received: list[bytes] = []

    async def answer(command: bytes) -> bytes:
        received.append(command)
        return b"\x67\x00" if received[1:] else bytes(400) + b"\x90\x00"

    card = ShortResponses(ScriptedCard(answer), longest=374)
    await card.transmit(b"\0\0\0\0")
    assert await card.transmit(bytes.fromhex(command)) == b"\x67\x00"
    assert received[-1] == bytes.fromhex(command)


async def test_the_card_s_own_pieces_go_on_behind_ours() -> None:
    async def answer(command: bytes) -> bytes:
        return b"B" * 8 + b"\x90\x00" if command[1] == 0xC0 else b"A" * 52 + b"\x61\x08"

    card = ShortResponses(ScriptedCard(answer), longest=374, forbidden={54})
    lengths, received = await fetch(card, bytes.fromhex("00CB0000"))
    assert lengths == [53, 3, 10]
    assert received == b"A" * 52 + b"B" * 8 + b"\x90\x00"
