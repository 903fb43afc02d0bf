# SPDX-License-Identifier: Apache-2.0
"""The PIV card application, command by command (NIST SP 800-73-4, part 2, section 3)."""

import gzip
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccidd.card.emulated import EmulatedCard
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import ALGORITHM_IDENTIFIERS, KeyReference
from ccidd.keys.key import Credential, KeyAlgorithm
from credentials import credential, private_key
from memory import VolatilePin

PIN = b"123456\xff\xff"
ALL_KEYS = {
    KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256),
    KeyReference.SIGNATURE: credential(KeyAlgorithm.RSA_2048),
    KeyReference.KEY_MANAGEMENT: credential(KeyAlgorithm.P_384),
    KeyReference.CARD_AUTHENTICATION: credential(KeyAlgorithm.P_256, 1),
}


async def selected(keys: Mapping[KeyReference, Credential] = ALL_KEYS) -> EmulatedCard:
    card = piv_card(keys, VolatilePin(PIN))
    await card.power_on()
    assert (await send(card, "00A4040009A0000003080000100000")).sw == 0x9000
    return card


async def send(card: EmulatedCard, command: str | CommandAPDU) -> ResponseAPDU:
    raw = command.encode() if isinstance(command, CommandAPDU) else bytes.fromhex(command)
    return ResponseAPDU.decode(await card.transmit(raw))


async def verify(card: EmulatedCard, pin: bytes = PIN) -> int:
    return (await send(card, CommandAPDU(0, 0x20, 0, 0x80, pin))).sw


async def general_authenticate(
    card: EmulatedCard,
    reference: KeyReference,
    content: bytes,
    tag: int = 0x81,
    algorithm: KeyAlgorithm | None = None,
) -> ResponseAPDU:
    algorithm = algorithm or ALL_KEYS[reference].key.algorithm
    template = tlv.encode(0x7C, tlv.encode(0x82), tlv.encode(tag, content))
    return await send(
        card,
        CommandAPDU(
            0, 0x87, ALGORITHM_IDENTIFIERS[algorithm], reference, template, 65536, extended=True
        ),
    )


def result_of(response: ResponseAPDU) -> bytes:
    assert response.sw == 0x9000
    (template,) = tlv.decode(response.data)
    assert template.tag == 0x7C
    (result,) = tlv.decode(template.value)
    assert result.tag == 0x82
    return result.value


async def get_object(card: EmulatedCard, tag: int) -> bytes:
    command = CommandAPDU(0, 0xCB, 0x3F, 0xFF, tlv.encode(0x5C, tag.to_bytes(3)), 65536, True)
    response = await send(card, command)
    assert response.sw == 0x9000
    (content,) = tlv.decode(response.data)
    assert content.tag == 0x53
    return content.value


# SELECT


@pytest.mark.parametrize("aid", ["A000000308000010000100", "A00000030800001000", "A000000308"])
async def test_select_by_full_and_truncated_identifier(aid: str) -> None:
    card = piv_card(ALL_KEYS, VolatilePin(PIN))
    response = await send(card, CommandAPDU(0, 0xA4, 4, 0, bytes.fromhex(aid), 256))
    assert response.sw == 0x9000
    (template,) = tlv.decode(response.data)
    assert template.tag == 0x61
    properties = tlv.decode_to_dict(template.value)
    assert properties[0x4F] == bytes.fromhex("000010000100")
    assert properties[0x79] == bytes.fromhex("4F05A000000308")
    assert bytes.fromhex("800111") in properties[0xAC]


@pytest.mark.parametrize(
    "aid",
    [
        pytest.param("A0000003", id="less than the RID"),
        pytest.param("A00000030800001000010000", id="longer"),
        pytest.param("A000000308000020000100", id="another application of NIST"),
        pytest.param("A0000003974349445F0100", id="Microsoft plug and play"),
        pytest.param("A00000039742544659", id="GIDS"),
        pytest.param("A000000116DB00", id="CAC CCC"),
        pytest.param("D27600012401", id="OpenPGP"),
    ],
)
async def test_other_identifiers_are_not_found(aid: str) -> None:
    card = await selected()
    await verify(card)
    assert (await send(card, CommandAPDU(0, 0xA4, 4, 0, bytes.fromhex(aid), 256))).sw == 0x6A82
    # The application stays selected, and its security status as it is.
    assert (await send(card, "00200080")).sw == 0x9000


async def test_selecting_the_application_again_keeps_its_security_status() -> None:
    card = await selected()
    await verify(card)
    assert (await send(card, "00A4040009A0000003080000100000")).sw == 0x9000
    assert (await send(card, "00200080")).sw == 0x9000


async def test_the_atr_names_piv() -> None:
    atr = await piv_card(ALL_KEYS, VolatilePin(PIN)).power_on()
    assert atr.historical == bytes.fromhex("80F9A00000030800001000")
    assert atr.protocols == (0, 1)
    assert atr.encode()[1] & 0xF0 != 0x80


