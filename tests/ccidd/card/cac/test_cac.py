# SPDX-License-Identifier: Apache-2.0
"""The CAC where libcacard does otherwise, or nothing (else see test_against_libcacard.py)."""

import gzip
import os

import pytest
import structlog
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from cac import (
    ACA,
    CCC,
    KEYS,
    PIN,
    PKI,
    WRONG_PIN,
    card_memory,
    powered,
    read_buffer,
    select,
    send,
    verify,
    whole,
)
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.cac import simpletlv
from ccidd.card.cac.card import cac_card
from ccidd.card.cac.references import MAX_PKI_APPLETS
from ccidd.card.cac.simpletlv import SimpleTlv
from ccidd.card.emulated import EmulatedCard
from ccidd.errors import UserError
from ccidd.keys.key import Credential, EcKey, KeyAlgorithm, KeyUnavailableError
from ccidd.keys.local import local_key
from credentials import credential, private_key
from memory import VolatilePin

TAGS, VALUES = 1, 2


async def sign(card: EmulatedCard, data: bytes) -> bytes:
    """Signs with the key of the selected applet, in pieces as OpenSC sends them."""
    while len(data) > 240:
        piece, data = data[:240], data[240:]
        assert await send(card, CommandAPDU(0, 0x42, 0x80, 0, piece, ne=255)) == "9000"
    response = await whole(card, CommandAPDU(0, 0x42, 0, 0, data, ne=255))
    assert response.sw == 0x9000
    return response.data


# Recognition


async def test_the_serial_number_comes_from_the_first_certificate_and_is_the_same_everywhere() -> (
    None
):
    identifiers = []
    for keys in (KEYS, KEYS, KEYS[1:]):
        card = await powered(keys)
        await select(card, CCC)
        identifier = (await read_buffer(card, VALUES))[7:21]
        await select(card, "A0000000030000")
        data = (await whole(card, CommandAPDU(0, 0xCA, 0x9F, 0x7F, ne=256))).data[3:]
        # IC fabricator and type, batch, serial number, personalisation equipment.
        assert identifier == data[0:4] + data[16:18] + data[12:16] + data[38:42]
        identifiers.append(identifier)
    first, again, other = identifiers
    assert first == again != other


async def test_the_capability_container_has_a_card_url_for_each_key() -> None:
    keys = [credential(KeyAlgorithm.P_256, number % 2) for number in range(MAX_PKI_APPLETS)]
    card = await powered(keys)
    await select(card, CCC)
    headers = await read_buffer(card, TAGS)
    values = await read_buffer(card, VALUES)
    assert headers.count(bytes.fromhex("F310")) == 11 + MAX_PKI_APPLETS
    for number in range(MAX_PKI_APPLETS):
        url = bytes.fromhex(f"A000000079 04 01{number:02X} 01{number:02X}") + bytes(6)
        assert url in values
        await select(card, f"{PKI}{number:02X}")
        assert await send(card, f"00A402000201{number:02X}") == "9000"
        assert await read_buffer(card, VALUES) == b"\x00" + keys[number].certificate_der()


async def test_the_access_control_applet_knows_all_of_them() -> None:
    card = await powered([KEYS[0]] * MAX_PKI_APPLETS)
    await select(card, ACA)
    response = await whole(card, CommandAPDU(0x80, 0x4C, 0x21, 0))
    _information, number, *entries = simpletlv.decode(response.data)
    assert number.value == bytes([12 + MAX_PKI_APPLETS]) == bytes([len(entries)])
    names = {entry.value[0]: entry.value[3:].hex().upper() for entry in entries}
    assert len(names) == len(entries)
    assert names[0x61 + 15] == f"{PKI}0F"
    assert names[0x4F] == CCC
    rules = await whole(card, CommandAPDU(0x80, 0x4C, 0x10, 0))
    _information, number, *entries = simpletlv.decode(rules.data)
    assert number.value == bytes([13 + MAX_PKI_APPLETS]) == bytes([len(entries)])
    # Each of the rules that they name is in the table of rules.
    for name in names.values():
        assert (await send(card, f"804C110007{name}00")).endswith("9000")


@pytest.mark.parametrize("count", [0, 17])
def test_too_few_or_too_many_keys(count: int) -> None:
    with pytest.raises(UserError, match=f"1 to 16 keys, not {count}"):
        cac_card([KEYS[0]] * count, card_memory())


