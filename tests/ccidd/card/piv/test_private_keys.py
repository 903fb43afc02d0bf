# SPDX-License-Identifier: Apache-2.0
"""GENERAL AUTHENTICATE with the asymmetric keys (NIST SP 800-73-4, part 2, 3.2.4, A.3 to A.5)."""

import pytest
import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccidd.card.piv.references import RETIRED_KEYS, KeyReference
from ccidd.keys.key import Credential, EcKey, KeyAlgorithm, KeyUnavailableError
from credentials import credential
from piv import PivHost, administered, inserted, template_field

CARD_AUTHENTICATION = KeyReference.CARD_AUTHENTICATION
P_256_DIGEST = bytes(range(32))


async def with_key(
    algorithm: KeyAlgorithm, reference: KeyReference = CARD_AUTHENTICATION
) -> PivHost:
    host = await inserted({reference: credential(algorithm)}, legacy_rsa=True)
    await host.verify()
    return host


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P_256, KeyAlgorithm.P_384])
async def test_sign_with_ecdsa(algorithm: KeyAlgorithm) -> None:
    host = await with_key(algorithm)
    hash_algorithm = hashes.SHA256() if algorithm is KeyAlgorithm.P_256 else hashes.SHA384()
    digest = bytes(range(hash_algorithm.digest_size))
    response = await host.use(CARD_AUTHENTICATION, digest, algorithm)
    key = credential(algorithm).key.public_key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(template_field(response, 0x82), digest, ec.ECDSA(Prehashed(hash_algorithm)))


@pytest.mark.parametrize("message", [b"m", bytes(40000)], ids=["short", "long"])
async def test_sign_with_ed25519(message: bytes) -> None:
    host = await with_key(KeyAlgorithm.ED25519)
    response = await host.use(CARD_AUTHENTICATION, message, KeyAlgorithm.ED25519)
    key = credential(KeyAlgorithm.ED25519).key.public_key
    assert isinstance(key, ed25519.Ed25519PublicKey)
    key.verify(template_field(response, 0x82), message)


@pytest.mark.parametrize(
    "algorithm",
    [
        KeyAlgorithm.RSA_1024,
        KeyAlgorithm.RSA_2048,
        KeyAlgorithm.RSA_3072,
        KeyAlgorithm.RSA_4096,
    ],
)
async def test_rsa_decrypts_a_whole_block(algorithm: KeyAlgorithm) -> None:
    key = credential(algorithm).key.public_key
    assert isinstance(key, rsa.RSAPublicKey)
    host = await with_key(algorithm)
    ciphertext = key.encrypt(b"secret", padding.PKCS1v15())
    block = template_field(await host.use(CARD_AUTHENTICATION, ciphertext, algorithm), 0x82)
    assert len(block) == len(ciphertext)
    assert block.startswith(b"\0\2")
    assert block.endswith(b"\0secret")


async def test_a_chained_command_signs_like_an_extended_one() -> None:
    host = await with_key(KeyAlgorithm.RSA_2048, KeyReference.SIGNATURE)
    key = credential(KeyAlgorithm.RSA_2048).key.public_key
    assert isinstance(key, rsa.RSAPublicKey)
    block = (
        b"\0\1"
        + b"\xff" * 202
        + b"\0"
        + bytes.fromhex("3031300d060960864801650304020105000420")
        + bytes(32)
    )
    template = tlv.encode(0x7C, tlv.encode(0x82), tlv.encode(0x81, block))
    assert (await host.send(CommandAPDU(0x10, 0x87, 0x07, 0x9C, template[:200]))).sw == 0x9000
    first = await host.send(CommandAPDU(0, 0x87, 0x07, 0x9C, template[200:]))
    assert (first.data, first.sw) == (b"", 0x6100)
    start = await host.send("00C0000000")
    rest = await host.send(CommandAPDU(0, 0xC0, 0, 0, ne=start.sw & 0xFF))
    signature = template_field(ResponseAPDU(start.data + rest.data, rest.sw), 0x82)
    key.verify(signature, bytes(32), padding.PKCS1v15(), Prehashed(hashes.SHA256()))


@pytest.mark.parametrize(
    ("algorithm", "curve"),
    [(KeyAlgorithm.P_256, ec.SECP256R1()), (KeyAlgorithm.P_384, ec.SECP384R1())],
)
async def test_agree_with_ecdh(algorithm: KeyAlgorithm, curve: ec.EllipticCurve) -> None:
    host = await with_key(algorithm, KeyReference.KEY_MANAGEMENT)
    key = credential(algorithm).key.public_key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    ours = ec.generate_private_key(curve)
    point = ours.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    response = await host.use(KeyReference.KEY_MANAGEMENT, point, algorithm, tag=0x85)
    assert template_field(response, 0x82) == ours.exchange(ec.ECDH(), key)


async def test_agree_with_x25519() -> None:
    host = await with_key(KeyAlgorithm.X25519, KeyReference.KEY_MANAGEMENT)
    key = credential(KeyAlgorithm.X25519).key.public_key
    assert isinstance(key, x25519.X25519PublicKey)
    ours = x25519.X25519PrivateKey.generate()
    public = ours.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    response = await host.use(KeyReference.KEY_MANAGEMENT, public, KeyAlgorithm.X25519, tag=0x85)
    assert template_field(response, 0x82) == ours.exchange(key)