# GET DATA


async def test_the_chuid_has_a_guid_that_stays_with_the_keys() -> None:
    chuid = tlv.decode_to_dict(await get_object(await selected(), 0x5FC102))
    assert list(chuid) == [0x30, 0x34, 0x35, 0x3E, 0xFE]
    assert chuid[0x30] == fasc_n("9999", "9999", "999999", "0", "1", "0000000000", "3", "0000", "1")
    assert len(chuid[0x34]) == 16
    latest = max(c.certificate.not_valid_after_utc for c in ALL_KEYS.values())
    assert chuid[0x35] == latest.strftime("%Y%m%d").encode()
    again = tlv.decode_to_dict(await get_object(await selected(), 0x5FC102))
    assert again == chuid
    others = {KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256, 1)}
    other = tlv.decode_to_dict(await get_object(await selected(others), 0x5FC102))
    assert other[0x34] != chuid[0x34]


def fasc_n(*fields: str) -> bytes:
    """Encodes a FASC-N (TIG SCEPACS 2.3, 6.2): digits of 5 bits, low bit first, odd parity."""
    start, separator, end = "11010", "10110", "11111"

    def digits(text: str) -> str:
        coded = ""
        for digit in text:
            bits = f"{int(digit):04b}"[::-1]
            coded += bits + ("0" if bits.count("1") % 2 else "1")
        return coded

    agency, system, credential_number, series, issue, person, category, organization, poa = fields
    head = [agency, system, credential_number, series, issue]
    bits = start + "".join(digits(field) + separator for field in head)
    bits += digits(person + category + organization + poa) + end
    lrc = [0, 0, 0, 0]
    for i in range(0, len(bits), 5):
        for j in range(4):
            lrc[j] ^= int(bits[i + j])
    bits += "".join(map(str, lrc)) + ("0" if sum(lrc) % 2 else "1")
    return int(bits, 2).to_bytes(25)


async def test_the_discovery_object_is_not_wrapped() -> None:
    response = await send(await selected(), "00CB3FFF035C017E00")
    assert response.data.hex().upper() == "7E124F0BA0000003080000100001005F2F024000"


async def test_the_card_capability_container_names_the_card() -> None:
    content = tlv.decode_to_dict(await get_object(await selected(), 0x5FC107))
    assert content[0xF0].startswith(bytes.fromhex("A000000116"))
    assert len(content[0xF0]) == 21
    assert content[0xF5] == b"\x10"
    assert list(content)[-1] == 0xFE


@pytest.mark.parametrize("reference", KeyReference)
async def test_each_key_has_its_certificate(reference: KeyReference) -> None:
    tags = {0x9A: 0x5FC105, 0x9C: 0x5FC10A, 0x9D: 0x5FC10B, 0x9E: 0x5FC101}
    content = tlv.decode_to_dict(await get_object(await selected(), tags[reference]))
    assert content == {0x70: ALL_KEYS[reference].certificate_der(), 0x71: b"\0", 0xFE: b""}


async def test_a_certificate_too_large_for_its_container_is_compressed() -> None:
    key = private_key(KeyAlgorithm.RSA_4096, 0)
    assert isinstance(key, rsa.RSAPrivateKey)
    small = credential(KeyAlgorithm.RSA_4096)
    comment = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("2.999.1"), b"\x04\x82\x03\xe8" + bytes(1000)
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(small.certificate.subject)
        .issuer_name(small.certificate.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(small.certificate.not_valid_before_utc)
        .not_valid_after(small.certificate.not_valid_after_utc)
        .add_extension(comment, critical=False)
        .sign(key, hashes.SHA256())
    )
    large = Credential(small.key, certificate)
    assert len(large.certificate_der()) > 1856
    card = await selected({KeyReference.AUTHENTICATION: large})
    content = tlv.decode_to_dict(await get_object(card, 0x5FC105))
    assert content[0x71] == b"\x01"
    assert gzip.decompress(content[0x70]) == large.certificate_der()


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        pytest.param("00CB3FFF055C035FC10300", 0x6A82, id="fingerprints: none"),
        pytest.param("00CB3FFF055C035FC10C00", 0x6A82, id="key history: none"),
        pytest.param("00CB3FFF025C0000", 0x6A80, id="empty tag list"),
        pytest.param("00CB3FFF045C02007E00", 0x6A82, id="padded tag"),
        pytest.param("00CB3FFF035C025F00", 0x6A80, id="broken tag list"),
        pytest.param("00CB3FFF0253 0000", 0x6A80, id="no tag list"),
        pytest.param("00CB3FFE055C035FC10200", 0x6A86, id="P2"),
        pytest.param("00CB00FF055C035FC10200", 0x6A86, id="P1"),
        pytest.param("00CA3FFF055C035FC10200", 0x6D00, id="CA is another command"),
    ],
)
async def test_get_data_refusals(command: str, sw: int) -> None:
    assert (await send(await selected(), command)).sw == sw


