# SPDX-License-Identifier: Apache-2.0
"""SELECT, and the card around the application (NIST SP 800-73-4, part 2, 3.1.1)."""

import pytest

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.errors import UserError
from ccidd.keys.key import KeyAlgorithm
from credentials import credential
from memory import VolatileMemory
from piv import inserted, new_memory


@pytest.mark.parametrize("aid", ["A000000308000010000100", "A00000030800001000", "A000000308"])
async def test_select_by_full_and_truncated_identifier(aid: str) -> None:
    host = await inserted()
    response = await host.send(CommandAPDU(0, 0xA4, 4, 0, bytes.fromhex(aid), 256))
    assert response.sw == 0x9000
    (template,) = tlv.decode(response.data)
    assert template.tag == 0x61
    properties = tlv.decode_to_dict(template.value)
    assert properties[0x4F] == bytes.fromhex("000010000100")
    assert properties[0x79] == bytes.fromhex("4F05A000000308")


@pytest.mark.parametrize(
    ("legacy_rsa", "algorithms"), [(False, "07051611 14E0E1"), (True, "0607051611 14E0E1")]
)
async def test_the_application_tells_its_algorithms(legacy_rsa: bool, algorithms: str) -> None:  # noqa: FBT001 (a parameter)
    host = await inserted(legacy_rsa=legacy_rsa)
    response = await host.send("00A4040009A0000003080000100000")
    (template,) = tlv.decode(response.data)
    objects = list(tlv.decode(tlv.decode_to_dict(template.value)[0xAC]))
    assert [(o.tag, o.value.hex()) for o in objects[-1:]] == [(0x06, "00")]
    assert b"".join(o.value for o in objects[:-1]) == bytes.fromhex(algorithms)


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
    host = await inserted()
    await host.verify()
    assert await host.authenticate() == 0x9000
    assert (await host.send(CommandAPDU(0, 0xA4, 4, 0, bytes.fromhex(aid), 256))).sw == 0x6A82
    # The application stays selected, and its security status as it is.
    assert await host.pin_status() == 0x9000
    assert await host.put_object(0x5FC103, b"") == 0x9000


async def test_selecting_the_application_again_keeps_its_security_status() -> None:
    host = await inserted()
    await host.verify()
    assert await host.authenticate() == 0x9000
    await host.select()
    assert await host.pin_status() == 0x9000
    assert await host.put_object(0x5FC103, b"") == 0x9000


async def test_power_off_ends_the_security_status() -> None:
    host = await inserted()
    await host.verify()
    assert await host.authenticate() == 0x9000
    await host.reinsert()
    assert await host.pin_status() == 0x63C3
    assert await host.put_object(0x5FC103, b"") == 0x6982


async def test_the_atr_names_piv() -> None:
    atr = await piv_card({}, new_memory()).power_on()
    assert atr.historical == bytes.fromhex("80F9A00000030800001000")
    assert atr.protocols == (0, 1)
    assert atr.encode()[1] & 0xF0 != 0x80


@pytest.mark.parametrize("ins", ["84", "CA", "F6", "F7", "F8", "F9", "FA", "FB", "FD", "FE", "FF"])
async def test_instructions_that_the_standard_does_not_have(ins: str) -> None:
    host = await inserted()
    assert await host.authenticate() == 0x9000
    assert (await host.send(f"00{ins}0000")).sw == 0x6D00


async def test_data_are_not_found_before_the_application_is_selected() -> None:
    card = piv_card({}, new_memory())
    await card.power_on()
    assert await card.transmit(bytes.fromhex("00CB3FFF035C017E00")) == b"\x6a\x82"


def test_a_card_needs_an_identity() -> None:
    memory = VolatileMemory(new_memory()._pins)
    with pytest.raises(UserError, match="neither keys nor an identity"):
        piv_card({}, memory)
    piv_card({KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256)}, memory)


def test_a_key_that_is_too_weak_is_refused_where_it_is_configured() -> None:
    keys = {KeyReference.AUTHENTICATION: credential(KeyAlgorithm.RSA_1024)}
    with pytest.raises(UserError, match="RSA-1024 is too weak"):
        piv_card(keys, new_memory())
    piv_card(keys, new_memory(), legacy_rsa=True)
