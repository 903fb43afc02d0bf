# SPDX-License-Identifier: Apache-2.0
"""VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER (NIST SP 800-73-4, part 2, 3.2.1 to 3.2.3)."""

import pytest
import trio

from ccid_protocol import tlv
from ccidd.card.piv.application import PivApplication
from ccidd.card.piv.options import PivOptions
from ccidd.keys.key import KeyAlgorithm
from memory import VolatileMemory, VolatilePin
from piv import GLOBAL_PIN, PIN, PUK, WRONG, PivHost, administered, inserted, new_memory

NEW_PIN = b"87654321"
NEW_PUK = bytes(range(0xF8, 0x100))
MALFORMED = [
    pytest.param(b"12345\xff\xff\xff", id="5 digits"),
    pytest.param(b"12345a\xff\xff", id="a letter"),
    pytest.param(b"123\xff456\xff", id="FF in between"),
    pytest.param(b"123456\0\0", id="filled up with 00"),
    pytest.param(b"\xff" * 8, id="empty"),
]
DISCOVERY_GLOBAL = "4F0BA0000003080000100001005F2F026010"


async def allow_global_pin(host: PivHost) -> None:
    discovery = tlv.encode(0x7E, bytes.fromhex(DISCOVERY_GLOBAL))
    assert await host.authenticate() == 0x9000
    assert await host.sw(0xDB, 0x3F, 0xFF, discovery) == 0x9000


# VERIFY


async def test_verify_opens_and_ff_closes() -> None:
    host = await inserted()
    assert await host.pin_status() == 0x63C3
    assert await host.verify() == 0x9000
    assert await host.pin_status() == 0x9000
    assert (await host.send("0020008000")).sw == 0x9000
    assert (await host.send("0020FF80")).sw == 0x9000
    assert await host.pin_status() == 0x63C3


async def test_power_off_closes() -> None:
    host = await inserted()
    await host.verify()
    await host.reinsert()
    assert await host.pin_status() == 0x63C3


async def test_three_wrong_pins_block() -> None:
    host = await inserted()
    assert [await host.verify(WRONG) for _ in range(4)] == [0x63C2, 0x63C1, 0x63C0, 0x6983]
    assert await host.verify() == 0x6983
    assert await host.pin_status() == 0x6983
    assert await host.verify(b"nonsense") == 0x6983


@pytest.mark.parametrize("pin", [pytest.param(b"123456", id="too short"), *MALFORMED])
async def test_what_is_no_pin_costs_no_try_and_ends_nothing(pin: bytes) -> None:
    host = await inserted()
    await host.verify()
    assert await host.verify(pin) == 0x6A80
    assert await host.pin_status() == 0x9000


@pytest.mark.parametrize("pin", MALFORMED)
async def test_with_the_extensions_what_is_no_pin_is_a_wrong_one(pin: bytes) -> None:
    host = await inserted(vendor_extensions=True)
    await host.verify()
    assert await host.verify(pin) == 0x63C2
    assert await host.pin_status() == 0x63C2
    assert await host.verify(b"123456") == 0x6A80
    assert await host.pin_status() == 0x63C2


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        pytest.param("00200000", 0x6A88, id="the global PIN is not used"),
        pytest.param("00200081", 0x6A88, id="the PUK is not verified"),
        pytest.param("00200096", 0x6A88, id="fingerprint"),
        pytest.param("00200098", 0x6A88, id="pairing code"),
        pytest.param("00200180", 0x6A86, id="P1"),
        pytest.param("0020FF8008313233343536FFFF", 0x6A80, id="P1 FF with a PIN"),
    ],
)
async def test_verify_refusals(command: str, sw: int) -> None:
    assert (await (await inserted()).send(command)).sw == sw


# The global PIN


