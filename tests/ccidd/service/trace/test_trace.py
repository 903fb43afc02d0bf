# SPDX-License-Identifier: Apache-2.0
"""Traces of the three front doors, as tshark reads them."""

import os
import stat
import subprocess
import threading
import time
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
from ccidd.reader.profile import Level, ReaderProfile, default_profile
from ccidd.reader.slot import Slot
from ccidd.service.trace import Tracer
from ccidd.service.trace import tracer as tracers
from ccidd.service.trace.trace import Trace
from ccidd.service.trace.tracefile import MAX_WAITING, TraceFile, open_trace_file
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


def begun(
    file: Path,
    front_door: str = "usbredir",
    profile: ReaderProfile = PROFILE,
    *,
    with_secrets: bool = False,
) -> Tracer:
    """Gives a tracer that writes into a file."""
    tracer = Tracer(front_door, profile)
    tracer.open(file, with_secrets=with_secrets)
    return tracer


def end(tracer: Tracer) -> None:
    """Ends a trace, and waits until it is written."""
    assert tracer._trace is not None
    file = tracer._trace.file
    tracer.close()
    assert file.wait(10)


class Reading:
    """Reads the other end of a pipe, for a file that is as slow as its reader."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "rb")
        self._data = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with self._file:
            self._data = self._file.read()

    def data(self) -> bytes:
        self._thread.join()
        return self._data


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.pcapng"


def test_each_message_is_a_transfer_of_a_smart_card_reader(file: Path) -> None:
    trace = begun(file)
    trace.notification(NotifySlotChange((SlotChange(present=True, changed=True),)))
    trace.command(IccPowerOn(0, 1))
    trace.response(DataBlock(0, 1, IccStatus.ACTIVE, data=bytes.fromhex("3B00")))
    trace.command(XfrBlock(0, 2, VERIFY))
    trace.response(DataBlock(0, 2, IccStatus.ACTIVE, data=b"\x63\xc2"))
    trace.command(BadMessage(0x99, 0, 3, 0))
    trace.notification(HardwareError(0, 3))
    end(trace)
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
    trace = begun(file)
    trace.command(XfrBlock(0, 2, VERIFY))
    end(trace)
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


@pytest.mark.holds_secrets
def test_pins_are_there_only_where_they_are_asked_for(file: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        trace = begun(file, with_secrets=True)
    trace.command(XfrBlock(0, 2, VERIFY))
    end(trace)
    assert PIN in file.read_bytes()
    assert [entry["event"] for entry in logs] == ["trace_started", "trace_has_secrets"]


async def test_over_vscard_the_messages_stand_for_what_was_said(
    file: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    trace = begun(file, "vscard")
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
    end(trace)
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
    trace = begun(file, "serial", profile)
    keys = {KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256)}
    slots = [Slot(piv_card(keys, new_memory()))]
    link = tmp_path / "line"
    terminal = PseudoTerminal(link)
    nursery.start_soon(serve_serial, terminal, slots, profile, None, trace)
    async with hosts.pcscd(link, serial_model(1).name) as host:
        await host.run("pkcs11-tool", "--login", "--pin=123456", "--list-objects")
    nursery.cancel_scope.cancel()
    terminal.close()
    end(trace)
    data = file.read_bytes()
    assert b"123456" not in data
    assert b"*" * 8 in data
    assert messages(file).count(True) > 20


def test_a_file_that_takes_no_more_ends_the_trace_and_nothing_else() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    told: list[bool] = []
    with structlog.testing.capture_logs() as logs:
        file = TraceFile(full, Path("/dev/full"))
        tracer = Tracer("usbredir", PROFILE)
        tracer.changed = lambda _file, is_running: told.append(is_running)
        tracer._trace = Trace(file, "usbredir", PROFILE)
        assert file.wait(10)
        tracer.command(GetSlotStatus(0, 0))
        tracer.response(SlotStatus(0, 0, IccStatus.ACTIVE))
    assert tracer.file is None
    assert told == [False]
    assert [(entry["event"], entry["reason"]) for entry in logs] == [
        ("trace_ended", "No space left on device")
    ]


def test_a_disk_that_hangs_loses_messages_and_holds_up_nobody(file: Path) -> None:
    ours, theirs = os.pipe()
    piece = bytes(32768)
    with structlog.testing.capture_logs() as logs:
        stuck = TraceFile(theirs, file)
        trace = Trace(stuck, "usbredir", PROFILE)
        sent = 2 * MAX_WAITING // len(piece)
        for _ in range(sent):
            trace.command(XfrBlock(0, 0, piece))
        assert not stuck.wait(0.01)
        # The disk works again.
        written = Reading(ours)
        while stuck.write(b"") and stuck._taken > stuck._written:
            time.sleep(0.001)
        trace.command(GetSlotStatus(0, 0))
        trace.command(GetSlotStatus(0, 1))
        trace.close()
        assert stuck.wait(10)
    file.write_bytes(written.data())
    rows = dissect(file, "usbccid.bMessageType", "frame.comment")
    kept = [row[0] for row in rows].count("0x6f")
    lost = sent - kept
    assert 0 < lost < sent
    assert rows[-2:] == [["0x65", f"{lost} messages before this one are missing"], ["0x65", ""]]
    assert [entry["event"] for entry in logs] == ["trace_too_slow", "trace_stopped"]
    assert logs[1]["lost"] == lost


def test_the_file_is_the_users_alone_and_replaces_an_older_one(file: Path) -> None:
    end(begun(file))
    file.write_bytes(file.read_bytes() + b"old" * 1000)
    file.chmod(0o644)
    end(begun(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"old" not in file.read_bytes()


def test_links_devices_and_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    file.symlink_to(tmp_path / "other")
    with pytest.raises(UserError, match="cannot write"):
        open_trace_file(file)
    with pytest.raises(UserError, match="is there"):
        open_trace_file(Path("/dev/null"))
    os.mkfifo(tmp_path / "fifo.pcapng")
    reader = os.open(tmp_path / "fifo.pcapng", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(UserError, match="no file of your own"):
        open_trace_file(tmp_path / "fifo.pcapng")
    os.close(reader)
    with pytest.raises(UserError, match="No such file"):
        open_trace_file(tmp_path / "none" / "trace")
    state = tmp_path / "state"
    state.write_bytes(b"SQLite format 3")
    with pytest.raises(UserError, match=r"replace \.pcapng files alone"):
        open_trace_file(state)
    assert state.read_bytes() == b"SQLite format 3"


def test_two_traces_are_not_written_into_one_file(file: Path) -> None:
    first = begun(file)
    with pytest.raises(UserError, match="another trace's"):
        begun(file)
    end(first)
    end(begun(file))


# While the reader is served.


async def test_a_trace_begins_and_ends_while_the_reader_is_served(
    file: Path, tmp_path: Path
) -> None:
    tracer = Tracer("usbredir", PROFILE)
    told: list[tuple[str, bool]] = []
    tracer.changed = lambda path, is_running: told.append((path.name, is_running))
    tracer.command(GetSlotStatus(0, 0))
    with pytest.raises(UserError, match="there is no trace"):
        await tracer.stop()
    await tracer.start(file)
    with pytest.raises(UserError, match="there is a trace already"):
        await tracer.start(tmp_path / "other")
    tracer.command(GetSlotStatus(0, 1))
    await tracer.stop()
    assert tracer.file is None
    tracer.command(GetSlotStatus(0, 2))
    seen = [row for (row,) in dissect(file, "usbccid.bSeq") if row]
    assert seen == ["1"]
    assert told == [(file.name, True), (file.name, False)]
    await tracer.start(file)
    await tracer.stop()


def t1_block(pcb: int, data: bytes) -> bytes:
    return bytes([0, pcb, len(data)]) + data + b"\x5a"


async def test_what_was_said_before_a_trace_tells_what_is_secret_in_it(file: Path) -> None:
    tracer = Tracer("serial", default_profile(1, "1", Level.TPDU))
    tracer.command(IccPowerOn(0, 0))
    tracer.response(DataBlock(0, 0, IccStatus.ACTIVE, data=bytes.fromhex("3B800181")))
    tracer.command(XfrBlock(0, 1, t1_block(0x20, VERIFY[:5])))
    await tracer.start(file)
    # The end of a chain of blocks, and a whole one; both would be harmless commands with T=0.
    tracer.command(XfrBlock(0, 2, t1_block(0x40, VERIFY[5:])))
    tracer.command(XfrBlock(0, 3, t1_block(0x00, VERIFY)))
    await tracer.stop()
    assert PIN[:6] not in file.read_bytes()
    assert file.read_bytes().count(b"*" * 8) == 2


async def test_a_disk_that_hangs_does_not_hold_up_the_end(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracers, "_LAST_WRITE", 0.05)
    ours, theirs = os.pipe()
    tracer = Tracer("usbredir", PROFILE)
    tracer._trace = Trace(TraceFile(theirs, file), "usbredir", PROFILE)
    for _ in range(10):
        tracer.command(XfrBlock(0, 0, bytes(32768)))
    with structlog.testing.capture_logs() as logs:
        await tracer.stop()
    assert [entry["event"] for entry in logs] == ["trace_stopped", "trace_not_whole"]
    Reading(ours)
