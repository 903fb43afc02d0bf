# SPDX-License-Identifier: Apache-2.0
"""GET DATA, PUT DATA, and what the objects hold (NIST SP 800-73-4, parts 1 and 2)."""

import gzip

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccidd.card.piv.objects import CAPACITY, CONTAINERS
from ccidd.card.piv.references import RETIRED_KEYS, KeyReference
from ccidd.keys.key import Credential, KeyAlgorithm
from credentials import credential, private_key
from memory import VolatileMemory
from piv import PivHost, administered, inserted, new_memory, tag_bytes

ALL_KEYS = {
    KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256),
    KeyReference.SIGNATURE: credential(KeyAlgorithm.RSA_2048),
    KeyReference.KEY_MANAGEMENT: credential(KeyAlgorithm.P_384),
    KeyReference.CARD_AUTHENTICATION: credential(KeyAlgorithm.P_256, 1),
    KeyReference.RETIRED_1: credential(KeyAlgorithm.X25519),
}
# SP 800-73-4, part 1, table 3: the 36 data objects, and which the PIN opens (table 2).
TAGS = [*range(0x5FC101, 0x5FC104), *range(0x5FC105, 0x5FC124), 0x7E, 0x7F61]
PIN_TAGS = {0x5FC103, 0x5FC108, 0x5FC109, 0x5FC121, 0x5FC123}
UNWRAPPED = {0x7E, 0x7F61}


def without_an_identity() -> VolatileMemory:
    return VolatileMemory(new_memory()._pins)


def test_the_table_has_all_objects_of_the_standard() -> None:
    assert len(TAGS) == 36
    assert set(CONTAINERS) == set(TAGS)
    assert {tag for tag, container in CONTAINERS.items() if container.needs_pin} == PIN_TAGS
    assert len({container.identifier for container in CONTAINERS.values()}) == len(TAGS)


# PUT DATA, and GET DATA of what was put


@pytest.mark.parametrize("tag", [tag for tag in TAGS if tag not in UNWRAPPED])
async def test_each_object_is_replaced_and_removed(tag: int) -> None:
    host = await administered()
    await host.verify()
    for content in (b"\x01\x02\x03", bytes(4000)):
        assert await host.put_object(tag, content) == 0x9000
        assert await host.get_object(tag) == content
    # What was put outlives the power.
    await host.reinsert()
    await host.verify()
    assert await host.get_object(tag) == bytes(4000)
    assert await host.authenticate() == 0x9000
    assert await host.put_object(tag, b"") == 0x9000
    assert (await host.get_data(tag)).sw == 0x6A82


@pytest.mark.parametrize("tag", sorted(PIN_TAGS))
async def test_what_the_pin_protects_is_not_read_without(tag: int) -> None:
    host = await administered()
    # Nor whether it is there: tools keep a secret in one only if that shows that the PIN is known.
    assert (await host.get_data(tag)).sw == 0x6982
    assert await host.put_object(tag, b"private") == 0x9000
    assert (await host.get_data(tag)).sw == 0x6982
    await host.verify()
    assert await host.get_object(tag) == b"private"
    assert (await host.send("0020FF80")).sw == 0x9000
    assert (await host.get_data(tag)).sw == 0x6982


@pytest.mark.parametrize("tag", [tag for tag in TAGS if tag not in UNWRAPPED])
async def test_only_the_administrator_puts(tag: int) -> None:
    host = await inserted()
    await host.verify()
    assert await host.put_object(tag, b"\1") == 0x6982
    assert await host.sw(0xDB, 0x3F, 0xFF, b"nonsense") == 0x6982


async def test_the_biometric_group_template_is_not_wrapped() -> None:
    host = await administered()
    assert (await host.get_data(0x7F61)).sw == 0x6A82
    no_templates = bytes.fromhex("7F6103020100")
    assert await host.sw(0xDB, 0x3F, 0xFF, no_templates) == 0x9000
    assert (await host.get_data(0x7F61)).data == no_templates
    assert await host.sw(0xDB, 0x3F, 0xFF, bytes.fromhex("7F6100")) == 0x9000
    assert (await host.get_data(0x7F61)).sw == 0x6A82


