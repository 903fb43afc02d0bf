# SPDX-License-Identifier: Apache-2.0
"""A host that talks to a PIV card, command by command."""

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from cards import transmit
from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccidd.card.card import Card
from ccidd.card.emulated import EmulatedCard
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.management_key import ManagementAlgorithm, ManagementKey
from ccidd.card.piv.personalisation import factory_contents
from ccidd.card.piv.references import ALGORITHM_IDENTIFIERS, ALGORITHMS, KeyReference
from ccidd.keys.key import Credential, KeyAlgorithm, PublicKey
from memory import VolatileMemory, VolatilePin

PIN = b"123456\xff\xff"
GLOBAL_PIN = b"11112222"
PUK = b"12345678"
WRONG = b"000000\xff\xff"
MANAGEMENT_KEY = ManagementKey(
    ManagementAlgorithm.AES_128, bytes.fromhex("5AB3C1F0427E9D8812C6EE30A1947F5D")
)

SELECT = "00A4040009A0000003080000100000"


async def selected(card: Card) -> Card:
    """Powers a card on, and selects its PIV card application."""
    await card.power_on()
    assert (await card.transmit(bytes.fromhex(SELECT))).endswith(b"\x90\x00")
    return card


async def verify(card: Card, pin: str) -> int:
    """Verifies the PIN of the PIV card application; gives the status word."""
    data = pin.encode().ljust(8, b"\xff")
    return (await transmit(card, CommandAPDU(0, 0x20, 0, 0x80, data))).sw


class PivHost:
    """Talks to a card, with extended APDUs.

    Attributes:
        card: the card.
        memory: what it remembers.
    """

    def __init__(self, card: EmulatedCard, memory: VolatileMemory) -> None:
        self.card = card
        self.memory = memory

    async def send(self, command: str | CommandAPDU) -> ResponseAPDU:
        raw = command.encode() if isinstance(command, CommandAPDU) else bytes.fromhex(command)
        return ResponseAPDU.decode(await self.card.transmit(raw))

    async def command(self, ins: int, p1: int, p2: int, data: bytes = b"") -> ResponseAPDU:
        return await self.send(CommandAPDU(0, ins, p1, p2, data, 65536, extended=True))

    async def sw(self, ins: int, p1: int, p2: int, data: bytes = b"") -> int:
        return (await self.command(ins, p1, p2, data)).sw

    async def select(self) -> None:
        assert (await self.send(SELECT)).sw == 0x9000

    async def reinsert(self) -> None:
        await self.card.power_off()
        await self.card.power_on()
        await self.select()

    async def verify(self, pin: bytes = PIN, reference: int = 0x80) -> int:
        return await self.sw(0x20, 0, reference, pin)

    async def pin_status(self, reference: int = 0x80) -> int:
        return (await self.send(CommandAPDU(0, 0x20, 0, reference))).sw

    async def general_authenticate(
        self, algorithm: int, reference: int, *fields: bytes
    ) -> ResponseAPDU:
        return await self.command(0x87, algorithm, reference, tlv.encode(0x7C, *fields))

    async def authenticate(self, key: ManagementKey = MANAGEMENT_KEY) -> int:
        """External authentication of the administrator."""
        begun = await self.general_authenticate(key.algorithm, 0x9B, tlv.encode(0x81))
        assert begun.sw == 0x9000
        challenge = template_field(begun, 0x81)
        answer = tlv.encode(0x82, key.encrypt(challenge))
        return (await self.general_authenticate(key.algorithm, 0x9B, answer)).sw

    async def use(
        self, reference: int, content: bytes, algorithm: KeyAlgorithm, tag: int = 0x81
    ) -> ResponseAPDU:
        return await self.general_authenticate(
            ALGORITHM_IDENTIFIERS[algorithm], reference, tlv.encode(0x82), tlv.encode(tag, content)
        )

    async def get_data(self, tag: int) -> ResponseAPDU:
        return await self.command(0xCB, 0x3F, 0xFF, tlv.encode(0x5C, tag_bytes(tag)))

    async def get_object(self, tag: int) -> bytes:
        """What is in a data object 53."""
        response = await self.get_data(tag)
        assert response.sw == 0x9000, f"{tag:X}: {response.sw:04X}"
        (content,) = tlv.decode(response.data)
        assert content.tag == 0x53
        return content.value

    async def put_object(self, tag: int, content: bytes) -> int:
        data = tlv.encode(0x5C, tag_bytes(tag)) + tlv.encode(0x53, content)
        return await self.sw(0xDB, 0x3F, 0xFF, data)

    async def generate(self, reference: int, algorithm: KeyAlgorithm, *more: bytes) -> PublicKey:
        mechanism = tlv.encode(0x80, bytes([ALGORITHM_IDENTIFIERS[algorithm]]))
        response = await self.command(0x47, 0, reference, tlv.encode(0xAC, mechanism, *more))
        assert response.sw == 0x9000, f"{response.sw:04X}"
        (template,) = tlv.decode(response.data)
        assert template.tag == 0x7F49
        return public_key(ALGORITHM_IDENTIFIERS[algorithm], template.value)


def tag_bytes(tag: int) -> bytes:
    return tag.to_bytes((tag.bit_length() + 7) // 8)


def template_field(response: ResponseAPDU, tag: int) -> bytes:
    """The only data object of a dynamic authentication template, which has the tag."""
    assert response.sw == 0x9000, f"{response.sw:04X}"
    (template,) = tlv.decode(response.data)
    assert template.tag == 0x7C
    (field,) = tlv.decode(template.value)
    assert field.tag == tag
    return field.value


def public_key(identifier: int, objects: bytes) -> PublicKey:
    """Reads the data objects of a public key."""
    fields = tlv.decode_to_dict(objects)
    match ALGORITHMS[identifier]:
        case KeyAlgorithm.P_256:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), fields[0x86])
        case KeyAlgorithm.P_384:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), fields[0x86])
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(fields[0x86])
        case KeyAlgorithm.X25519:
            return x25519.X25519PublicKey.from_public_bytes(fields[0x86])
        case _:
            exponent, modulus = int.from_bytes(fields[0x82]), int.from_bytes(fields[0x81])
            return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def new_memory(pin: bytes = PIN, *, attestation: bool = False, tries: int = 3) -> VolatileMemory:
    """The memory of a new card, with all PINs."""
    memory = VolatileMemory(
        {
            0x00: VolatilePin(GLOBAL_PIN, tries),
            0x80: VolatilePin(pin, tries),
            0x81: VolatilePin(PUK, tries),
        }
    )
    memory._contents.update(factory_contents(MANAGEMENT_KEY, attestation=attestation))
    return memory


async def inserted(
    credentials: Mapping[KeyReference, Credential] | None = None,
    memory: VolatileMemory | None = None,
    *,
    vendor_extensions: bool = False,
    legacy_rsa: bool = False,
) -> PivHost:
    """Gives the host of a card that has just been selected."""
    memory = memory or new_memory(attestation=vendor_extensions)
    card = piv_card(
        credentials or {},
        memory,
        vendor_extensions=vendor_extensions,
        legacy_rsa=legacy_rsa,
    )
    host = PivHost(card, memory)
    await card.power_on()
    await host.select()
    return host


async def administered(*, vendor_extensions: bool = False, legacy_rsa: bool = False) -> PivHost:
    """Gives the host of a card without keys, to which the administrator is authenticated."""
    host = await inserted(vendor_extensions=vendor_extensions, legacy_rsa=legacy_rsa)
    assert await host.authenticate() == 0x9000
    return host