async def test_the_discovery_object_decides_whether_the_global_pin_counts() -> None:
    host = await inserted()
    assert await host.pin_status(0x00) == 0x6A88
    assert await host.sw(0x24, 0, 0x00, GLOBAL_PIN + NEW_PIN) == 0x6A88
    await allow_global_pin(host)
    assert await host.pin_status(0x00) == 0x63C3
    assert await host.verify(WRONG, 0x00) == 0x63C2
    assert await host.verify(GLOBAL_PIN, 0x00) == 0x9000
    assert await host.put_object(0x5FC109, b"\x01\x00") == 0x9000
    assert await host.get_object(0x5FC109) == b"\x01\x00"
    # Each PIN has a status of its own.
    assert await host.pin_status() == 0x63C3
    assert await host.sw(0xDB, 0x3F, 0xFF, tlv.encode(0x7E)) == 0x9000
    assert await host.pin_status(0x00) == 0x6A88
    assert (await host.get_data(0x5FC109)).sw == 0x6982


async def test_the_global_pin_is_changed_like_the_other() -> None:
    host = await inserted()
    await allow_global_pin(host)
    assert await host.sw(0x24, 0, 0x00, GLOBAL_PIN + NEW_PIN) == 0x9000
    assert await host.verify(GLOBAL_PIN, 0x00) == 0x63C2
    assert await host.verify(NEW_PIN, 0x00) == 0x9000
    await host.reinsert()
    assert await host.pin_status(0x00) == 0x63C3


async def test_a_global_pin_that_was_never_set_is_blocked() -> None:
    memory = new_memory()
    memory._pins = {**memory._pins, 0x00: VolatilePin(b"", 0)}
    host = await inserted(memory=memory)
    await allow_global_pin(host)
    assert await host.pin_status(0x00) == 0x6983
    assert await host.verify(GLOBAL_PIN, 0x00) == 0x6983
    assert await host.verify() == 0x9000


async def test_another_application_ends_the_pin_but_not_the_global_one() -> None:
    application = PivApplication({}, new_memory(), PivOptions())
    pins = application._pins
    pins.application.verified = pins._global.verified = True
    application.deselect()
    assert not pins.application.verified
    assert pins._global.verified
    application.reset()
    assert not pins._global.verified


# CHANGE REFERENCE DATA


async def test_the_cardholder_changes_the_pin() -> None:
    host = await inserted()
    await host.verify(WRONG)
    assert await host.sw(0x24, 0, 0x80, PIN + NEW_PIN) == 0x9000
    assert await host.pin_status() == 0x9000
    assert await host.verify(PIN) == 0x63C2
    assert await host.verify(NEW_PIN) == 0x9000


async def test_the_puk_is_changed_to_any_bytes() -> None:
    host = await inserted()
    assert await host.sw(0x24, 0, 0x81, PUK + NEW_PUK) == 0x9000
    assert await host.sw(0x2C, 0, 0x80, PUK + NEW_PIN) == 0x63C2
    assert await host.sw(0x2C, 0, 0x80, NEW_PUK + NEW_PIN) == 0x9000


@pytest.mark.parametrize("reference", [0x80, 0x81])
async def test_a_wrong_value_changes_nothing_and_blocks_in_the_end(reference: int) -> None:
    host = await inserted()
    await host.verify()
    data = WRONG + NEW_PIN
    sws = [await host.sw(0x24, 0, reference, data) for _ in range(4)]
    assert sws == [0x63C2, 0x63C1, 0x63C0, 0x6983]
    assert await host.sw(0x24, 0, reference, b"too short") == 0x6983
    assert await host.pin_status() == (0x6983 if reference == 0x80 else 0x9000)


@pytest.mark.parametrize("pin", MALFORMED)
async def test_a_malformed_pin_is_not_compared(pin: bytes) -> None:
    host = await inserted()
    await host.verify()
    for data in (pin + NEW_PIN, PIN + pin, WRONG + pin, PIN + NEW_PIN + b"\xff", PIN):
        assert await host.sw(0x24, 0, 0x80, data) == 0x6A80
    assert await host.pin_status() == 0x9000
    assert await host.verify() == 0x9000


@pytest.mark.parametrize(
    ("p1", "p2", "sw"), [(0x00, 0x82, 0x6A88), (0x00, 0x9B, 0x6A88), (0x01, 0x80, 0x6A86)]
)
async def test_change_reference_data_refusals(p1: int, p2: int, sw: int) -> None:
    assert await (await inserted()).sw(0x24, p1, p2, PIN + NEW_PIN) == sw


