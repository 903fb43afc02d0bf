# SPDX-License-Identifier: Apache-2.0
"""The instructions beyond the standard, as the tools of their vendors use them."""

from collections.abc import Awaitable, Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ccid_protocol import tlv
from ccidd.card.piv.contents import certificate_container
from ccidd.card.piv.management_key import (
    DEFAULT_MANAGEMENT_KEY,
    ManagementAlgorithm,
    ManagementKey,
)
from ccidd.card.piv.references import ALGORITHM_IDENTIFIERS, KeyReference
from ccidd.keys.key import KeyAlgorithm
from ccidd.keys.local import LocalPrivateKey
from credentials import credential, private_key
from memory import VolatileMemory, VolatilePin
from piv import (
    MANAGEMENT_KEY,
    PIN,
    PUK,
    WRONG,
    PivHost,
    administered,
    inserted,
    new_memory,
    public_key,
    template_field,
)

NOTHING = b"\xff" * 8


async def provisioned(*, legacy_rsa: bool = False) -> PivHost:
    return await administered(vendor_extensions=True, legacy_rsa=legacy_rsa)


async def metadata(host: PivHost, reference: int) -> dict[int, bytes]:
    response = await host.command(0xF7, 0, reference)
    assert response.sw == 0x9000, f"{response.sw:04X}"
    return tlv.decode_to_dict(response.data)


# Version, serial number


async def test_the_version_is_one_that_has_all_of_this() -> None:
    host = await inserted(vendor_extensions=True)
    assert (await host.command(0xFD, 0, 0)).data == bytes([5, 7, 0])


async def test_the_serial_number_is_the_cards_own() -> None:
    host = await inserted(vendor_extensions=True)
    serial = (await host.command(0xF8, 0, 0)).data
    guid = host.memory.contents["piv/guid"]
    assert int.from_bytes(serial) == int.from_bytes(guid[:4]) & 0x7FFFFFFF
    assert len(serial) == 4


@pytest.mark.parametrize("ins", [0xF7, 0xF8, 0xFB, 0xFD])
async def test_parameters_that_are_not_zero(ins: int) -> None:
    host = await inserted(vendor_extensions=True)
    assert await host.sw(ins, 1, 0) == 0x6A86


@pytest.mark.parametrize("ins", [0xF5, 0xFC, 0x84, 0xCA])
async def test_instructions_that_nobody_has(ins: int) -> None:
    assert await (await provisioned()).sw(ins, 0, 0) == 0x6D00


@pytest.mark.parametrize(
    ("ins", "p1", "p2"),
    [(0xF6, 0xFF, 0x9A), (0xFA, 5, 5), (0xFE, 0x11, 0x9A), (0xFF, 0xFF, 0xFF)],
)
async def test_what_only_the_administrator_may(ins: int, p1: int, p2: int) -> None:
    host = await inserted(vendor_extensions=True)
    await host.verify()
    assert await host.sw(ins, p1, p2) == 0x6982


# Metadata


async def test_metadata_of_pin_and_puk() -> None:
    host = await inserted(vendor_extensions=True)
    assert await metadata(host, 0x80) == {0x01: b"\xff", 0x05: b"\0", 0x06: b"\3\3"}
    await host.verify(WRONG)
    assert (await metadata(host, 0x80))[0x06] == b"\3\2"
    assert await metadata(host, 0x81) == {0x01: b"\xff", 0x05: b"\0", 0x06: b"\3\3"}


async def test_metadata_of_the_administration_key() -> None:
    host = await provisioned()
    assert await metadata(host, 0x9B) == {0x01: b"\x08", 0x02: b"\0\1", 0x05: b"\0"}
    default = b"\x03\x9b\x18" + bytes.fromhex("0102030405060708" * 3)
    assert await host.sw(0xFF, 0xFF, 0xFF, default) == 0x9000
    assert await metadata(host, 0x9B) == {0x01: b"\x03", 0x02: b"\0\1", 0x05: b"\1"}
    await host.memory.store({"piv/management-key": None})
    assert await host.sw(0xF7, 0, 0x9B) == 0x6A88


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
async def test_metadata_of_keys(algorithm: KeyAlgorithm) -> None:
    keys = {KeyReference.SIGNATURE: credential(algorithm)}
    host = await inserted(keys, vendor_extensions=True, legacy_rsa=True)
    found = await metadata(host, 0x9C)
    identifier = ALGORITHM_IDENTIFIERS[algorithm]
    assert found[0x01] == bytes([identifier])
    assert found[0x02] == b"\3\1"
    assert found[0x03] == b"\2"
    assert public_key(identifier, found[0x04]) == credential(algorithm).key.public_key