async def test_a_large_object_travels_in_chains_both_ways() -> None:
    host = await administered()
    content = bytes(i % 251 for i in range(12704))
    data = tlv.encode(0x5C, tag_bytes(0x5FC108)) + tlv.encode(0x53, content)
    pieces = [data[i : i + 255] for i in range(0, len(data), 255)]
    for piece in pieces[:-1]:
        assert (await host.send(CommandAPDU(0x10, 0xDB, 0x3F, 0xFF, piece))).sw == 0x9000
    assert (await host.send(CommandAPDU(0x00, 0xDB, 0x3F, 0xFF, pieces[-1]))).sw == 0x9000
    await host.verify()
    response = await host.send("00CB3FFF055C035FC10800")
    received = response.data
    while response.sw >> 8 == 0x61:
        response = await host.send("00C0000000")
        received += response.data
    assert response.sw == 0x9000
    assert received == tlv.encode(0x53, content)


@pytest.mark.parametrize(
    ("p1p2", "data", "sw"),
    [
        pytest.param("3FFE", "5C035FC10353020102", 0x6A86, id="P2"),
        pytest.param("00FF", "5C035FC10353020102", 0x6A86, id="P1"),
        pytest.param("3FFF", "5C035FC12453020102", 0x6A81, id="no object of the standard"),
        pytest.param("3FFF", "5C035FFF0053020102", 0x6A81, id="an object of the extensions"),
        pytest.param("3FFF", "5C017E53020102", 0x6A81, id="the discovery object wrapped"),
        pytest.param("3FFF", "5C0053020102", 0x6A80, id="no tag"),
        pytest.param("3FFF", "5C035FC103", 0x6A80, id="no data"),
        pytest.param("3FFF", "53020102", 0x6A80, id="no tag list"),
        pytest.param("3FFF", "530201025C035FC103", 0x6A80, id="the wrong way round"),
        pytest.param("3FFF", "5C035FC10353020102AA00", 0x6A80, id="something more"),
        pytest.param("3FFF", "5C035FC1035303", 0x6A80, id="broken"),
        pytest.param("3FFF", "", 0x6A80, id="nothing"),
    ],
)
async def test_put_data_refusals(p1p2: str, data: str, sw: int) -> None:
    host = await administered()
    p1, p2 = bytes.fromhex(p1p2)
    assert await host.sw(0xDB, p1, p2, bytes.fromhex(data)) == sw


