# SPDX-License-Identifier: Apache-2.0
"""What new cards come with, and what the card's memory holds."""

import datetime as dt
import uuid

import pytest

from ccid_protocol import tlv
from ccidd.card.piv.management_key import ManagementKey
from ccidd.card.piv.personalisation import (
    certificate_contents,
    factory_contents,
    key_contents,
)
from ccidd.card.piv.records import KeyRecord
from ccidd.card.piv.references import KeyReference, Origin, PinPolicy
from ccidd.keys.key import KeyAlgorithm
from credentials import credential, private_key
from memory import VolatileMemory
from piv import MANAGEMENT_KEY, inserted, new_memory, template_field


async def test_a_card_made_with_keys_has_them() -> None:
    memory = new_memory()
    reference = KeyReference.CARD_AUTHENTICATION
    known = credential(KeyAlgorithm.ED25519)
    await memory.store(key_contents(reference, private_key(KeyAlgorithm.ED25519, 0)))
    await memory.store(certificate_contents(reference, known.certificate))
    host = await inserted(memory=memory)
    response = await host.use(reference, b"message", KeyAlgorithm.ED25519)
    private = private_key(KeyAlgorithm.ED25519, 0)
    assert template_field(response, 0x82) == private.sign(b"message")  # type: ignore[union-attr, call-arg] # Ed25519 has it so
    container = tlv.decode_to_dict(await host.get_object(0x5FC101))
    assert container[0x70] == known.certificate_der()


def test_the_rule_for_the_pin_is_that_of_the_reference_unless_another_is_chosen() -> None:
    key = private_key(KeyAlgorithm.P_256, 0)
    (by_reference,) = key_contents(KeyReference.SIGNATURE, key).values()
    assert KeyRecord.decode(by_reference).pin_policy is PinPolicy.ALWAYS
    assert KeyRecord.decode(by_reference).origin is Origin.IMPORTED
    (chosen,) = key_contents(0x9C, key, Origin.GENERATED, PinPolicy.ONCE).values()
    assert chosen[:2] == b"\1\2"


async def test_guid_and_last_day_may_be_chosen() -> None:
    guid = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")
    contents = factory_contents(None, guid=guid, expires=dt.date(2031, 2, 28))
    assert "piv/management-key" not in contents
    memory = VolatileMemory(new_memory()._pins)
    await memory.store(contents)
    chuid = tlv.decode_to_dict(await (await inserted(memory=memory)).get_object(0x5FC102))
    assert (chuid[0x34], chuid[0x35]) == (guid.bytes, b"20310228")


def test_a_new_card_is_valid_for_ten_years() -> None:
    expires = dt.datetime.strptime(
        factory_contents(None)["piv/expires"].decode(), "%Y%m%d"
    ).astimezone(dt.UTC)
    assert 3640 < (expires - dt.datetime.now(dt.UTC)).days < 3660


@pytest.mark.parametrize("attestation", [False, True])
def test_the_names_are_those_that_are_documented(attestation: bool) -> None:  # noqa: FBT001 (a parameter)
    names = {
        "piv/guid",
        "piv/expires",
        "piv/management-key",
        "piv/content-signing-key",
        "piv/content-signing-certificate",
    }
    more = {"piv/key/F9", "piv/object/5FFF01"}
    contents = factory_contents(MANAGEMENT_KEY, attestation=attestation)
    assert set(contents) == (names | more if attestation else names)
    assert ManagementKey.decode(contents["piv/management-key"]) == MANAGEMENT_KEY


def test_a_stored_key_tells_nothing_of_itself() -> None:
    (value,) = key_contents(0x9A, private_key(KeyAlgorithm.P_256, 0)).values()
    record = KeyRecord.decode(value)
    assert record.encode() == value
    assert "der" not in repr(record)
    assert value[2:].hex() not in repr(record)
