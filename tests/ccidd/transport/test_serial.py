# SPDX-License-Identifier: Apache-2.0
"""The reader on a serial line: with an emulated host, and with this machine's pcscd and libccid."""

import os
import signal
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from cards import ScriptedCard, echo_card
from ccid_protocol import gempc
from ccid_protocol.ccid import (
    Abort,
    ClockStatus,
    Command,
    CommandStatus,
    DataBlock,
    Escape,
    EscapeResponse,
    GetSlotStatus,
    IccPowerOn,
    IccStatus,
    Response,
    SlotStatus,
    XfrBlock,
    decode_response,
    encode,
)
from ccid_protocol.events import ConnectionClosed, NeedData
from ccidd.card.card import Card
from ccidd.errors import UserError
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot
from ccidd.transport.serial import (
    FRAME_TIMEOUT,
    MAX_UNSENT,
    Line,
    PseudoTerminal,
    serial_model,
    serve_serial,
)
from programs import CCIDD, run_ccidd, started

NAK = gempc.Nak()
REMOVED, INSERTED = gempc.CardEvent(present=False), gempc.CardEvent(present=True)


# With an emulated host.


class Wire(Line):
    """A line without a terminal."""

    def __init__(self) -> None:
        self.to_reader, self._from_host = trio.open_memory_channel[bytes](1000)
        self._to_host, self.from_reader = trio.open_memory_channel[bytes](1000)
        self.flows = trio.Event()
        self.flows.set()

    async def receive(self) -> bytes:
        return await self._from_host.receive()

    async def send(self, data: bytes) -> int:
        await self.flows.wait()
        await self._to_host.send(data)
        return len(data)


class Host:
    """The host's end of a line with a reader."""

    def __init__(self, slots: list[Slot]) -> None:
        self.slots = slots
        self.wire = Wire()
        self._echo = serial_model(len(slots)).echo
        self._connection = gempc.Connection(gempc.Role.HOST, echo=self._echo)
        self.ended = trio.Event()

    async def serve(self) -> None:
        profile = default_profile(len(self.slots), "1", Level.TPDU)
        await serve_serial(self.wire, self.slots, profile)
        self.ended.set()

    def write(self, data: bytes) -> None:
        self.wire.to_reader.send_nowait(data)

    def start_over(self) -> None:
        self._connection = gempc.Connection(gempc.Role.HOST, echo=self._echo)
        self.write(b"")

    def submit(self, command: Command) -> None:
        self.write(self._connection.send(gempc.Message(encode(command))))

    async def event(self) -> gempc.Sendable | gempc.BadFrame | ConnectionClosed | Response:
        while isinstance(event := self._connection.next_event(), NeedData):
            self._connection.receive_data(await self.wire.from_reader.receive())
        return decode_response(event.data) if isinstance(event, gempc.Message) else event

    async def ask(
        self, command: Command
    ) -> gempc.Sendable | gempc.BadFrame | ConnectionClosed | Response:
        self.submit(command)
        return await self.event()


Connect = Callable[..., Host]


@pytest.fixture
def connect(nursery: trio.Nursery) -> Connect:
    def start(*cards: Card | None) -> Host:
        host = Host([Slot(card) for card in cards])
        nursery.start_soon(host.serve)
        return host

    return start


def slow_card(seconds: float) -> ScriptedCard:
    async def answer(command: bytes) -> bytes:
        await trio.sleep(seconds)
        return b"\x90\x00"

    return ScriptedCard(answer)