async def test_a_host_that_goes_away_after_the_comparison_leaves_a_change_whole() -> None:
    class Cancelling(VolatilePin):
        async def compare(self, candidate: bytes) -> bool:
            host_is_there.cancel()
            return await super().compare(candidate)

    memory = new_memory()
    memory._pins = {**memory._pins, 0x80: Cancelling(PIN)}
    host = await inserted(memory=memory)
    with trio.CancelScope() as host_is_there:
        await host.sw(0x24, 0, 0x80, PIN + NEW_PIN)
    assert await memory.pin(0x80).tries_left() == 3
    with trio.CancelScope() as host_is_there:
        await host.verify(NEW_PIN)
    assert await host.pin_status() == 0x9000


# RESET RETRY COUNTER


async def test_the_puk_gives_a_blocked_pin_a_new_value() -> None:
    host = await inserted()
    for _ in range(3):
        await host.verify(WRONG)
    assert await host.sw(0x2C, 0, 0x80, PUK + NEW_PIN) == 0x9000
    # The security status does not change.
    assert await host.pin_status() == 0x63C3
    assert await host.verify(NEW_PIN) == 0x9000
    assert await host.sw(0x2C, 0, 0x80, PUK + PIN) == 0x9000
    assert await host.pin_status() == 0x9000


async def test_a_wrong_puk_ends_the_pin_and_blocks_in_the_end() -> None:
    host = await inserted()
    await host.verify()
    assert await host.sw(0x2C, 0, 0x80, WRONG + NEW_PIN) == 0x63C2
    assert await host.pin_status() == 0x63C3
    sws = [await host.sw(0x2C, 0, 0x80, WRONG + NEW_PIN) for _ in range(3)]
    assert sws == [0x63C1, 0x63C0, 0x6983]
    assert await host.sw(0x2C, 0, 0x80, PUK + NEW_PIN) == 0x6983
    assert await host.verify() == 0x9000


@pytest.mark.parametrize("pin", MALFORMED)
async def test_a_malformed_new_pin_costs_the_puk_no_try(pin: bytes) -> None:
    host = await inserted()
    await host.verify()
    for puk in (PUK, WRONG):
        assert await host.sw(0x2C, 0, 0x80, puk + pin) == 0x6A80
    assert await host.pin_status() == 0x9000
    assert await host.memory.pin(0x81).tries_left() == 3


async def test_with_the_extensions_tools_block_the_puk_with_nothing() -> None:
    host = await inserted(vendor_extensions=True)
    nothing = b"\xff" * 8
    sws = [await host.sw(0x2C, 0, 0x80, nothing * 2) for _ in range(4)]
    assert sws == [0x63C2, 0x63C1, 0x63C0, 0x6983]


async def test_with_the_extensions_the_right_puk_with_a_malformed_pin_changes_nothing() -> None:
    host = await inserted(vendor_extensions=True)
    assert await host.sw(0x2C, 0, 0x80, PUK + b"\xff" * 8) == 0x6A80
    assert await host.verify() == 0x9000


@pytest.mark.parametrize(
    ("p1", "p2", "data", "sw"),
    [
        pytest.param(0x00, 0x00, PUK + NEW_PIN, 0x6A88, id="global PIN"),
        pytest.param(0x00, 0x81, PUK + NEW_PIN, 0x6A88, id="PUK"),
        pytest.param(0x01, 0x80, PUK + NEW_PIN, 0x6A86, id="P1"),
        pytest.param(0x00, 0x80, PUK, 0x6A80, id="PUK alone"),
        pytest.param(0x00, 0x80, b"", 0x6A80, id="nothing"),
    ],
)
async def test_reset_retry_counter_refusals(p1: int, p2: int, data: bytes, sw: int) -> None:
    assert await (await inserted()).sw(0x2C, p1, p2, data) == sw


# What "PIN always" asks for


