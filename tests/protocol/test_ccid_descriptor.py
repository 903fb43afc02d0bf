# SPDX-License-Identifier: Apache-2.0
"""The class descriptor (CCID Rev 1.1, 5.1)."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol import LocalProtocolError, RemoteProtocolError
from ccid_protocol.ccid import (
    DESCRIPTOR_TYPE,
    INTERFACE_CLASS,
    ClassDescriptor,
    ExchangeLevel,
    Features,
    MechanicalSupport,
    PinSupport,
    Protocols,
    Voltages,
)

# What QEMU 7.2's usb-ccid gives a guest (observed). It has both 40h and 80h.
QEMU = bytes.fromhex(
    "36211001000701000000a00f000000000100008025000000c2010000fe000000000000000000"
    "0000fe04010012000100ffff00000101"
)
EXTENDED = ClassDescriptor(
    release=0x0110,
    max_slot_index=15,
    voltages=Voltages.V5 | Voltages.V3 | Voltages.V1_8,
    protocols=Protocols.T0 | Protocols.T1,
    default_clock=4000,
    maximum_clock=4000,
    clocks_supported=1,
    data_rate=10752,
    max_data_rate=344086,
    data_rates_supported=2,
    max_ifsd=254,
    synchronous_protocols=0,
    mechanical=MechanicalSupport(0),
    features=Features(0x404BA),
    max_message_length=65554,
    pin_support=PinSupport.VERIFICATION | PinSupport.MODIFICATION,
    max_busy_slots=16,
)


def test_the_descriptor_that_qemu_gives_is_read() -> None:
    assert ClassDescriptor.decode(QEMU) == ClassDescriptor(
        release=0x0110,
        max_slot_index=0,
        voltages=Voltages.V5 | Voltages.V3 | Voltages.V1_8,
        protocols=Protocols.T0,
        default_clock=4000,
        maximum_clock=0x10000,
        clocks_supported=0,
        data_rate=9600,
        max_data_rate=115200,
        data_rates_supported=0,
        max_ifsd=254,
        synchronous_protocols=0,
        mechanical=MechanicalSupport(0),
        features=Features(0x104FE),
        max_message_length=65554,
        pin_support=PinSupport.VERIFICATION,
        max_busy_slots=1,
    )


def test_the_descriptor_that_qemu_gives_is_not_given_again() -> None:
    descriptor = ClassDescriptor.decode(QEMU)
    with pytest.raises(LocalProtocolError, match="both 40h and 80h"):
        descriptor.encode()
    better = replace(descriptor, features=descriptor.features & ~Features.AUTOMATIC_PPS)
    changed = [i for i, (a, b) in enumerate(zip(better.encode(), QEMU, strict=True)) if a != b]
    assert changed == [40]


def test_a_consistent_descriptor_has_54_bytes_and_is_read_back() -> None:
    raw = EXTENDED.encode()
    assert raw[:6] == bytes.fromhex("36211001 0F 07")
    assert raw[40:48] == bytes.fromhex("BA040400 12000100")
    assert len(raw) == 54
    assert ClassDescriptor.decode(raw) == EXTENDED
    assert EXTENDED.slots == 16


def test_the_flags_are_those_of_the_specification() -> None:
    levels = [0x10000, 0x20000, 0x40000, 0x100000]
    assert list(Features) == [2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 0x400, *levels]
    assert list(MechanicalSupport) == [1, 2, 4, 8]
    assert list(Voltages) == [1, 2, 4]
    assert (INTERFACE_CLASS, DESCRIPTOR_TYPE) == (0x0B, 0x21)


@pytest.mark.parametrize("level", ExchangeLevel)
def test_the_exchange_level_is_one_of_four(level: ExchangeLevel) -> None:
    others = Features.AUTOMATIC_PARAMETERS | Features.AUTOMATIC_PPS
    descriptor = replace(EXTENDED, features=others | Features(level))
    assert descriptor.exchange_level is level
    assert ClassDescriptor.decode(descriptor.encode()).exchange_level is level


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"release": 0x0100}, "bcdCCID 0100"),
        ({"features": Features(0x604BA)}, "more than one exchange level"),
        ({"features": Features(0x404FA)}, "both 40h and 80h"),
        ({"features": Features(0x4043A)}, "without 02h and one of"),
        ({"features": Features(0x404B8)}, "without 02h and one of"),
        ({"features": Features(0x2043A)}, "without 02h and one of"),
        ({"features": Features(0x20478)}, "without 02h and one of"),
        ({"features": Features(0x804BA)}, "reserved bits of 804BAh"),
        ({"features": Features(0x404BB)}, "reserved bits"),
        ({"voltages": Voltages(8)}, "reserved bits of 8h"),
        ({"voltages": Voltages(0)}, "without a voltage"),
        ({"protocols": Protocols(4)}, "reserved bits"),
        ({"protocols": Protocols(0)}, "no protocol"),
        ({"mechanical": MechanicalSupport(16)}, "reserved bits"),
        ({"pin_support": PinSupport(4)}, "reserved bits"),
        ({"max_busy_slots": 0}, "bMaxCCIDBusySlots 0 of 16"),
        ({"max_busy_slots": 17}, "bMaxCCIDBusySlots 17 of 16"),
        ({"default_clock": 0}, "dwDefaultClock 0"),
        ({"maximum_clock": 3999}, "dwMaximumClock 3999"),
        ({"data_rate": 0}, "dwDataRate 0"),
        ({"max_data_rate": 10751}, "dwMaxDataRate 10751"),
        ({"max_ifsd": 0}, "dwMaxIFSD 0"),
        ({"max_ifsd": 255}, "dwMaxIFSD 255"),
        ({"max_message_length": 270}, "dwMaxCCIDMessageLength 270 at the level EXTENDED"),
        ({"max_message_length": 65555}, "dwMaxCCIDMessageLength 65555"),
        ({"features": Features(0x204BA), "max_message_length": 63}, "63 at the level SHORT"),
        ({"max_slot_index": 256}, "does not fit"),
        ({"lcd_layout": 0x10000}, "does not fit"),
    ],
)
def test_a_descriptor_that_contradicts_itself_is_not_given(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        replace(EXTENDED, **changes).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"max_message_length": 271},
        {"features": Features(0x204BA), "max_message_length": 64},
        {"features": Features(0x10030), "max_message_length": 271},
        {"features": Features(0)},
        {"protocols": Protocols.T0, "max_ifsd": 0},
        {"max_ifsd": 1},
        {"default_clock": 1, "maximum_clock": 1, "data_rate": 1, "max_data_rate": 1},
        {"max_slot_index": 0, "max_busy_slots": 1},
        {"protocols": Protocols(0), "synchronous_protocols": 1},
    ],
)
def test_a_descriptor_at_the_edge_is_given(changes: dict[str, Any]) -> None:
    descriptor = replace(EXTENDED, **changes)
    assert ClassDescriptor.decode(descriptor.encode()) == descriptor


@pytest.mark.parametrize(
    "raw", [b"", QEMU[:-1], QEMU + b"\0", b"\x35" + QEMU[1:], QEMU[:1] + b"\x22" + QEMU[2:]]
)
def test_what_is_no_class_descriptor_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ClassDescriptor.decode(raw)


@given(st.binary(min_size=52, max_size=52))
def test_whatever_a_descriptor_says_it_is_read_and_given_again_or_refused(raw: bytes) -> None:
    whole = b"\x36\x21" + raw
    descriptor = ClassDescriptor.decode(whole)
    try:
        descriptor.check()
    except LocalProtocolError:
        with pytest.raises(LocalProtocolError):
            descriptor.encode()
    else:
        assert descriptor.encode() == whole