async def test_the_card_is_full_at_some_point_and_keeps_what_it_has() -> None:
    host = await administered()
    content = bytes(60000)
    sws = [await host.put_object(tag, content) for tag in range(0x5FC10D, 0x5FC10D + 5)]
    assert sws == [0x9000] * (CAPACITY // 60000) + [0x6A84]
    assert await host.get_object(0x5FC10D) == content
    # In place of an object there is always room for one of its size.
    assert await host.put_object(0x5FC10D, b"\1" * 60000) == 0x9000


async def test_small_objects_fill_the_card_too() -> None:
    host = await administered(vendor_extensions=True)
    count = 0
    while await host.put_object(0x5F0000 + count, b"\1") == 0x9000:
        count += 1
    assert count < CAPACITY // 64


# The discovery object


async def test_the_discovery_object_is_not_wrapped() -> None:
    response = await (await inserted()).send("00CB3FFF035C017E00")
    assert response.data.hex().upper() == "7E124F0BA0000003080000100001005F2F024000"


@pytest.mark.parametrize("policy", ["4000", "4010", "6010", "6020"])
async def test_a_discovery_object_with_a_policy_that_the_card_has(policy: str) -> None:
    host = await administered()
    discovery = bytes.fromhex(f"7E124F0BA0000003080000100001005F2F02{policy}")
    assert await host.sw(0xDB, 0x3F, 0xFF, discovery) == 0x9000
    assert (await host.get_data(0x7E)).data == discovery


@pytest.mark.parametrize(
    ("discovery", "sw"),
    [
        pytest.param("4F0BA0000003080000100001005F2F025000", 0x6A81, id="biometric comparison"),
        pytest.param("4F0BA0000003080000100001005F2F024800", 0x6A81, id="virtual contact"),
        pytest.param("4F0BA0000003080000100001005F2F022000", 0x6A81, id="not the application PIN"),
        pytest.param("4F0BA0000003080000100001005F2F026000", 0x6A81, id="no primary PIN"),
        pytest.param("4F0BA0000003080000100002005F2F024000", 0x6A80, id="another application"),
        pytest.param("4F0BA0000003080000100001005F2F0140", 0x6A80, id="one byte of policy"),
        pytest.param("4F0BA000000308000010000100", 0x6A80, id="no policy"),
        pytest.param("5F2F0240004F0BA000000308000010000100", 0x6A80, id="another order"),
        pytest.param("4F0B", 0x6A80, id="broken"),
    ],
)
async def test_a_discovery_object_that_promises_something_else(discovery: str, sw: int) -> None:
    host = await administered()
    before = (await host.get_data(0x7E)).data
    assert await host.sw(0xDB, 0x3F, 0xFF, tlv.encode(0x7E, bytes.fromhex(discovery))) == sw
    assert (await host.get_data(0x7E)).data == before


async def test_a_card_may_have_no_discovery_object() -> None:
    host = await administered()
    assert await host.sw(0xDB, 0x3F, 0xFF, tlv.encode(0x7E)) == 0x9000
    assert (await host.get_data(0x7E)).sw == 0x6A82
    assert await host.verify() == 0x9000


# GET DATA


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        pytest.param("00CB3FFF055C035FC10300", 0x6982, id="fingerprints: none, and no PIN"),
        pytest.param("00CB3FFF055C035FC10C00", 0x6A82, id="key history: none"),
        pytest.param("00CB3FFF055C035FC10400", 0x6A82, id="no such object"),
        pytest.param("00CB3FFF055C035FFF0000", 0x6A82, id="an object of the extensions"),
        pytest.param("00CB3FFF025C0000", 0x6A80, id="empty tag list"),
        pytest.param("00CB3FFF045C02007E00", 0x6A82, id="padded tag"),
        pytest.param("00CB3FFF035C025F00", 0x6A80, id="broken tag list"),
        pytest.param("00CB3FFF0253 0000", 0x6A80, id="no tag list"),
        pytest.param("00CB3FFE055C035FC10200", 0x6A86, id="P2"),
        pytest.param("00CB00FF055C035FC10200", 0x6A86, id="P1"),
    ],
)
async def test_get_data_refusals(command: str, sw: int) -> None:
    assert (await (await inserted()).send(command)).sw == sw


async def test_get_data_gives_only_what_the_host_takes() -> None:
    host = await inserted()
    size = len((await host.get_data(0x5FC102)).data)
    first = await host.send("00CB3FFF055C035FC10208")
    assert (len(first.data), first.sw >> 8) == (8, 0x61)
    rest = await host.command(0xC0, 0, 0)
    assert rest.sw == 0x9000
    (chuid,) = tlv.decode(first.data + rest.data)
    assert (chuid.tag, len(first.data + rest.data)) == (0x53, size)


# What follows from the card


async def test_the_chuid_of_a_new_card_is_its_own() -> None:
    memories = [new_memory() for _ in range(2)]
    chuids = []
    for memory in memories:
        chuid = tlv.decode_to_dict(await (await inserted(memory=memory)).get_object(0x5FC102))
        assert list(chuid) == [0x30, 0x34, 0x35, 0x3E, 0xFE]
        assert chuid[0x34] == memory.contents["piv/guid"]
        assert chuid[0x35] == memory.contents["piv/expires"]
        chuids.append(chuid)
    assert chuids[0][0x34] != chuids[1][0x34]


async def test_without_an_identity_the_chuid_follows_from_the_keys() -> None:
    async def chuid_of(keys: dict[KeyReference, Credential]) -> dict[int, bytes]:
        host = await inserted(keys, without_an_identity())
        return tlv.decode_to_dict(await host.get_object(0x5FC102))

    chuid = await chuid_of(ALL_KEYS)
    assert chuid[0x30] == fasc_n("9999", "9999", "999999", "0", "1", "0000000000", "3", "0000", "1")
    assert (len(chuid[0x34]), chuid[0x3E]) == (16, b"")
    latest = max(c.certificate.not_valid_after_utc for c in ALL_KEYS.values())
    assert chuid[0x35] == latest.strftime("%Y%m%d").encode()
    assert await chuid_of(ALL_KEYS) == chuid
    other = await chuid_of({KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256, 1)})
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