async def test_get_data_gives_only_what_the_host_takes() -> None:
    card = await selected()
    first = await send(card, "00CB3FFF055C035FC10208")
    assert len(first.data) == 8
    assert first.sw == 0x6100 | 61 - 8
    rest = await send(card, f"00C00000{61 - 8:02X}")
    assert rest.sw == 0x9000
    (chuid,) = tlv.decode(first.data + rest.data)
    assert chuid.tag == 0x53


# VERIFY


async def test_verify_opens_and_ff_closes() -> None:
    card = await selected()
    assert (await send(card, "00200080")).sw == 0x63C3
    assert await verify(card) == 0x9000
    assert (await send(card, "00200080")).sw == 0x9000
    assert (await send(card, "0020008000")).sw == 0x9000
    assert (await send(card, "0020FF80")).sw == 0x9000
    assert (await send(card, "00200080")).sw == 0x63C3


async def test_power_off_closes() -> None:
    card = await selected()
    await verify(card)
    await card.power_off()
    await send(card, "00A4040009A0000003080000100000")
    assert (await send(card, "00200080")).sw == 0x63C3


async def test_three_wrong_pins_block() -> None:
    card = await selected()
    wrong = b"000000\xff\xff"
    assert [await verify(card, wrong) for _ in range(4)] == [0x63C2, 0x63C1, 0x63C0, 0x6983]
    assert await verify(card) == 0x6983
    assert (await send(card, "00200080")).sw == 0x6983


@pytest.mark.parametrize(
    "pin", [b"123456", b"12345\xff\xff\xff", b"12345a\xff\xff", b"123\xff456\xff", b"123456\0\0"]
)
async def test_what_is_no_pin_costs_no_try_and_ends_nothing(pin: bytes) -> None:
    card = await selected()
    await verify(card)
    assert await verify(card, pin) == 0x6A80
    assert (await send(card, "00200080")).sw == 0x9000


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        pytest.param("00200000", 0x6A88, id="there is no global PIN"),
        pytest.param("00200081", 0x6A88, id="the PUK is not verified"),
        pytest.param("00200180", 0x6A86, id="P1"),
        pytest.param("0020FF8008313233343536FFFF", 0x6A80, id="P1 FF with a PIN"),
    ],
)
async def test_verify_refusals(command: str, sw: int) -> None:
    assert (await send(await selected(), command)).sw == sw


# GENERAL AUTHENTICATE


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P_256, KeyAlgorithm.P_384])
async def test_sign_with_ecdsa(algorithm: KeyAlgorithm) -> None:
    signer = credential(algorithm)
    card = await selected({KeyReference.CARD_AUTHENTICATION: signer})
    hash_algorithm = hashes.SHA256() if algorithm is KeyAlgorithm.P_256 else hashes.SHA384()
    digest = bytes(range(hash_algorithm.digest_size))
    response = await general_authenticate(
        card, KeyReference.CARD_AUTHENTICATION, digest, algorithm=algorithm
    )
    assert isinstance(signer.key.public_key, ec.EllipticCurvePublicKey)
    signer.key.public_key.verify(result_of(response), digest, ec.ECDSA(Prehashed(hash_algorithm)))


@pytest.mark.parametrize(
    "algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096]
)
async def test_rsa_decrypts_a_whole_block(algorithm: KeyAlgorithm) -> None:
    decrypter = credential(algorithm)
    assert isinstance(decrypter.key.public_key, rsa.RSAPublicKey)
    card = await selected({KeyReference.CARD_AUTHENTICATION: decrypter})
    ciphertext = decrypter.key.public_key.encrypt(b"secret", padding.PKCS1v15())
    response = await general_authenticate(
        card, KeyReference.CARD_AUTHENTICATION, ciphertext, algorithm=algorithm
    )
    block = result_of(response)
    assert len(block) == len(ciphertext)
    assert block.startswith(b"\0\2")
    assert block.endswith(b"\0secret")


async def test_a_chained_command_signs_like_an_extended_one() -> None:
    card = await selected()
    key = ALL_KEYS[KeyReference.SIGNATURE].key.public_key
    assert isinstance(key, rsa.RSAPublicKey)
    block = (
        b"\0\1"
        + b"\xff" * 202
        + b"\0"
        + bytes.fromhex("3031300d060960864801650304020105000420")
        + bytes(32)
    )
    template = tlv.encode(0x7C, tlv.encode(0x82), tlv.encode(0x81, block))
    await verify(card)
    assert (await send(card, CommandAPDU(0x10, 0x87, 0x07, 0x9C, template[:200]))).sw == 0x9000
    first = await send(card, CommandAPDU(0, 0x87, 0x07, 0x9C, template[200:]))
    assert (first.data, first.sw) == (b"", 0x6100)
    start = await send(card, "00C0000000")
    rest = await send(card, CommandAPDU(0, 0xC0, 0, 0, ne=start.sw & 0xFF))
    signature = result_of(ResponseAPDU(start.data + rest.data, rest.sw))
    key.verify(signature, bytes(32), padding.PKCS1v15(), Prehashed(hashes.SHA256()))