async def test_metadata_of_a_generated_key() -> None:
    host = await provisioned()
    key = await host.generate(0x9A, KeyAlgorithm.P_256, bytes.fromhex("AA0101"))
    found = await metadata(host, 0x9A)
    assert (found[0x02], found[0x03]) == (b"\1\1", b"\1")
    assert public_key(0x11, found[0x04]) == key


@pytest.mark.parametrize("reference", [0x00, 0x9A, 0x82, 0x96, 0x55])
async def test_metadata_of_what_is_not_there(reference: int) -> None:
    assert await (await inserted(vendor_extensions=True)).sw(0xF7, 0, reference) == 0x6A88


# Import


def import_fields(key: LocalPrivateKey) -> bytes:
    """A private key as tools bring it."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        size = key.key_size // 16
        values = (numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
        return b"".join(tlv.encode(1 + i, v.to_bytes(size)) for i, v in enumerate(values))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return tlv.encode(0x06, key.private_numbers().private_value.to_bytes(key.key_size // 8))
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return tlv.encode(0x07 if isinstance(key, ed25519.Ed25519PrivateKey) else 0x08, raw)


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
@pytest.mark.parametrize("reference", [0x9D, 0x95])
async def test_a_key_is_imported(algorithm: KeyAlgorithm, reference: int) -> None:
    host = await provisioned(legacy_rsa=True)
    identifier = ALGORITHM_IDENTIFIERS[algorithm]
    key = private_key(algorithm, 0)
    assert await host.sw(0xFE, identifier, reference, import_fields(key)) == 0x9000
    await host.reinsert()
    found = await metadata(host, reference)
    assert (found[0x01], found[0x02], found[0x03]) == (bytes([identifier]), b"\2\1", b"\2")
    assert public_key(identifier, found[0x04]) == key.public_key()


async def test_an_imported_key_signs() -> None:
    host = await provisioned()
    key = private_key(KeyAlgorithm.P_256, 0)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    fields = import_fields(key) + bytes.fromhex("AA0101AB0101")
    assert await host.sw(0xFE, 0x11, 0x9C, fields) == 0x9000
    response = await host.use(0x9C, bytes(range(32)), KeyAlgorithm.P_256)
    signature = template_field(response, 0x82)
    key.public_key().verify(signature, bytes(range(32)), ec.ECDSA(Prehashed(hashes.SHA256())))


RSA = import_fields(private_key(KeyAlgorithm.RSA_2048, 0))


@pytest.mark.parametrize(
    ("p1", "p2", "fields", "sw"),
    [
        pytest.param(0x08, 0x9A, RSA, 0x6A86, id="AES"),
        pytest.param(0x06, 0x9A, RSA, 0x6A86, id="RSA-1024"),
        pytest.param(0x07, 0x9B, RSA, 0x6A86, id="the administration key"),
        pytest.param(0x05, 0x9A, RSA, 0x6A80, id="RSA of another size"),
        pytest.param(0x07, 0x9A, RSA[:-1], 0x6A80, id="broken"),
        pytest.param(0x07, 0x9A, b"", 0x6A80, id="nothing"),
        pytest.param(0x07, 0x9A, b"\1\0\2\0\3\0\4\0\5\0", 0x6A80, id="zeros"),
        pytest.param(0x07, 0x9A, RSA[:400] + b"\0" + RSA[401:], 0x6A80, id="not what it was"),
        pytest.param(0x11, 0x9A, RSA, 0x6A80, id="RSA for a curve"),
        pytest.param(0x11, 0x9A, tlv.encode(6, bytes(32)), 0x6A80, id="the scalar 0"),
        pytest.param(0x11, 0x9A, tlv.encode(6, b"\xff" * 32), 0x6A80, id="a scalar too large"),
        pytest.param(0x11, 0x9A, tlv.encode(6, b"\1" * 33), 0x6A80, id="a scalar too long"),
        pytest.param(0xE0, 0x9A, tlv.encode(7, b"\1" * 31), 0x6A80, id="a short seed"),
        pytest.param(0xE1, 0x9A, tlv.encode(7, b"\1" * 32), 0x6A80, id="Ed25519 for X25519"),
        pytest.param(0xE1, 0x9A, tlv.encode(8, b"\1" * 32) + b"\xab\1\2", 0x6A81, id="touch"),
    ],
)
async def test_keys_that_are_not_imported(p1: int, p2: int, fields: bytes, sw: int) -> None:
    host = await provisioned()
    assert await host.sw(0xFE, p1, p2, fields) == sw
    assert await host.sw(0xF7, 0, 0x9A) == 0x6A88


# Move and delete


async def test_a_key_moves_with_its_rules_but_without_its_certificate() -> None:
    host = await provisioned()
    key = await host.generate(0x9A, KeyAlgorithm.P_256, bytes.fromhex("AA0103"))
    assert await host.put_object(0x5FC105, b"\x70\0") == 0x9000
    before = await metadata(host, 0x9A)
    assert await host.sw(0xF6, 0x82, 0x9A) == 0x9000
    assert await metadata(host, 0x82) == before
    assert await host.sw(0xF7, 0, 0x9A) == 0x6A88
    assert public_key(0x11, before[0x04]) == key
    assert await host.get_object(0x5FC105) == b"\x70\0"
    assert (await host.get_data(0x5FC10D)).sw == 0x6A82


async def test_a_key_is_deleted() -> None:
    host = await provisioned()
    await host.generate(0x9E, KeyAlgorithm.P_256)
    assert await host.sw(0xF6, 0xFF, 0x9E) == 0x9000
    assert (await host.use(0x9E, b"\1", KeyAlgorithm.P_256)).sw == 0x6A80
    assert await host.sw(0xF6, 0xFF, 0x9E) == 0x6A88
    assert "piv/key/9E" not in host.memory.contents
    # The attestation key can be deleted too.
    assert await host.sw(0xF6, 0xFF, 0xF9) == 0x9000


async def test_a_configured_key_can_be_deleted_but_not_moved() -> None:
    keys = {KeyReference.CARD_AUTHENTICATION: credential(KeyAlgorithm.P_256)}
    memory = new_memory()
    host = await inserted(keys, memory, vendor_extensions=True)
    assert await host.authenticate() == 0x9000
    assert await host.sw(0xF6, 0x82, 0x9E) == 0x6A81
    assert await host.sw(0xF6, 0xFF, 0x9E) == 0x9000
    assert (await host.get_data(0x5FC101)).sw == 0x6A82
    # It stays away, even where a key was in its place meanwhile.
    host = await inserted(keys, memory, vendor_extensions=True)
    assert await host.authenticate() == 0x9000
    await host.generate(0x9E, KeyAlgorithm.P_256)
    assert await host.sw(0xF6, 0x82, 0x9E) == 0x9000
    assert await host.sw(0xF7, 0, 0x9E) == 0x6A88
    assert await host.sw(0xF6, 0x9E, 0x82) == 0x9000
    assert (await metadata(host, 0x9E))[0x03] == b"\1"


@pytest.mark.parametrize(
    ("destination", "source", "sw"),
    [
        pytest.param(0x82, 0x83, 0x6A88, id="nothing there"),
        pytest.param(0x9A, 0x9A, 0x6A80, id="to itself"),
        pytest.param(0x9C, 0x9A, 0x6A80, id="onto another"),
        pytest.param(0x9B, 0x9A, 0x6A86, id="onto the administration key"),
        pytest.param(0x82, 0x9B, 0x6A86, id="the administration key"),
        pytest.param(0x82, 0xF9, 0x6A86, id="the attestation key"),
        pytest.param(0xF9, 0x9A, 0x6A86, id="onto the attestation key"),
        pytest.param(0xFF, 0x81, 0x6A86, id="deleting the PUK"),
    ],
)
async def test_moves_that_are_refused(destination: int, source: int, sw: int) -> None:
    host = await provisioned()
    for reference in (0x9A, 0x9C):
        await host.generate(reference, KeyAlgorithm.P_256)
    assert await host.sw(0xF6, destination, source) == sw


# The administration key


@pytest.mark.parametrize("algorithm", ManagementAlgorithm)
async def test_the_administration_key_is_set(algorithm: ManagementAlgorithm) -> None:
    host = await provisioned()
    key = ManagementKey.generate(algorithm)
    data = bytes([algorithm]) + tlv.encode(0x9B, key.key)
    assert await host.sw(0xFF, 0xFF, 0xFF, data) == 0x9000
    await host.reinsert()
    if algorithm is MANAGEMENT_KEY.algorithm:
        assert await host.authenticate() == 0x6982
    assert await host.authenticate(key) == 0x9000


@pytest.mark.parametrize(
    ("p1", "p2", "data", "sw"),
    [
        pytest.param(0x00, 0xFF, "089B10" + "00" * 16, 0x6A86, id="P1"),
        pytest.param(0xFF, 0xFE, "089B10" + "00" * 16, 0x6A81, id="touch"),
        pytest.param(0xFF, 0xFF, "", 0x6A80, id="nothing"),
        pytest.param(0xFF, 0xFF, "08", 0x6A80, id="no key"),
        pytest.param(0xFF, 0xFF, "119B10" + "00" * 16, 0x6A80, id="no symmetric algorithm"),
        pytest.param(0xFF, 0xFF, "089A10" + "00" * 16, 0x6A80, id="another key"),
        pytest.param(0xFF, 0xFF, "089B0F" + "00" * 15, 0x6A80, id="too short"),
        pytest.param(0xFF, 0xFF, "089B11" + "00" * 16, 0x6A80, id="broken"),
    ],
)
async def test_administration_keys_that_are_refused(p1: int, p2: int, data: str, sw: int) -> None:
    host = await provisioned()
    assert await host.sw(0xFF, p1, p2, bytes.fromhex(data)) == sw
    await host.reinsert()
    assert await host.authenticate() == 0x9000


# Retries


async def test_the_number_of_tries_is_set_and_pin_and_puk_are_as_known() -> None:
    host = await provisioned()
    await host.sw(0x24, 0, 0x80, PIN + b"87654321")
    await host.verify(b"87654321")
    assert await host.sw(0xFA, 5, 15) == 0x9000
    assert await metadata(host, 0x80) == {0x01: b"\xff", 0x05: b"\1", 0x06: b"\5\5"}
    assert await metadata(host, 0x81) == {0x01: b"\xff", 0x05: b"\1", 0x06: b"\x0f\x0f"}
    assert await host.pin_status() == 0x63C5
    assert await host.verify(b"123456\xff\xff") == 0x9000
    assert await host.sw(0x24, 0, 0x80, b"123456\xff\xff87654321") == 0x9000
    assert (await metadata(host, 0x80))[0x05] == b"\0"
    assert await host.sw(0x2C, 0, 0x80, b"12345678654321\xff\xff") == 0x9000
    assert await host.sw(0x24, 0, 0x81, b"1234567887654321") == 0x9000
    assert (await metadata(host, 0x81))[0x05] == b"\0"
    assert "piv/default-pins" not in host.memory.contents


@pytest.mark.parametrize(("p1", "p2"), [(0, 3), (3, 0), (16, 3), (3, 255)])
async def test_numbers_of_tries_that_cannot_be(p1: int, p2: int) -> None:
    host = await provisioned()
    await host.verify()
    assert await host.sw(0xFA, p1, p2) == 0x6A86
    assert await host.verify() == 0x9000


async def test_to_set_the_number_of_tries_takes_the_pin_too() -> None:
    host = await provisioned()
    assert await host.sw(0xFA, 5, 5) == 0x6982


# Reset


async def block(host: PivHost) -> None:
    while await host.verify(NOTHING) != 0x6983:
        pass
    while await host.sw(0x2C, 0, 0x80, NOTHING * 2) != 0x6983:
        pass


async def test_a_reset_gives_a_new_card_back() -> None:
    host = await provisioned()
    identity = {n: host.memory.contents[n] for n in ("piv/guid", "piv/expires", "piv/key/F9")}
    attestation = await host.get_object(0x5FFF01)
    await host.generate(0x9A, KeyAlgorithm.P_256)
    assert await host.put_object(0x5FC105, b"\x70\0") == 0x9000
    assert await host.put_object(0x5FC102, b"\x30\0") == 0x9000
    await block(host)
    assert await host.sw(0xFB, 0, 0) == 0x9000
    assert await host.put_object(0x5FC105, b"\x70\0") == 0x6982
    assert {name: host.memory.contents[name] for name in identity} == identity
    assert await host.get_object(0x5FFF01) == attestation
    assert await host.sw(0xF7, 0, 0x9A) == 0x6A88
    assert (await host.get_data(0x5FC105)).sw == 0x6A82
    assert tlv.decode_to_dict(await host.get_object(0x5FC102))[0x34] == identity["piv/guid"]
    assert await metadata(host, 0x80) == {0x01: b"\xff", 0x05: b"\1", 0x06: b"\3\3"}
    assert await metadata(host, 0x81) == {0x01: b"\xff", 0x05: b"\1", 0x06: b"\3\3"}
    assert await host.authenticate(DEFAULT_MANAGEMENT_KEY) == 0x9000
    assert await host.verify(b"123456\xff\xff") == 0x9000


@pytest.mark.parametrize("at", range(6))
async def test_a_reset_that_breaks_off_gives_no_old_pin_a_try(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await provisioned()
    await host.generate(0x9A, KeyAlgorithm.P_256)
    pin, puk = b"654321\xff\xff", b"87654321"
    assert await host.sw(0x24, 0, 0x80, PIN + pin) == 0x9000
    assert await host.sw(0x24, 0, 0x81, PUK + puk) == 0x9000
    await block(host)
    steps = iter(range(6))

    def breaking(change: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def call(*arguments: object) -> None:
            if next(steps) == at:
                raise OSError("the power fails")
            await change(*arguments)

        return call

    for owner, name in (
        (VolatileMemory, "store"),
        (VolatilePin, "change"),
        (VolatilePin, "set_max_tries"),
    ):
        monkeypatch.setattr(owner, name, breaking(getattr(owner, name)))
    assert await host.sw(0xFB, 0, 0) == 0x6581
    monkeypatch.undo()
    await host.reinsert()
    assert await host.sw(0xF7, 0, 0x9A) == (0x6A88 if at else 0x9000)
    assert not await host.memory.pin(0x80).compare(pin)
    assert not await host.memory.pin(0x81).compare(puk)


async def test_a_reset_hides_configured_keys_from_who_then_has_the_pin() -> None:
    keys = {KeyReference.CARD_AUTHENTICATION: credential(KeyAlgorithm.P_256)}
    memory = new_memory()
    host = await inserted(keys, memory, vendor_extensions=True)
    await block(host)
    assert await host.sw(0xFB, 0, 0) == 0x9000
    for card in (host, await inserted(keys, memory, vendor_extensions=True)):
        assert (await card.use(0x9E, b"\1", KeyAlgorithm.P_256)).sw == 0x6A80
        assert (await card.get_data(0x5FC101)).sw == 0x6A82


async def test_nothing_is_reset_while_a_try_is_left() -> None:
    host = await inserted(vendor_extensions=True)
    assert await host.sw(0xFB, 0, 0) == 0x6985
    for _ in range(3):
        await host.verify(WRONG)
    assert await host.sw(0xFB, 0, 0) == 0x6985
    assert await host.sw(0x2C, 0, 0x80, PUK + PIN) == 0x9000
    for _ in range(3):
        await host.sw(0x2C, 0, 0x80, NOTHING * 2)
    assert await host.sw(0xFB, 0, 0) == 0x6985
    assert await host.verify() == 0x9000


# Attestation


async def attested(host: PivHost, reference: int) -> x509.Certificate:
    response = await host.command(0xF9, reference, 0)
    assert response.sw == 0x9000, f"{response.sw:04X}"
    return x509.load_der_x509_certificate(response.data)


def extension(certificate: x509.Certificate, number: int) -> bytes:
    oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.41482.3.{number}")
    value = certificate.extensions.get_extension_for_oid(oid).value
    assert isinstance(value, x509.UnrecognizedExtension)
    return value.value


async def issuer_of(host: PivHost) -> x509.Certificate:
    container = tlv.decode_to_dict(await host.get_object(0x5FFF01))
    return x509.load_der_x509_certificate(container[0x70])


@pytest.mark.parametrize(
    "algorithm", [KeyAlgorithm.P_256, KeyAlgorithm.ED25519, KeyAlgorithm.X25519]
)
async def test_a_generated_key_is_attested(algorithm: KeyAlgorithm) -> None:
    host = await provisioned()
    key = await host.generate(0x9C, algorithm)
    certificate = await attested(host, 0x9C)
    issuer = await issuer_of(host)
    certificate.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(issuer)
    assert certificate.public_key() == key
    assert extension(certificate, 3) == bytes([5, 7, 0])
    serial = (await host.command(0xF8, 0, 0)).data
    assert int.from_bytes(tlv.decode_to_dict(extension(certificate, 7))[0x02]) == int.from_bytes(
        serial
    )
    assert extension(certificate, 8) == b"\3\1"
    common_name = certificate.subject.rfc4514_string()
    assert common_name == "CN=ccidd PIV attestation 9c"


async def test_an_attestation_key_of_ones_own() -> None:
    host = await provisioned()
    for algorithm in (KeyAlgorithm.P_384, KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519):
        known = credential(algorithm)
        fields = import_fields(private_key(algorithm, 0))
        assert await host.sw(0xFE, ALGORITHM_IDENTIFIERS[algorithm], 0xF9, fields) == 0x9000
        container = certificate_container(known.certificate)
        assert await host.put_object(0x5FFF01, container) == 0x9000
        await host.generate(0x82, KeyAlgorithm.P_256)
        (await attested(host, 0x82)).verify_directly_issued_by(known.certificate)


async def test_what_is_not_attested() -> None:
    host = await provisioned()
    assert await host.sw(0xF9, 0x9A, 0) == 0x6A88
    assert await host.sw(0xF9, 0x9A, 1) == 0x6A86
    assert await host.sw(0xF9, 0xF9, 0) == 0x6A86
    assert await host.sw(0xF9, 0x9B, 0) == 0x6A86
    fields = import_fields(private_key(KeyAlgorithm.P_256, 0))
    assert await host.sw(0xFE, 0x11, 0x9A, fields) == 0x9000
    assert await host.sw(0xF9, 0x9A, 0) == 0x6A80
    await host.generate(0x9A, KeyAlgorithm.P_256)
    for container in (b"nonsense", tlv.encode(0x70, b"nonsense"), b"\x70\0\x71\1\1"):
        assert await host.put_object(0x5FFF01, container) == 0x9000
        assert await host.sw(0xF9, 0x9A, 0) == 0x6985
    assert await host.put_object(0x5FFF01, b"") == 0x9000
    assert await host.sw(0xF9, 0x9A, 0) == 0x6A88


async def test_an_attestation_key_that_cannot_sign() -> None:
    host = await provisioned()
    key = x25519.X25519PrivateKey.generate()
    assert await host.sw(0xFE, 0xE1, 0xF9, import_fields(key)) == 0x9000
    await host.generate(0x9A, KeyAlgorithm.P_256)
    assert await host.sw(0xF9, 0x9A, 0) == 0x6985