async def signature_card(*, vendor_extensions: bool) -> PivHost:
    host = await administered(vendor_extensions=vendor_extensions)
    for reference in (0x9A, 0x9C, 0x9D, 0x9E):
        await host.generate(reference, KeyAlgorithm.P_256)
    return host


async def sign(host: PivHost, reference: int = 0x9C) -> int:
    return (await host.use(reference, bytes(31) + b"\1", KeyAlgorithm.P_256)).sw


@pytest.mark.parametrize("vendor_extensions", [False, True])
async def test_each_signature_takes_a_verification(vendor_extensions: bool) -> None:  # noqa: FBT001 (a parameter)
    host = await signature_card(vendor_extensions=vendor_extensions)
    assert await sign(host) == 0x6982
    await host.verify()
    assert [await sign(host) for _ in range(2)] == [0x9000, 0x6982]
    # The PIN is still verified for other keys.
    assert [await sign(host, key) for key in (0x9A, 0x9A, 0x9D)] == [0x9000] * 3
    assert await host.pin_status() == 0x9000


@pytest.mark.parametrize("vendor_extensions", [False, True])
@pytest.mark.parametrize("other", [0x9A, 0x9D, 0x9E])
async def test_the_use_of_another_key_spends_the_verification(
    vendor_extensions: bool,  # noqa: FBT001 (a parameter)
    other: int,
) -> None:
    host = await signature_card(vendor_extensions=vendor_extensions)
    await host.verify()
    assert await sign(host, other) == 0x9000
    assert await sign(host) == 0x6982


READING = [
    pytest.param("00CB3FFF035C017E00", id="GET DATA"),
    pytest.param("00A4040009A0000003080000100000", id="SELECT"),
    pytest.param("00200080", id="VERIFY without a PIN"),
    pytest.param("0087089B047C02810000", id="a challenge for the administrator"),
]


@pytest.mark.parametrize("command", READING)
async def test_between_verification_and_signature_nothing_may_come(command: str) -> None:
    host = await signature_card(vendor_extensions=False)
    await host.verify()
    assert (await host.send(command)).sw == 0x9000
    assert await sign(host) == 0x6982


@pytest.mark.parametrize("command", [*READING, pytest.param("00F7009C00", id="GET METADATA")])
async def test_with_the_extensions_only_a_key_spends_the_verification(command: str) -> None:
    host = await signature_card(vendor_extensions=True)
    await host.verify()
    assert (await host.send(command)).sw == 0x9000
    assert await sign(host) == 0x9000


async def test_get_response_and_a_chain_are_one_command() -> None:
    host = await signature_card(vendor_extensions=False)
    await host.verify()
    template = "7C2482008120" + "11" * 32
    assert (await host.send(f"1087119C10{template[:32]}")).sw == 0x9000
    rest = template[32:]
    response = await host.send(f"0087119C{len(rest) // 2:02X}{rest}")
    assert response.sw >> 8 == 0x61
    assert (await host.send("00C0000000")).sw == 0x9000


async def test_a_changed_pin_is_not_a_verified_one_for_a_signature() -> None:
    host = await signature_card(vendor_extensions=True)
    await host.verify()
    assert await host.sw(0x24, 0, 0x80, PIN + NEW_PIN) == 0x9000
    assert await sign(host) == 0x6982
    assert await sign(host, 0x9A) == 0x9000


async def test_a_wrong_pin_takes_the_keys_away() -> None:
    host = await signature_card(vendor_extensions=False)
    await host.verify()
    await host.verify(WRONG)
    assert await sign(host, 0x9A) == 0x6982


async def test_a_memory_that_fails_is_told() -> None:
    class Full(VolatileMemory):
        async def store(self, changes: object) -> None:
            raise OSError("disk full")

    memory = Full({0: VolatilePin(b"", 0), 0x80: VolatilePin(PIN), 0x81: VolatilePin(PUK)})
    memory._contents.update(new_memory().contents)
    host = await inserted(memory=memory)
    assert await host.authenticate() == 0x9000
    assert await host.put_object(0x5FC103, b"\xbc\0") == 0x6581