async def test_agree_with_ecdh() -> None:
    card = await selected()
    await verify(card)
    key = ALL_KEYS[KeyReference.KEY_MANAGEMENT].key.public_key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    ours = ec.generate_private_key(ec.SECP384R1())
    point = ours.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    response = await general_authenticate(card, KeyReference.KEY_MANAGEMENT, point, tag=0x85)
    assert result_of(response) == ours.exchange(ec.ECDH(), key)


async def test_each_key_has_its_rule_for_the_pin() -> None:
    async def use(reference: KeyReference) -> int:
        size = 256 if reference is KeyReference.SIGNATURE else 32
        return (await general_authenticate(card, reference, bytes(size - 1) + b"\1")).sw

    card = await selected()
    assert await use(KeyReference.CARD_AUTHENTICATION) == 0x9000
    for reference in (
        KeyReference.AUTHENTICATION,
        KeyReference.SIGNATURE,
        KeyReference.KEY_MANAGEMENT,
    ):
        assert await use(reference) == 0x6982
    await verify(card)
    assert await use(KeyReference.SIGNATURE) == 0x9000
    assert await use(KeyReference.SIGNATURE) == 0x6982
    assert await use(KeyReference.AUTHENTICATION) == 0x9000
    assert await use(KeyReference.AUTHENTICATION) == 0x9000
    assert await use(KeyReference.KEY_MANAGEMENT) == 0x9000
    await verify(card)
    assert await use(KeyReference.AUTHENTICATION) == 0x9000
    assert await use(KeyReference.SIGNATURE) == 0x6982


async def test_a_wrong_pin_takes_the_keys_away() -> None:
    card = await selected()
    await verify(card)
    await verify(card, b"000000\xff\xff")
    response = await general_authenticate(card, KeyReference.AUTHENTICATION, bytes(32))
    assert response.sw == 0x6982


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        pytest.param("0087119E00", 0x6A80, id="no template"),
        pytest.param("0087119E047C02820000", 0x6A80, id="nothing to sign"),
        pytest.param("0087119E067C04820081 0000", 0x6A80, id="empty challenge"),
        pytest.param("0087119E037C058100", 0x6A80, id="broken template"),
        pytest.param("0087119E067C04810182 00", 0x6A80, id="broken inside"),
        pytest.param("0087119E067C04850104 00", 0x6A80, id="no point"),
        pytest.param("0087119E257C23812111" + "11" * 32, 0x6A80, id="hash longer than the field"),
        pytest.param("0087079E047C02810100", 0x6A86, id="the key has another algorithm"),
        pytest.param("00871182047C02810100", 0x6A86, id="no such key"),
        pytest.param("0087119B047C02810000", 0x6A86, id="no algorithm of the management key"),
        pytest.param("0087039B0C7C0A8208000000000000000000", 0x6982, id="no management key"),
    ],
)
async def test_general_authenticate_refusals(command: str, sw: int) -> None:
    assert (await send(await selected(), command)).sw == sw


@pytest.mark.parametrize(("algorithm", "size"), [("00", 8), ("03", 8), ("08", 16), ("0C", 16)])
async def test_a_challenge_for_the_administrator_is_random(algorithm: str, size: int) -> None:
    card = await selected()
    challenges = set()
    for _ in range(2):
        response = await send(card, f"0087{algorithm}9B047C02810000")
        assert response.data[:4] == bytes([0x7C, size + 2, 0x81, size])
        assert (len(response.data), response.sw) == (size + 4, 0x9000)
        challenges.add(response.data)
    assert len(challenges) == 2


async def test_a_block_that_rsa_cannot_take_is_refused() -> None:
    card = await selected({KeyReference.CARD_AUTHENTICATION: credential(KeyAlgorithm.RSA_2048)})
    for block in (bytes(255), bytes(257), b"\xff" * 256):
        response = await general_authenticate(
            card, KeyReference.CARD_AUTHENTICATION, block, algorithm=KeyAlgorithm.RSA_2048
        )
        assert response.sw == 0x6A80


@pytest.mark.parametrize("ins", ["24", "2C", "47", "84", "DB", "F7", "FD", "FF"])
async def test_unknown_instructions(ins: str) -> None:
    assert (await send(await selected(), f"00{ins}0000")).sw == 0x6D00
