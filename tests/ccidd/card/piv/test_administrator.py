# SPDX-License-Identifier: Apache-2.0
"""Authentication of the administrator (NIST SP 800-73-4, part 2, 3.2.4, A.1 and A.2)."""

import secrets
from typing import Final

import pytest

from ccid_protocol import tlv
from ccidd.card.piv.management_key import (
    DEFAULT_MANAGEMENT_KEY,
    ManagementAlgorithm,
    ManagementKey,
)
from piv import MANAGEMENT_KEY, PivHost, administered, inserted, new_memory, template_field

# FIPS 197, appendix C, and NIST SP 800-67, B.1 (its first block).
AES_PLAINTEXT: Final = "00112233445566778899AABBCCDDEEFF"
VECTORS: Final = [
    pytest.param(
        ManagementAlgorithm.AES_128,
        "000102030405060708090A0B0C0D0E0F",
        AES_PLAINTEXT,
        "69C4E0D86A7B0430D8CDB78070B4C55A",
        id="AES-128",
    ),
    pytest.param(
        ManagementAlgorithm.AES_192,
        "000102030405060708090A0B0C0D0E0F1011121314151617",
        AES_PLAINTEXT,
        "DDA97CA4864CDFE06EAF70A0EC0D7191",
        id="AES-192",
    ),
    pytest.param(
        ManagementAlgorithm.AES_256,
        "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
        AES_PLAINTEXT,
        "8EA2B7CA516745BFEAFC49904B496089",
        id="AES-256",
    ),
    pytest.param(
        ManagementAlgorithm.TDES,
        "0123456789ABCDEF23456789ABCDEF01456789ABCDEF0123",
        "5468652071756663",
        "A826FD8CE53B855F",
        id="3DES",
    ),
]


async def with_key(algorithm: ManagementAlgorithm, key: str) -> PivHost:
    memory = new_memory()
    value = ManagementKey(algorithm, bytes.fromhex(key)).encode()
    await memory.store({"piv/management-key": value})
    return await inserted(memory=memory)


async def is_administrator(host: PivHost) -> bool:
    return await host.put_object(0x5FC103, b"") == 0x9000


# Known answers


@pytest.mark.parametrize(("algorithm", "key", "plaintext", "ciphertext"), VECTORS)
async def test_external_authentication_with_known_answers(
    monkeypatch: pytest.MonkeyPatch,
    algorithm: ManagementAlgorithm,
    key: str,
    plaintext: str,
    ciphertext: str,
) -> None:
    monkeypatch.setattr(secrets, "token_bytes", lambda _: bytes.fromhex(plaintext))
    host = await with_key(algorithm, key)
    size = len(plaintext) // 2
    begun = await host.send(f"0087{algorithm:02X}9B047C02810000")
    assert begun.data.hex().upper() == f"7C{size + 2:02X}81{size:02X}{plaintext}"
    answer = f"7C{size + 2:02X}82{size:02X}{ciphertext}"
    ended = await host.send(f"0087{algorithm:02X}9B{size + 4:02X}{answer}00")
    assert (ended.data, ended.sw) == (b"", 0x9000)
    assert await is_administrator(host)


@pytest.mark.parametrize(("algorithm", "key", "plaintext", "ciphertext"), VECTORS)
async def test_mutual_authentication_with_known_answers(
    monkeypatch: pytest.MonkeyPatch,
    algorithm: ManagementAlgorithm,
    key: str,
    plaintext: str,
    ciphertext: str,
) -> None:
    monkeypatch.setattr(secrets, "token_bytes", lambda _: bytes.fromhex(plaintext))
    size = len(plaintext) // 2
    for asked in ("8200", ""):
        host = await with_key(algorithm, key)
        begun = await host.send(f"0087{algorithm:02X}9B047C02800000")
        assert begun.data.hex().upper() == f"7C{size + 2:02X}80{size:02X}{ciphertext}"
        fields = bytes.fromhex(f"80{size:02X}{plaintext}81{size:02X}{plaintext}{asked}")
        ended = await host.command(0x87, algorithm, 0x9B, tlv.encode(0x7C, fields))
        assert template_field(ended, 0x82).hex().upper() == ciphertext
        assert await is_administrator(host)


async def test_triple_des_has_two_numbers() -> None:
    host = await with_key(ManagementAlgorithm.TDES, "0123456789ABCDEF" * 3)
    key = host.memory.contents["piv/management-key"]
    begun = await host.send("0087009B047C02810000")
    answer = ManagementKey.decode(key).encrypt(begun.data[4:])
    assert (await host.send(f"0087039B0C7C0A8208{answer.hex()}")).sw == 0x9000


# What fails


async def test_a_wrong_answer_ends_an_earlier_authentication() -> None:
    host = await administered()
    assert await is_administrator(host)
    wrong = ManagementKey(ManagementAlgorithm.AES_128, bytes(16))
    assert await host.authenticate(wrong) == 0x6982
    assert not await is_administrator(host)
    # There is no counter: another try may succeed.
    assert await host.authenticate() == 0x9000


async def test_a_wrong_witness_is_answered_with_nothing() -> None:
    host = await inserted()
    await host.general_authenticate(0x08, 0x9B, tlv.encode(0x80))
    fields = tlv.encode(0x80, bytes(16)) + tlv.encode(0x81, bytes(16))
    ended = await host.general_authenticate(0x08, 0x9B, fields)
    assert (ended.data, ended.sw) == (b"", 0x6982)
    assert not await is_administrator(host)


async def test_a_challenge_is_good_for_one_answer() -> None:
    host = await inserted()
    begun = await host.general_authenticate(0x08, 0x9B, tlv.encode(0x81))
    answer = tlv.encode(0x82, MANAGEMENT_KEY.encrypt(template_field(begun, 0x81)))
    assert (await host.general_authenticate(0x08, 0x9B, answer)).sw == 0x9000
    assert (await host.general_authenticate(0x08, 0x9B, answer)).sw == 0x6982
    assert not await is_administrator(host)


