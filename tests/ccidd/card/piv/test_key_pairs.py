# SPDX-License-Identifier: Apache-2.0
"""GENERATE ASYMMETRIC KEY PAIR (NIST SP 800-73-4, part 2, 3.3.2)."""

import threading

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from ccid_protocol import tlv
from ccidd.card.piv.references import RETIRED_KEYS, KeyReference
from ccidd.keys import generated
from ccidd.keys.key import KeyAlgorithm
from ccidd.keys.local import LocalPrivateKey
from credentials import credential, private_key
from piv import PivHost, administered, inserted, template_field

GENERATED = [0x9A, 0x9C, 0x9D, 0x9E]


@pytest.fixture
def ready_made_keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has keys that were made before; gives the threads in which they were asked for."""
    threads = []

    def generate_key(algorithm: KeyAlgorithm) -> LocalPrivateKey:
        threads.append(threading.current_thread().name)
        return private_key(algorithm, 0)

    monkeypatch.setattr(generated, "generate_key", generate_key)
    return threads


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
async def test_each_algorithm(algorithm: KeyAlgorithm, ready_made_keys: list[str]) -> None:
    host = await administered(legacy_rsa=True)
    key = await host.generate(0x9D, algorithm)
    assert key == private_key(algorithm, 0).public_key()
    assert ready_made_keys != [threading.current_thread().name]


async def test_a_key_signs_from_then_on() -> None:
    host = await administered()
    for _ in range(2):
        key = await host.generate(0x9E, KeyAlgorithm.P_256)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        for _ in range(2):
            response = await host.use(0x9E, bytes(range(32)), KeyAlgorithm.P_256)
            key.verify(
                template_field(response, 0x82),
                bytes(range(32)),
                ec.ECDSA(Prehashed(hashes.SHA256())),
            )
            await host.reinsert()
        assert await host.authenticate() == 0x9000


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        (KeyAlgorithm.RSA_2048, rsa.RSAPublicKey),
        (KeyAlgorithm.P_384, ec.EllipticCurvePublicKey),
        (KeyAlgorithm.ED25519, ed25519.Ed25519PublicKey),
        (KeyAlgorithm.X25519, x25519.X25519PublicKey),
    ],
)
async def test_keys_are_new(algorithm: KeyAlgorithm, kind: type) -> None:
    host = await administered()
    keys = [await host.generate(0x9D, algorithm) for _ in range(2)]
    assert all(isinstance(key, kind) for key in keys)
    assert keys[0] != keys[1]


async def test_the_response_is_that_of_the_standard(ready_made_keys: list[str]) -> None:
    host = await administered()
    response = await host.send("0047009A05AC0380010700")
    whole = response.data
    while response.sw >> 8 == 0x61:
        response = await host.send("00C0000000")
        whole += response.data
    key = private_key(KeyAlgorithm.RSA_2048, 0).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    numbers = key.public_numbers()
    assert whole == bytes.fromhex("7F4982010981820100") + numbers.n.to_bytes(256) + bytes.fromhex(
        "8203010001"
    )


async def test_a_generated_key_takes_the_place_of_a_configured_one() -> None:
    host = await inserted({KeyReference.CARD_AUTHENTICATION: credential(KeyAlgorithm.P_384)})
    assert await host.authenticate() == 0x9000
    await host.generate(0x9E, KeyAlgorithm.P_256)
    assert (await host.use(0x9E, bytes(32), KeyAlgorithm.P_384)).sw == 0x6A86
    assert (await host.use(0x9E, bytes(31) + b"\1", KeyAlgorithm.P_256)).sw == 0x9000


@pytest.mark.parametrize("reference", GENERATED)
async def test_only_the_administrator_generates(reference: int) -> None:
    host = await inserted(vendor_extensions=True)
    await host.verify()
    assert await host.sw(0x47, 0, reference, bytes.fromhex("AC03800111")) == 0x6982
    assert await host.sw(0x47, 0, reference, b"nonsense") == 0x6982


@pytest.mark.parametrize("reference", [*RETIRED_KEYS, 0xF9])
async def test_the_standard_has_no_retired_keys_generated(reference: int) -> None:
    host = await administered()
    assert await host.sw(0x47, 0, reference, bytes.fromhex("AC03800111")) == 0x6A86
    host = await administered(vendor_extensions=True)
    assert await host.sw(0x47, 0, reference, bytes.fromhex("AC03800111")) == 0x9000


@pytest.mark.parametrize(
    ("p1p2", "data", "sw"),
    [
        pytest.param("0004", "AC03800127", 0x6A86, id="secure messaging"),
        pytest.param("009B", "AC03800111", 0x6A86, id="the administration key"),
        pytest.param("0080", "AC03800111", 0x6A86, id="the PIN"),
        pytest.param("019A", "AC03800111", 0x6A86, id="P1"),
        pytest.param("009A", "AC03800106", 0x6A80, id="RSA-1024"),
        pytest.param("009A", "AC03800108", 0x6A80, id="AES"),
        pytest.param("009A", "AC03800127", 0x6A80, id="cipher suite"),
        pytest.param("009A", "AC0480021111", 0x6A80, id="two bytes"),
        pytest.param("009A", "AC028000", 0x6A80, id="no bytes"),
        pytest.param("009A", "AC00", 0x6A80, id="no mechanism"),
        pytest.param("009A", "800111", 0x6A80, id="no template"),
        pytest.param("009A", "AC058001118100", 0x9000, id="an empty parameter"),
        pytest.param("009A", "AC06800111810101", 0x6A80, id="a parameter for a curve"),
        pytest.param("009A", "AC0680010781 0103", 0x6A80, id="public exponent 3"),
        pytest.param("009A", "AC06800111AA0101", 0x6A80, id="a PIN policy"),
        pytest.param("009A", "", 0x6A80, id="nothing"),
    ],
)
async def test_refusals(p1p2: str, data: str, sw: int) -> None:
    host = await administered()
    p1, p2 = bytes.fromhex(p1p2)
    assert await host.sw(0x47, p1, p2, bytes.fromhex(data)) == sw


@pytest.mark.parametrize("exponent", ["010001", "00010001"])
async def test_the_usual_public_exponent_may_be_given(
    exponent: str, ready_made_keys: list[str]
) -> None:
    host = await administered()
    await host.generate(0x9A, KeyAlgorithm.RSA_2048, tlv.encode(0x81, bytes.fromhex(exponent)))


# The policies of the extensions


async def rules_of(host: PivHost, reference: int) -> tuple[int, int, int]:
    """Without a PIN, then twice with one."""

    async def use() -> int:
        return (await host.use(reference, bytes(31) + b"\1", KeyAlgorithm.P_256)).sw

    assert (await host.send("0020FF80")).sw == 0x9000
    without = await use()
    await host.verify()
    return without, await use(), await use()


NEVER = (0x9000, 0x9000, 0x9000)
ONCE = (0x6982, 0x9000, 0x9000)
ALWAYS = (0x6982, 0x9000, 0x6982)


@pytest.mark.parametrize(("policy", "rules"), [("01", NEVER), ("02", ONCE), ("03", ALWAYS)])
@pytest.mark.parametrize("reference", [*GENERATED, 0x82])
async def test_a_key_may_have_a_pin_policy_of_its_own(
    reference: int, policy: str, rules: tuple[int, int, int]
) -> None:
    host = await administered(vendor_extensions=True)
    await host.generate(
        reference, KeyAlgorithm.P_256, bytes.fromhex(f"AA01{policy}"), bytes.fromhex("AB0101")
    )
    assert await rules_of(host, reference) == rules


@pytest.mark.parametrize(
    ("reference", "rules"),
    [(0x9A, ONCE), (0x9C, ALWAYS), (0x9D, ONCE), (0x9E, NEVER), (0x95, ONCE)],
)
@pytest.mark.parametrize("policies", ["", "AA0100AB0100"])
async def test_the_default_policy_is_that_of_the_reference(
    reference: int, rules: tuple[int, int, int], policies: str
) -> None:
    host = await administered(vendor_extensions=True)
    await host.generate(reference, KeyAlgorithm.P_256, bytes.fromhex(policies))
    assert await rules_of(host, reference) == rules


@pytest.mark.parametrize(
    ("policies", "sw"),
    [
        pytest.param("AB0102", 0x6A81, id="touch always"),
        pytest.param("AB0103", 0x6A81, id="touch cached"),
        pytest.param("AA0104", 0x6A81, id="match once"),
        pytest.param("AA00", 0x6A80, id="an empty PIN policy"),
        pytest.param("AA020101", 0x6A80, id="two bytes"),
        pytest.param("AC00", 0x6A80, id="something else"),
    ],
)
async def test_policies_that_the_card_does_not_have(policies: str, sw: int) -> None:
    host = await administered(vendor_extensions=True)
    template = tlv.encode(0xAC, bytes.fromhex("800111"), bytes.fromhex(policies))
    assert await host.sw(0x47, 0, 0x9A, template) == sw
    assert await host.sw(0xF7, 0, 0x9A) == 0x6A88