async def test_the_card_capability_container_names_the_card() -> None:
    host = await inserted()
    content = tlv.decode_to_dict(await host.get_object(0x5FC107))
    assert content[0xF0].startswith(bytes.fromhex("A000000116"))
    assert content[0xF0].endswith(host.memory.contents["piv/guid"][:14])
    assert len(content[0xF0]) == 21
    assert content[0xF5] == b"\x10"
    assert list(content)[-1] == 0xFE


@pytest.mark.parametrize("reference", ALL_KEYS)
async def test_each_key_has_its_certificate(reference: KeyReference) -> None:
    tags = {0x9A: 0x5FC105, 0x9C: 0x5FC10A, 0x9D: 0x5FC10B, 0x9E: 0x5FC101, 0x82: 0x5FC10D}
    host = await inserted(ALL_KEYS)
    content = tlv.decode_to_dict(await host.get_object(tags[reference]))
    assert content == {0x70: ALL_KEYS[reference].certificate_der(), 0x71: b"\0", 0xFE: b""}


async def test_a_new_key_takes_the_certificate_of_a_configured_one_away() -> None:
    host = await inserted(ALL_KEYS)
    assert await host.authenticate() == 0x9000
    await host.generate(0x9A, KeyAlgorithm.P_256)
    assert (await host.get_data(0x5FC105)).sw == 0x6A82
    # One that was put stays, as the administrator's matter.
    assert await host.put_object(0x5FC105, b"\x70\0") == 0x9000
    await host.generate(0x9A, KeyAlgorithm.P_384)
    assert await host.get_object(0x5FC105) == b"\x70\0"


async def test_a_removed_certificate_of_a_configured_key_stays_away() -> None:
    host = await inserted(ALL_KEYS)
    assert await host.authenticate() == 0x9000
    assert await host.put_object(0x5FC105, b"") == 0x9000
    await host.reinsert()
    assert (await host.get_data(0x5FC105)).sw == 0x6A82


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
    host = await inserted({KeyReference.AUTHENTICATION: large})
    content = tlv.decode_to_dict(await host.get_object(0x5FC105))
    assert content[0x71] == b"\x01"
    assert gzip.decompress(content[0x70]) == large.certificate_der()


# Key history


async def history(host: PivHost) -> tuple[int, int] | None:
    response: ResponseAPDU = await host.get_data(0x5FC10C)
    if response.sw == 0x6A82:
        return None
    fields = tlv.decode_to_dict(tlv.decode_to_dict(response.data)[0x53])
    assert list(fields) == [0xC1, 0xC2, 0xFE]
    return fields[0xC1][0], fields[0xC2][0]


async def test_the_key_history_counts_the_retired_keys_with_certificates() -> None:
    host = await administered(vendor_extensions=True)
    assert await history(host) is None
    for count, reference in enumerate(RETIRED_KEYS[:3]):
        await host.generate(reference, KeyAlgorithm.P_256)
        assert await history(host) == (count, 0)
        assert await host.put_object(reference.certificate_tag, b"\x70\0") == 0x9000
        assert await history(host) == (count + 1, 0)
    assert await host.sw(0xF6, 0xFF, RETIRED_KEYS[0]) == 0x9000
    assert await history(host) == (2, 0)


async def test_the_key_history_counts_configured_keys_too() -> None:
    assert await history(await inserted(ALL_KEYS)) == (1, 0)
    assert (
        await history(await inserted({KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256)}))
        is None
    )


async def test_a_key_history_that_was_put_is_the_administrators() -> None:
    host = await administered(vendor_extensions=True)
    content = bytes.fromhex("C10101C20101F300FE00")
    assert await host.put_object(0x5FC10C, content) == 0x9000
    await host.generate(0x82, KeyAlgorithm.P_256)
    assert await host.get_object(0x5FC10C) == content


# Objects beyond the standard


@pytest.mark.parametrize("tag", [0x5F0000, 0x5FC100, 0x5FFF00, 0x5FFF10, 0x5FFFFF])
async def test_with_the_extensions_tools_keep_notes_on_the_card(tag: int) -> None:
    host = await administered(vendor_extensions=True)
    assert (await host.get_data(tag)).sw == 0x6A82
    assert await host.put_object(tag, b"\x80\x00") == 0x9000
    assert await host.get_object(tag) == b"\x80\x00"
    assert await host.put_object(tag, b"") == 0x9000
    assert (await host.get_data(tag)).sw == 0x6A82
