# SPDX-License-Identifier: Apache-2.0
"""What the tests of CAC cards say to them."""

from collections.abc import Mapping, Sequence

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccidd.card.cac.card import PIN_REFERENCE, cac_card
from ccidd.card.emulated import EmulatedCard
from ccidd.card.pin import PinMemory
from ccidd.keys.key import Credential, KeyAlgorithm
from credentials import credential
from memory import VolatileMemory, VolatilePin

PIN = b"77777777"
WRONG_PIN = b"88888888"

KEYS = (
    credential(KeyAlgorithm.RSA_2048),
    credential(KeyAlgorithm.P_256),
    credential(KeyAlgorithm.RSA_3072),
)

CCC = "A000000116DB00"
ACA = "A0000000790300"
PKI = "A00000007901"
"""The start of the identifiers of PKI applets."""


def card_memory(
    pin: PinMemory | None = None, contents: Mapping[str, bytes] | None = None
) -> VolatileMemory:
    memory = VolatileMemory({PIN_REFERENCE: pin or VolatilePin(PIN)})
    memory._contents.update(contents or {})
    return memory


async def powered(
    credentials: Sequence[Credential] = KEYS, memory: VolatileMemory | None = None
) -> EmulatedCard:
    card = cac_card(credentials, memory or card_memory())
    await card.power_on()
    return card


async def send(card: EmulatedCard, command: str | CommandAPDU) -> str:
    """Sends a command; gives the response in hexadecimal."""
    raw = command.encode() if isinstance(command, CommandAPDU) else bytes.fromhex(command)
    return (await card.transmit(raw)).hex().upper()


async def select(card: EmulatedCard, aid: str) -> None:
    size = len(aid) // 2
    assert (await send(card, f"00A40400{size:02X}{aid}00")).endswith("9000")


async def verify(card: EmulatedCard, pin: bytes = PIN) -> str:
    return await send(card, CommandAPDU(0, 0x20, 0, 0, pin))


async def whole(card: EmulatedCard, command: CommandAPDU) -> ResponseAPDU:
    """Sends a command and fetches all of the response."""
    response = ResponseAPDU.decode(await card.transmit(command.encode()))
    data = response.data
    while response.sw >> 8 == 0x61:
        ne = response.sw & 0xFF or 256
        more = CommandAPDU(0, 0xC0, 0, 0, ne=ne).encode()
        response = ResponseAPDU.decode(await card.transmit(more))
        data += response.data
    return ResponseAPDU(data, response.sw)


async def read_buffer(card: EmulatedCard, which: int) -> bytes:
    """Reads a buffer of the selected object, without its length, as OpenSC does."""

    async def piece(offset: int, size: int) -> bytes:
        data = bytes([which, size])
        command = CommandAPDU(0x00, 0x52, *divmod(offset, 256), data, ne=size)
        response = ResponseAPDU.decode(await card.transmit(command.encode()))
        assert response.sw == 0x9000
        return response.data

    size = int.from_bytes(await piece(0, 2), "little")
    content = b""
    while len(content) < size:
        content += await piece(2 + len(content), min(240, size - len(content)))
    return content