async def test_other_applications_are_not_there() -> None:
    card = await powered()
    for aid in ("A000000308000010000100", "627601FF000000", "A0000000790103", "D27600012401"):
        await select(card, CCC)
        assert await send(card, f"00A40400{len(aid) // 2:02X}{aid}00") == "6A82"
        assert await send(card, "00CB3FFF055C035FC10200") == "6900"


# Certificates


def large(extension: bytes) -> Credential:
    """A key with a certificate that holds a large extension."""
    key = private_key(KeyAlgorithm.RSA_2048, 0)
    assert isinstance(key, rsa.RSAPrivateKey)
    plain = KEYS[0].certificate
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.1"), extension)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(plain.subject)
        .issuer_name(plain.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(plain.not_valid_before_utc)
        .not_valid_after(plain.not_valid_after_utc)
        .add_extension(unknown, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Credential(local_key(key), certificate)


async def test_a_large_certificate_is_compressed() -> None:
    credential = large(bytes(1500))
    card = await powered([credential])
    await select(card, f"{PKI}00")
    info, certificate, *_ = split(await read_buffer(card, TAGS), await read_buffer(card, VALUES))
    assert (info.tag, info.value) == (0x71, b"\x01")
    assert certificate.tag == 0x70
    assert gzip.decompress(certificate.value) == credential.certificate_der()


def test_a_certificate_that_is_too_large_even_then_is_refused() -> None:
    with pytest.raises(UserError, match=r"RSA-2048 0' has 6\d{4} bytes when"):
        cac_card([large(os.urandom(66000))], card_memory())


def split(headers: bytes, values: bytes) -> list[SimpleTlv]:
    """Puts the two buffers together."""
    objects = []
    while headers:
        size = 4 if headers[1] == 0xFF else 2
        length = int.from_bytes(headers[2:4], "little") if size == 4 else headers[1]
        objects.append(SimpleTlv(headers[0], values[:length]))
        headers, values = headers[size:], values[length:]
    assert not values
    return objects


# The PIN


async def test_three_wrong_pins_block() -> None:
    card = await powered()
    await select(card, ACA)
    answers = [await verify(card, WRONG_PIN) for _ in range(4)]
    assert answers == ["63C2", "63C1", "63C0", "6983"]
    assert await verify(card) == "6983"
    assert await send(card, "00200000") == "6983"


async def test_the_tries_are_common_to_all_applets_and_the_right_pin_gives_them_back() -> None:
    card = await powered()
    await select(card, ACA)
    assert await verify(card, WRONG_PIN) == "63C2"
    await select(card, f"{PKI}00")
    assert await send(card, "00200000") == "63C2"
    assert await verify(card) == "9000"
    assert await verify(card, WRONG_PIN) == "63C2"


async def test_a_wrong_pin_takes_the_keys_away() -> None:
    card = await powered()
    await select(card, f"{PKI}01")
    await verify(card)
    await sign(card, bytes(32))
    await verify(card, WRONG_PIN)
    assert await send(card, CommandAPDU(0x80, 0x42, 0, 0, bytes(32), ne=256)) == "6985"


@pytest.mark.parametrize("pin", ["7777", "correct horse battery staple"])
async def test_the_pin_may_be_a_token_s_and_of_any_length(pin: str) -> None:
    on_the_wire = pin.encode().ljust(8, b"\xff")
    card = await powered(memory=card_memory(VolatilePin(on_the_wire)))
    assert await verify(card, pin.encode()) == "9000"
    assert await verify(card, pin.encode() + b"\xff" * 5) == "9000"
    assert await verify(card, pin.encode() + b"x") == "63C2"


@pytest.mark.parametrize("aid", [ACA, CCC, f"{PKI}01", "A0000000030000"])
async def test_the_pin_is_changed_in_any_applet(aid: str) -> None:
    card = await powered()
    await select(card, aid)
    change = f"0024000010{PIN.hex()}{b'123456'.hex()}FFFF"
    assert await send(card, change) == "9000"
    assert await send(card, "00200000") == "9000"
    assert await verify(card) == "63C2"
    assert await send(card, change) == "63C1"
    assert await verify(card, b"123456") == "9000"


@pytest.mark.parametrize(
    ("change", "sw"),
    [
        (f"0024000110{PIN.hex() * 2}", "6A00"),
        (f"0024010010{PIN.hex() * 2}", "6A00"),
        ("00240000", "6700"),
        (f"0024000008{PIN.hex()}", "6700"),
        (f"002400000F{PIN.hex()}{PIN.hex()[2:]}", "6700"),
        (f"0024000010{PIN.hex()}3132333435FFFFFF", "6A80"),
        (f"0024000010{PIN.hex()}31323334353641FF", "6A80"),
        (f"0024000010{PIN.hex()}FFFFFFFFFFFFFFFF", "6A80"),
    ],
)
async def test_changes_that_cost_no_try(change: str, sw: str) -> None:
    card = await powered()
    await select(card, ACA)
    assert await send(card, change) == sw
    assert await send(card, "00200000") == "63C3"
    for _ in range(3):
        await verify(card, WRONG_PIN)
    assert await send(card, f"0024000010{PIN.hex() * 2}") == "6983"


async def test_challenges_are_random() -> None:
    card = await powered()
    assert await send(card, "0084000008") == "6900"
    for aid in (ACA, CCC, f"{PKI}00"):
        await select(card, aid)
        answers = {await send(card, command) for command in ("0084000008", "8084000000") * 3}
        assert len(answers) == 6
        assert all(len(answer) == 20 and answer.endswith("9000") for answer in answers)
        assert await send(card, "00840000") == "6108"
        assert await send(card, "0084000100") == "6A86"
        assert await send(card, "0084000001AA08") == "6700"


async def test_power_off_closes() -> None:
    card = await powered()
    await verify(card)
    await card.power_off()
    await card.power_on()
    assert await send(card, "00200000") == "63C3"


# Keys


@pytest.mark.parametrize("number", [0, 2])
async def test_rsa_signs_with_a_chain(number: int) -> None:
    card = await powered()
    await select(card, f"{PKI}{number:02X}")
    await verify(card)
    key = KEYS[number].key.public_key
    assert isinstance(key, rsa.RSAPublicKey)
    digest = bytes(range(32))
    info = bytes.fromhex("3031300D060960864801650304020105000420")
    block = b"\0\1" + b"\xff" * (key.key_size // 8 - 3 - 51) + b"\0" + info + digest
    signature = await sign(card, block)
    key.verify(signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


async def test_rsa_decrypts() -> None:
    card = await powered()
    await select(card, f"{PKI}00")
    await verify(card)
    key = KEYS[0].key.public_key
    assert isinstance(key, rsa.RSAPublicKey)
    block = await sign(card, key.encrypt(b"secret", padding.PKCS1v15()))
    assert block.startswith(b"\0\2")
    assert block.endswith(b"\0secret")


@pytest.mark.parametrize(
    ("algorithm", "properties"),
    [(KeyAlgorithm.P_256, "430411040101"), (KeyAlgorithm.P_384, "430414060101")],
)
async def test_a_key_on_a_curve(algorithm: KeyAlgorithm, properties: str) -> None:
    signer = credential(algorithm)
    card = await powered([signer])
    await select(card, f"{PKI}00")
    await verify(card)
    assert properties in await send(card, "8056010020")
    key = signer.key.public_key
    assert isinstance(key, ec.EllipticCurvePublicKey)

    size = key.key_size // 8
    digest = bytes(range(size))
    hash_algorithm = hashes.SHA256() if size == 32 else hashes.SHA384()
    key.verify(await sign(card, digest), digest, ec.ECDSA(Prehashed(hash_algorithm)))

    ours = ec.generate_private_key(key.curve)
    point = ours.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert await sign(card, point) == ours.exchange(ec.ECDH(), key)
    for no_input in (
        b"",
        b"\x04" + bytes(2 * size),
        bytes(size + 1),
        bytes(1 + 2 * size),
        point + b"\0",
    ):
        assert await send(card, CommandAPDU(0x80, 0x42, 0, 0, no_input, ne=256)) == "6984"


async def test_an_endless_block_takes_no_memory() -> None:
    card = await powered()
    await select(card, f"{PKI}00")
    await verify(card)
    piece = CommandAPDU(0x80, 0x42, 0x80, 0, bytes(65535), extended=True)
    for _ in range(20):
        assert await send(card, piece) == "9000"
    (applet,) = [a for a in card._applications if a is card._selected]
    assert len(applet._block) == 257  # type: ignore[attr-defined] # it is what this test is about
    assert await send(card, "8042000001AA") == "6984"


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ED25519, KeyAlgorithm.X25519])
def test_kinds_of_keys_that_no_cac_has(algorithm: KeyAlgorithm) -> None:
    with pytest.raises(UserError, match=f"is {algorithm.value}, but a CAC has keys for RSA"):
        cac_card([credential(algorithm)], card_memory())


async def test_a_token_that_is_gone() -> None:
    class Gone(EcKey):
        async def sign_hash(self, digest: bytes) -> bytes:
            raise KeyUnavailableError("the token is gone")

        async def agree(self, point: bytes) -> bytes:
            raise NotImplementedError

    known = credential(KeyAlgorithm.P_256)
    assert isinstance(known.key.public_key, ec.EllipticCurvePublicKey)
    card = await powered([Credential(Gone(known.key.public_key), known.certificate)])
    await select(card, f"{PKI}00")
    await verify(card)
    with structlog.testing.capture_logs() as logs:
        assert await send(card, CommandAPDU(0x80, 0x42, 0, 0, bytes(32))) == "6F00"
    assert [entry["event"] for entry in logs] == ["key_unavailable"]


# What it holds beside keys


PERSON = [SimpleTlv(0x01, b"Marie"), SimpleTlv(0x02), SimpleTlv(0x03, b"Turner")]
CHUID = [SimpleTlv(0x30, bytes(25)), SimpleTlv(0x3E, bytes(600)), SimpleTlv(0xFE)]
CONTENTS = {"cac/0200": simpletlv.encode(*PERSON), "cac/3000": simpletlv.encode(*CHUID)}


async def test_what_is_in_the_memory_is_in_the_containers() -> None:
    card = await powered(memory=card_memory(contents=CONTENTS))
    await select(card, "A0000000790200")
    assert await read_buffer(card, TAGS) == bytes.fromhex("0105 0200 0306")
    assert await send(card, CommandAPDU(0x80, 0x52, 0, 0, b"\x02\x02", ne=2)) == "6982"
    await verify(card)
    assert split(bytes.fromhex("0105 0200 0306"), await read_buffer(card, VALUES)) == PERSON
    # SIMPLE-TLV, and the sizes of both buffers with their lengths.
    assert "41020200420500" + "0800" + "0D00" in await send(card, "805601001D")


async def test_the_access_control_file_has_four_objects() -> None:
    card = await powered(memory=card_memory(contents=CONTENTS))
    await select(card, "A0000001163000")
    assert await read_buffer(card, VALUES) == bytes(625)
    for number in ("6010", "6030", "9000"):
        assert await send(card, f"00A4020002{number}") == "9000"
        assert await read_buffer(card, VALUES) == b""
    assert await send(card, "00A40200023000") == "9000"
    assert await read_buffer(card, TAGS) == bytes.fromhex("3019 3EFF5802 FE00")
    await send(card, "00A40200029000")
    await select(card, "A0000001163000")
    assert await read_buffer(card, VALUES) == bytes(625)


def test_a_broken_object_is_refused_with_its_name() -> None:
    with pytest.raises(UserError, match="the card's object cac/0201 is broken: "):
        cac_card(KEYS, card_memory(contents={"cac/0201": b"\x01\x05Jo"}))
    with pytest.raises(UserError, match="the card's object cac/9000 has 65536 bytes"):
        cac_card(KEYS, card_memory(contents={"cac/9000": bytes(65536)}))


# Whatever comes


ANY_COMMAND = st.binary(max_size=12) | st.builds(
    lambda ins, p1, p2, rest: bytes([0x80, ins, p1, p2]) + rest,
    st.sampled_from([0x20, 0x42, 0x4C, 0x52, 0x56, 0x58, 0xA4, 0xC0, 0xCA]),
    st.sampled_from([0x00, 0x01, 0x02, 0x04, 0x10, 0x11, 0x12, 0x40, 0x50, 0x80, 0x9F]),
    st.sampled_from([0x00, 0x66, 0x7F]),
    st.binary(max_size=10),
)
ANY_SELECT = st.sampled_from([CCC, ACA, f"{PKI}00", f"{PKI}01", "A0000000030000"]).map(
    lambda aid: bytes.fromhex(f"00A4040007{aid}")
)


@given(st.lists(ANY_COMMAND | ANY_SELECT | st.just(CommandAPDU(0, 0x20, 0, 0, PIN).encode())))
@settings(max_examples=200)
def test_whatever_a_host_sends_gets_a_status_word(commands: list[bytes]) -> None:
    async def send_all() -> None:
        card = await powered(memory=card_memory(contents=CONTENTS))
        for command in commands:
            response = await card.transmit(command)
            assert response[-2] >> 4 in {6, 9}

    with structlog.testing.capture_logs() as logs:
        trio.run(send_all)
    assert logs == []
