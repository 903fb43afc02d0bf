# SPDX-License-Identifier: Apache-2.0
"""Traces of the three front doors, as tshark reads them."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

import pcscd as hosts
from ccid_protocol import vscard
from ccid_protocol.ccid import (
    BadMessage,
    DataBlock,
    GetSlotStatus,
    HardwareError,
    IccPowerOn,
    IccStatus,
    NotifySlotChange,
    SlotChange,
    SlotStatus,
    XfrBlock,
)
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.errors import UserError
from ccidd.keys.key import KeyAlgorithm
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot
from ccidd.service.trace import Trace, open_trace
from ccidd.transport.serial import PseudoTerminal, serial_model, serve_serial
from ccidd.transport.vscard import serve_vscard
from credentials import credential
from piv import new_memory
from qemu_peer import QemuPeer

PROFILE = default_profile(1, "1")
PIN = b"123456\xff\xff"
VERIFY = bytes.fromhex("0020008008") + PIN


def dissect(file: Path, *fields: str) -> list[list[str]]:
    """Gives fields of each packet, as tshark finds them."""
    result = subprocess.run(
        ["tshark", "-r", file, "-T", "fields", "-E", "separator=|", *(f"-e{f}" for f in fields)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("|") for line in result.stdout.splitlines()]


def messages(file: Path) -> list[bool]:
    """Tells of each packet whether Wireshark takes it for a message of CCID."""
    return ["usbccid" in line[0].split(":") for line in dissect(file, "frame.protocols")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.pcapng"


def test_each_message_is_a_transfer_of_a_smart_card_reader(file: Path) -> None:
    trace = open_trace(file, "usbredir", PROFILE)
    trace.notification(NotifySlotChange((SlotChange(present=True, changed=True),)))
    trace.command(IccPowerOn(0, 1))
    trace.response(DataBlock(0, 1, IccStatus.ACTIVE, data=bytes.fromhex("3B00")))
    trace.command(XfrBlock(0, 2, VERIFY))
    trace.response(DataBlock(0, 2, IccStatus.ACTIVE, data=b"\x63\xc2"))
    trace.command(BadMessage(0x99, 0, 3, 0))
    trace.notification(HardwareError(0, 3))
    trace.close()
    # Wireshark does not look into notifications.
    assert messages(file)[3:] == [True, False, True, True, True, True, True, False]
    rows = dissect(file, "usbccid.bMessageType", "usbccid.bSeq", "usb.capdata", "frame.comment")
    assert rows[4:] == [
        ["", "", "5003", "slot 0: a card"],
        ["0x62", "1", "", ""],
        ["0x80", "1", "", ""],
        ["0x6f", "2", "", ""],
        ["0x80", "2", "", ""],
        ["0x99", "", "", "a message that is wrong; its head"],
        ["", "", "51000301", ""],
    ]
    assert PIN[:6] not in file.read_bytes()


def test_wireshark_dissects_apdus_in_it(file: Path) -> None:
    trace = open_trace(file, "usbredir", PROFILE)
    trace.command(XfrBlock(0, 2, VERIFY))
    trace.close()
    result = subprocess.run(
        [
            *("tshark", "-r", file, "-d", "usbccid.subdissector,iso7816"),
            *("-T", "fields", "-e", "iso7816.apdu.ins"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["0x20"]


def test_pins_are_there_only_where_they_are_asked_for(file: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        trace = open_trace(file, "usbredir", PROFILE, with_secrets=True)
    trace.command(XfrBlock(0, 2, VERIFY))
    trace.close()
    assert PIN in file.read_bytes()
    assert [entry["event"] for entry in logs] == ["trace_has_secrets"]


async def test_over_vscard_the_messages_stand_for_what_was_said(
    file: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    trace = open_trace(file, "vscard", PROFILE)
    card = piv_card({}, new_memory())
    ours, theirs = trio.testing.memory_stream_pair()
    peer = QemuPeer(theirs)
    slot = Slot(card)
    nursery.start_soon(serve_vscard, ours, slot, trace)
    nursery.start_soon(peer.run)
    await peer.until(lambda: peer.atr)
    await peer.transmit(bytes.fromhex("00A4040005A000000308"))
    await peer.transmit(VERIFY)
    await peer.send(vscard.APDU(b"\0", 0))
    slot.remove()
    await peer.until(lambda: isinstance(peer.seen[-1], vscard.CardRemove))
    trace.close()
    rows = dissect(file, "usbccid.bMessageType", "usbccid.bSeq", "frame.comment")
    assert rows[0][2] == "over vscard, as CCID would say it"
    assert [row[:2] for row in rows[4:]] == [
        ["", ""],
        ["0x62", "0"],
        ["0x80", "0"],
        ["0x6f", "1"],
        ["0x80", "1"],
        ["0x6f", "2"],
        ["0x80", "2"],
        ["0x6f", "3"],
        ["0x80", "3"],
        ["", ""],
    ]
    assert PIN[:6] not in file.read_bytes()


async def test_the_pin_that_a_real_host_sends_is_not_in_the_trace(
    file: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    profile = default_profile(1, "1", Level.TPDU)
    trace = open_trace(file, "serial", profile)
    keys = {KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256)}
    slots = [Slot(piv_card(keys, new_memory()))]
    link = tmp_path / "line"
    terminal = PseudoTerminal(link)
    nursery.start_soon(serve_serial, terminal, slots, profile, None, trace)
    async with hosts.pcscd(link, serial_model(1).name) as host:
        await host.run("pkcs11-tool", "--login", "--pin=123456", "--list-objects")
    nursery.cancel_scope.cancel()
    terminal.close()
    trace.close()
    data = file.read_bytes()
    assert b"123456" not in data
    assert b"*" * 8 in data
    assert messages(file).count(True) > 20


def test_a_file_that_takes_no_more_ends_the_trace_and_nothing_else(file: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with structlog.testing.capture_logs() as logs:
        trace = Trace(full, "usbredir", PROFILE)
        trace.command(GetSlotStatus(0, 0))
        trace.response(SlotStatus(0, 0, IccStatus.ACTIVE))
    assert [entry["event"] for entry in logs] == ["trace_ended"]


def test_the_file_is_the_users_alone_and_replaces_an_older_one(file: Path) -> None:
    file.write_bytes(b"old" * 1000)
    file.chmod(0o644)
    open_trace(file, "usbredir", PROFILE).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"old" not in file.read_bytes()


def test_links_and_devices_are_refused(file: Path, tmp_path: Path) -> None:
    file.symlink_to(tmp_path / "other")
    with pytest.raises(UserError, match="cannot write"):
        open_trace(file, "usbredir", PROFILE)
    with pytest.raises(UserError, match="no file of your own"):
        open_trace(Path("/dev/null"), "usbredir", PROFILE)
    with pytest.raises(UserError, match="No such file"):
        open_trace(tmp_path / "none" / "trace", "usbredir", PROFILE)