async def test_an_answer_without_a_challenge_fails() -> None:
    host = await inserted()
    answer = tlv.encode(0x82, bytes(16))
    assert (await host.general_authenticate(0x08, 0x9B, answer)).sw == 0x6982


async def test_the_answer_to_one_protocol_is_none_to_the_other() -> None:
    host = await inserted()
    begun = await host.general_authenticate(0x08, 0x9B, tlv.encode(0x80))
    witness = MANAGEMENT_KEY.decrypt(template_field(begun, 0x80))
    answer = tlv.encode(0x82, witness)
    assert (await host.general_authenticate(0x08, 0x9B, answer)).sw == 0x6982
    begun = await host.general_authenticate(0x08, 0x9B, tlv.encode(0x81))
    encrypted = MANAGEMENT_KEY.encrypt(template_field(begun, 0x81))
    fields = tlv.encode(0x80, encrypted) + tlv.encode(0x81, bytes(16))
    assert (await host.general_authenticate(0x08, 0x9B, fields)).sw == 0x6982


async def test_the_card_does_not_answer_its_own_challenge() -> None:
    host = await inserted()
    begun = await host.general_authenticate(0x08, 0x9B, tlv.encode(0x81))
    challenge = tlv.encode(0x81, template_field(begun, 0x81))
    for fields in (challenge, challenge + tlv.encode(0x82)):
        assert (await host.general_authenticate(0x08, 0x9B, fields)).sw == 0x6982


async def test_the_administrator_has_the_card_authenticate_itself() -> None:
    host = await administered()
    challenge = bytes(range(16))
    response = await host.general_authenticate(
        0x08, 0x9B, tlv.encode(0x81, challenge), tlv.encode(0x82)
    )
    assert template_field(response, 0x82) == MANAGEMENT_KEY.encrypt(challenge)


async def test_a_malformed_end_of_a_mutual_authentication_gives_nothing() -> None:
    host = await inserted()
    begun = await host.general_authenticate(0x08, 0x9B, tlv.encode(0x80))
    witness = MANAGEMENT_KEY.decrypt(template_field(begun, 0x80))
    fields = tlv.encode(0x80, witness) + tlv.encode(0x81, bytes(15))
    assert (await host.general_authenticate(0x08, 0x9B, fields)).sw == 0x6A80
    assert not await is_administrator(host)


@pytest.mark.parametrize(
    ("algorithm", "template", "sw"),
    [
        pytest.param(0x11, "7C028100", 0x6A86, id="no symmetric algorithm"),
        pytest.param(0x0A, "7C028000", 0x6A86, id="witness, not the key's algorithm"),
        pytest.param(0x0A, "7C12" + "8210" + "00" * 16, 0x6A86, id="answer, not its algorithm"),
        pytest.param(0x08, "", 0x6A80, id="no template"),
        pytest.param(0x08, "7C00", 0x6A80, id="empty template"),
        pytest.param(0x08, "7C028300", 0x6A80, id="another data object"),
        pytest.param(0x08, "7C0480008100", 0x6982, id="an empty witness is a wrong one"),
        pytest.param(0x08, "7C038100", 0x6A80, id="broken template"),
    ],
)
async def test_refusals(algorithm: int, template: str, sw: int) -> None:
    host = await inserted()
    assert await host.sw(0x87, algorithm, 0x9B, bytes.fromhex(template)) == sw
    assert not await is_administrator(host)


# Random numbers


@pytest.mark.parametrize(("algorithm", "size"), [("00", 8), ("03", 8), ("08", 16), ("0C", 16)])
@pytest.mark.parametrize("has_key", [False, True])
async def test_a_challenge_is_random_whatever_the_algorithm(
    algorithm: str,
    size: int,
    has_key: bool,  # noqa: FBT001 (a parameter)
) -> None:
    memory = new_memory()
    if not has_key:
        await memory.store({"piv/management-key": None})
    host = await inserted(memory=memory)
    challenges = set()
    for _ in range(2):
        response = await host.send(f"0087{algorithm}9B047C02810000")
        assert response.data[:4] == bytes([0x7C, size + 2, 0x81, size])
        assert (len(response.data), response.sw) == (size + 4, 0x9000)
        challenges.add(response.data)
    assert len(challenges) == 2


async def test_without_a_key_there_is_no_administrator() -> None:
    memory = new_memory()
    await memory.store({"piv/management-key": None})
    host = await inserted(memory=memory)
    assert await host.authenticate() == 0x6982
    assert (await host.general_authenticate(0x08, 0x9B, tlv.encode(0x80))).sw == 0x6982


# The key itself


def test_a_management_key_tells_nothing_of_itself() -> None:
    secret = DEFAULT_MANAGEMENT_KEY.key
    assert secret.hex() not in repr(DEFAULT_MANAGEMENT_KEY)
    assert repr(secret) not in repr(DEFAULT_MANAGEMENT_KEY)
    with pytest.raises(ValueError, match="a key of 24 bytes for AES_128") as refused:
        ManagementKey(ManagementAlgorithm.AES_128, secret)
    assert secret.hex() not in str(refused.value)


@pytest.mark.parametrize("algorithm", ManagementAlgorithm)
def test_a_management_key_is_stored_with_its_algorithm(algorithm: ManagementAlgorithm) -> None:
    key = ManagementKey.generate(algorithm)
    assert ManagementKey.decode(key.encode()) == key
    assert key != ManagementKey.generate(algorithm)
    block = bytes(range(algorithm.block_size))
    assert key.decrypt(key.encrypt(block)) == block