async def test_a_twin_repeats_each_frame_and_then_answers(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(echo_card())
    frame = bytes.fromhex("0306 65 00000000 00 07 000000 67")
    host.write(frame)
    assert await host.wire.from_reader.receive() == frame + bytes.fromhex(
        "0306 81 00000000 00 07 010001 83"
    )


async def test_a_reader_with_several_slots_answers_at_once(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(None, echo_card())
    host.write(bytes.fromhex("0306 65 00000000 01 07 000000 66"))
    assert await host.wire.from_reader.receive() == bytes.fromhex(
        "0306 81 00000000 01 07 010001 82"
    )
    assert await host.ask(GetSlotStatus(0, 1)) == SlotStatus(
        0, 1, IccStatus.ABSENT, ClockStatus.STOPPED_LOW
    )


async def test_a_damaged_frame_gets_nak_and_is_taken_when_it_is_repeated(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(None)
    host.write(bytes.fromhex("0306 65 00000000 00 07 000000 66"))
    assert await host.event() == NAK
    assert await host.ask(GetSlotStatus(0, 7)) == SlotStatus(
        0, 7, IccStatus.ABSENT, ClockStatus.STOPPED_LOW
    )


async def test_a_frame_that_does_not_end_is_given_up(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(None)
    start = trio.current_time()
    host.write(bytes.fromhex("0306 65 00000000"))
    assert await host.event() == NAK
    assert trio.current_time() - start == pytest.approx(FRAME_TIMEOUT)
    assert await host.ask(GetSlotStatus(0, 7)) == SlotStatus(
        0, 7, IccStatus.ABSENT, ClockStatus.STOPPED_LOW
    )


async def test_a_frame_may_come_slowly(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(None, None)
    for byte in bytes.fromhex("0306 65 00000000 00 07 000000 67"):
        host.write(bytes([byte]))
        await trio.sleep(0.9 * FRAME_TIMEOUT)
    assert await host.event() == SlotStatus(0, 7, IccStatus.ABSENT, ClockStatus.STOPPED_LOW)


async def test_a_host_is_told_of_what_changes_after_it_came(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(echo_card())
    slot = host.slots[0]
    assert await host.ask(GetSlotStatus(0, 0)) == SlotStatus(
        0, 0, IccStatus.INACTIVE, ClockStatus.STOPPED_LOW
    )
    slot.remove()
    assert await host.event() == REMOVED
    slot.insert(echo_card())
    assert await host.event() == INSERTED
    slot.insert(echo_card())
    assert [await host.event(), await host.event()] == [REMOVED, INSERTED]


async def test_the_events_have_no_slot_and_so_only_one_slot_has_them(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(echo_card(), None)
    assert await host.ask(GetSlotStatus(0, 0)) == SlotStatus(
        0, 0, IccStatus.INACTIVE, ClockStatus.STOPPED_LOW
    )
    host.slots[0].remove()
    await trio.testing.wait_all_tasks_blocked()
    assert await host.ask(GetSlotStatus(0, 1)) == SlotStatus(
        0, 1, IccStatus.ABSENT, ClockStatus.STOPPED_LOW
    )


async def test_a_card_that_works_for_long_asks_for_time_by_a_byte(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(slow_card(2))
    await host.ask(IccPowerOn(0, 0))
    assert await host.ask(XfrBlock(0, 1, data=b"\0\x10\0\0")) == gempc.TimeRequest(0x80)
    assert await host.event() == gempc.TimeRequest(0x80)
    assert await host.event() == DataBlock(0, 1, IccStatus.ACTIVE, b"\x90\x00")


async def test_a_line_that_is_opened_anew_starts_over(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(slow_card(0.5))
    await host.ask(IccPowerOn(0, 0))
    host.submit(XfrBlock(0, 1, data=b"\0\x10\0\0"))
    host.write(bytes.fromhex("0306 65"))
    await trio.testing.wait_all_tasks_blocked()
    while True:
        try:
            host.wire.from_reader.receive_nowait()
        except trio.WouldBlock:
            break
    host.start_over()
    await trio.sleep(10)
    assert await host.ask(GetSlotStatus(0, 0)) == SlotStatus(
        0, 0, IccStatus.INACTIVE, ClockStatus.STOPPED_LOW
    )


async def test_an_abort_needs_no_control_pipe(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(slow_card(60), None)
    await host.ask(IccPowerOn(0, 0))
    host.submit(XfrBlock(0, 1, data=b"\0\x10\0\0"))
    await trio.testing.wait_all_tasks_blocked()
    failed = await host.ask(Abort(0, 2))
    assert isinstance(failed, DataBlock)
    assert failed.command_status is CommandStatus.FAILED
    assert await host.event() == SlotStatus(0, 2, IccStatus.ACTIVE)
    assert await host.ask(GetSlotStatus(0, 3)) == SlotStatus(0, 3, IccStatus.ACTIVE)


async def test_a_host_that_does_not_read_loses_answers_and_takes_no_memory(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(None, None)
    host.wire.flows = trio.Event()
    frame = bytes.fromhex("0306 65 00000000 00 07 000000 67")
    for _ in range(4):
        host.write(frame * (MAX_UNSENT // len(frame)))
        await trio.testing.wait_all_tasks_blocked()
    host.wire.flows.set()
    await trio.testing.wait_all_tasks_blocked()
    assert len(await host.wire.from_reader.receive()) in range(MAX_UNSENT - 13, MAX_UNSENT + 1)
    host.start_over()
    assert await host.ask(GetSlotStatus(0, 1)) == SlotStatus(
        0, 1, IccStatus.ABSENT, ClockStatus.STOPPED_LOW
    )


async def test_an_unplugged_reader_answers_what_is_in_flight_and_says_goodbye(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(slow_card(0.5))
    await host.ask(IccPowerOn(0, 0))
    host.submit(XfrBlock(0, 1, data=b"\0\x10\0\0"))
    await trio.testing.wait_all_tasks_blocked()
    host.slots[0].unplug()
    await host.ended.wait()
    assert await host.event() == DataBlock(0, 1, IccStatus.ACTIVE, b"\x90\x00")
    assert await host.event() == REMOVED


@settings(max_examples=50)
@given(
    st.lists(
        st.binary(max_size=300)
        | st.builds(
            lambda kind, slot, data: gempc.Connection(gempc.Role.HOST).send(
                gempc.Message(
                    bytes([kind])
                    + len(data).to_bytes(4, "little")
                    + bytes([slot, 0, 0, 0, 0])
                    + data
                )
            ),
            st.integers(0x60, 0x75),
            st.integers(0, 5),
            st.binary(max_size=40),
        ),
        max_size=8,
    ),
    st.integers(1, 5),
)
def test_whatever_a_host_sends_the_next_is_served(pieces: list[bytes], slots: int) -> None:
    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            count = serial_model(slots).slots
            host = Host([Slot(echo_card()) for _ in range(count)])
            nursery.start_soon(host.serve)
            for piece in pieces:
                host.write(piece or b"\0")
            await trio.sleep(2 * FRAME_TIMEOUT)
            while host.wire.from_reader.statistics().current_buffer_used:
                await host.wire.from_reader.receive()
            host.start_over()
            answer = await host.ask(GetSlotStatus(0, 1))
            assert answer == SlotStatus(0, 1, IccStatus.INACTIVE, ClockStatus.STOPPED_LOW)
            nursery.cancel_scope.cancel()

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


# The terminal.


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "reader"


async def test_the_terminal_is_raw_and_outlives_those_who_open_it(link: Path) -> None:
    terminal = PseudoTerminal(link)
    every_byte = bytes(range(256))
    for _ in range(3):
        host = os.open(link, os.O_RDWR | os.O_NOCTTY)
        termios.tcflush(host, termios.TCIOFLUSH)
        with trio.fail_after(10):
            assert await terminal.receive() == b""
            os.write(host, every_byte)
            received = b""
            while len(received) < 256:
                received += await terminal.receive()
            assert received == every_byte
            assert await terminal.send(every_byte) == 256
            sent = b""
            while len(sent) < 256:
                sent += await trio.to_thread.run_sync(os.read, host, 256)
        assert sent == every_byte
        os.close(host)
    terminal.close()
    assert not link.is_symlink()


async def test_a_stale_link_is_replaced_and_one_in_use_is_not(link: Path) -> None:
    terminal = PseudoTerminal(link)
    with pytest.raises(UserError, match="another process serves it"):
        PseudoTerminal(link)
    stale = os.readlink(link)  # noqa: PTH115 (Path drops the dot)
    terminal.close()
    link.symlink_to(stale)
    second = PseudoTerminal(link)
    second.close()
    assert not link.is_symlink()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda p: p.symlink_to("/dev/pts/4094")])
async def test_what_is_no_link_of_ours_stays(link: Path, make: Callable[[Path], None]) -> None:
    make(link)
    with pytest.raises(UserError, match="it exists and is no link of ccidd's"):
        PseudoTerminal(link)
    assert os.path.lexists(link)


async def test_a_link_that_another_put_in_the_place_of_ours_stays(link: Path) -> None:
    terminal = PseudoTerminal(link)
    link.unlink()
    link.touch()
    terminal.close()
    assert link.exists()


async def test_links_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="colon"):
        PseudoTerminal(tmp_path / "a:b")
    with pytest.raises(UserError, match="No such file or directory"):
        PseudoTerminal(tmp_path / "nowhere" / "link")


# The program.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fd=0"], "--transport: serial needs --socket-path=LINK"),
        (["--connect=x"], "--transport: serial needs --socket-path=LINK"),
        ([], "--transport: serial needs --socket-path=LINK"),
        (["--socket-path=x", "--reader=level=extended"], "exchanges TPDUs alone"),
        (["--socket-path=x", "--reader=slots=6"], "at most 5 slots, not 6"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(arguments: list[str], message: str) -> None:
    result = run_ccidd("--transport=serial", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_link_in_the_way_is_one_line_and_status_1(link: Path, tmp_path: Path) -> None:
    link.touch()
    result = run_ccidd(
        "--transport=serial",
        f"--socket-path={link}",
        f"--state-dir={tmp_path}/state",
        JOURNAL_STREAM="1:1",
    )
    assert result.returncode == 1
    assert "is no link of ccidd's" in result.stderr


async def test_the_link_is_there_when_ccidd_is_ready_and_gone_when_it_ends(
    link: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    command = [
        *CCIDD,
        "--transport=serial",
        "--reader=slots=3",
        f"--socket-path={link}",
        f"--state-dir={tmp_path}/state",
    ]
    with started(command, log=log) as process, trio.fail_after(60):
        while "event=ready" not in log.read_text():
            assert process.poll() is None
            await trio.sleep(0.02)
        host = os.open(link, os.O_RDWR | os.O_NOCTTY)
        # The driver takes this model to have five slots, and so it has.
        os.write(host, bytes.fromhex("0306 65 00000000 04 07 000000 63"))
        answer = await trio.to_thread.run_sync(os.read, host, 100)
        assert answer == bytes.fromhex("0306 81 00000000 04 07 020001 84")
        os.close(host)
        process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(process.wait) == 0
    assert not link.is_symlink()


async def test_the_firmware_tells_its_name_over_the_line(
    connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    host = connect(None)
    answer = await host.ask(Escape(0, 0, b"\x02"))
    assert isinstance(answer, EscapeResponse)
    assert answer.data.startswith(b"ccidd")