@pytest.mark.parametrize(
    "reference", [KeyReference.AUTHENTICATION, KeyReference.SIGNATURE, CARD_AUTHENTICATION]
)
async def test_the_standard_agrees_with_no_key_for_signing(reference: KeyReference) -> None:
    point = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    host = await with_key(KeyAlgorithm.P_256, reference)
    assert (await host.use(reference, point, KeyAlgorithm.P_256, tag=0x85)).sw == 0x6A80
    host = await administered(vendor_extensions=True)
    await host.generate(reference, KeyAlgorithm.P_256)
    await host.verify()
    assert (await host.use(reference, point, KeyAlgorithm.P_256, tag=0x85)).sw == 0x9000


async def test_each_key_has_its_rule_for_the_pin() -> None:
    host = await inserted({reference: credential(KeyAlgorithm.P_256) for reference in KeyReference})

    async def use(reference: KeyReference) -> int:
        return (await host.use(reference, P_256_DIGEST, KeyAlgorithm.P_256)).sw

    for reference in KeyReference:
        assert await use(reference) == (0x9000 if reference is CARD_AUTHENTICATION else 0x6982)
    await host.verify()
    once = [KeyReference.AUTHENTICATION, KeyReference.KEY_MANAGEMENT, *RETIRED_KEYS]
    for reference in [*once, *once]:
        assert await use(reference) == 0x9000
    assert await use(KeyReference.SIGNATURE) == 0x6982
    await host.verify()
    assert await use(KeyReference.SIGNATURE) == 0x9000
    assert await use(KeyReference.SIGNATURE) == 0x6982


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        pytest.param("0087119E00", 0x6A80, id="no template"),
        pytest.param("0087119E047C02820000", 0x6A80, id="nothing to sign"),
        pytest.param("0087119E067C04820081 0000", 0x6A80, id="empty challenge"),
        pytest.param("0087119E037C058100", 0x6A80, id="broken template"),
        pytest.param("0087119E067C04810182 00", 0x6A80, id="broken inside"),
        pytest.param("0087119E087C06820101810111", 0x6A80, id="a response that is given"),
        pytest.param("0087119E087C06810111800101", 0x6A80, id="a witness"),
        pytest.param("0087119E257C23812111" + "11" * 32, 0x6A80, id="hash longer than the field"),
        pytest.param("0087079E047C02810100", 0x6A86, id="the key has another algorithm"),
        pytest.param("00871182047C02810100", 0x6A86, id="no such key"),
        pytest.param("00871181047C02810100", 0x6A86, id="no key at all"),
        pytest.param("008711F9047C02810100", 0x6A86, id="the attestation key"),
        pytest.param("00872704047C02810100", 0x6A86, id="secure messaging"),
    ],
)
async def test_refusals(command: str, sw: int) -> None:
    host = await inserted({CARD_AUTHENTICATION: credential(KeyAlgorithm.P_256)})
    assert (await host.send(command)).sw == sw


async def test_blocks_and_points_that_a_key_cannot_take() -> None:
    host = await with_key(KeyAlgorithm.RSA_2048)
    for block in (bytes(255), bytes(257), b"\xff" * 256):
        response = await host.use(CARD_AUTHENTICATION, block, KeyAlgorithm.RSA_2048)
        assert response.sw == 0x6A80
    for algorithm, point in (
        (KeyAlgorithm.P_256, b"\4" + bytes(64)),
        (KeyAlgorithm.X25519, bytes(32)),
        (KeyAlgorithm.X25519, b"\1"),
    ):
        host = await with_key(algorithm, KeyReference.KEY_MANAGEMENT)
        response = await host.use(KeyReference.KEY_MANAGEMENT, point, algorithm, tag=0x85)
        assert response.sw == 0x6A80


@pytest.mark.parametrize(
    ("algorithm", "tag"),
    [(KeyAlgorithm.X25519, 0x81), (KeyAlgorithm.ED25519, 0x85), (KeyAlgorithm.RSA_2048, 0x85)],
)
async def test_keys_do_only_what_they_can(algorithm: KeyAlgorithm, tag: int) -> None:
    host = await with_key(algorithm, KeyReference.KEY_MANAGEMENT)
    response = await host.use(KeyReference.KEY_MANAGEMENT, bytes(32), algorithm, tag=tag)
    assert response.sw == 0x6A80


async def test_a_key_that_is_gone_is_told_and_logged() -> None:
    class Gone(EcKey):
        async def sign_hash(self, digest: bytes) -> bytes:
            raise KeyUnavailableError("the token was pulled out")

        async def agree(self, point: bytes) -> bytes:
            raise KeyUnavailableError("the token was pulled out")

    known = credential(KeyAlgorithm.P_256)
    assert isinstance(known.key.public_key, ec.EllipticCurvePublicKey)
    gone = Credential(Gone(known.key.public_key), known.certificate)
    host = await inserted({CARD_AUTHENTICATION: gone})
    with structlog.testing.capture_logs() as logs:
        response = await host.use(CARD_AUTHENTICATION, P_256_DIGEST, KeyAlgorithm.P_256)
    assert response.sw == 0x6F00
    (entry,) = logs
    assert (entry["event"], entry["reason"]) == ("key_unavailable", "the token was pulled out")
