# SPDX-License-Identifier: Apache-2.0
"""One connection with QEMU, played by an emulated one on the other end of a memory stream."""

import pytest
import trio
import trio.testing
from structlog.typing import EventDict

from cards import ScriptedCard, echo_card, response_of_length
from ccid_protocol import vscard
from ccid_protocol.apdu import CommandAPDU
from ccid_protocol.atr import ATR
from ccid_protocol.events import NEED_DATA
from ccidd.card.card import CardGoneError
from ccidd.reader.slot import Slot
from ccidd.transport.vscard import INIT_TIMEOUT, SWAP_DELAY, serve_vscard
from qemu_peer import QemuPeer

OK = b"\x90\x00"


class Bench:
    """A session on one end of a stream, and an emulated QEMU on the other."""

    def __init__(self, nursery: trio.Nursery, slot: Slot, *, answers: bool = True) -> None:
        self._nursery = nursery
        self.slot = slot
        self.ours, self.theirs = trio.testing.memory_stream_pair()
        self.peer = QemuPeer(self.theirs, answers=answers)
        self.spoke_vscard: bool | None = None
        self.ended = trio.Event()

    async def _serve(self) -> None:
        async with self.ours:
            self.spoke_vscard = await serve_vscard(self.ours, self.slot)
        self.ended.set()

    async def start(self, *, peer: bool = True) -> None:
        self._nursery.start_soon(self._serve)
        if peer:
            self._nursery.start_soon(self.peer.run)
            await self.peer.until(lambda: self.slot.insertion is None or self.peer.atr)


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(nursery, Slot(echo_card()))


async def test_the_card_comes_after_the_reader_was_taken_away_and_plugged_in(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.start()
    assert bench.peer.seen == [
        vscard.Init(),
        vscard.Error(vscard.ErrorCode.GENERAL_ERROR),
        vscard.ReaderRemove(),
        vscard.ReaderAdd(b"ccidd"),
        vscard.ATR(bytes.fromhex("3B04") + b"test", 0),
    ]


async def test_commands_are_answered_in_order(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.start()
    for length in (2, 100, 3):
        await bench.peer.send(vscard.APDU(CommandAPDU(0, 0x10, 0, length).encode()))
    await bench.peer.until(lambda: len(bench.peer.seen) == 8)
    answers = [m for m in bench.peer.seen if isinstance(m, vscard.APDU)]
    assert [len(answer.data) for answer in answers] == [2, 100, 3]


async def test_a_response_that_would_harm_qemu_is_cut_and_continued(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.start()
    first = await bench.peer.transmit(bytes.fromhex("00100036"))
    assert (len(first), first[-2:]) == (53, b"\x61\x01")
    assert await bench.peer.transmit(bytes.fromhex("00C0000001")) == bytes([51]) + OK
    assert len(await bench.peer.transmit(bytes.fromhex("00101000"))) == 374


@pytest.mark.parametrize(
    ("fault", "events"), [(CardGoneError, []), (ZeroDivisionError, ["card_fault"])]
)
async def test_a_command_to_a_card_that_fails_gets_an_answer(
    nursery: trio.Nursery,
    logs: list[EventDict],
    fault: type[Exception],
    events: list[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def answer(command: bytes) -> bytes:
        raise fault

    bench = Bench(nursery, Slot(ScriptedCard(answer)))
    await bench.start()
    logs.clear()
    assert await bench.peer.transmit(b"\0\x10\0\0") == b"\x6f\0"
    assert [entry["event"] for entry in logs if entry["event"] == "card_fault"] == events


class MuteCard(ScriptedCard):
    """A card that gives no answer to reset: at once, or never."""

    def __init__(self, fault: type[Exception] | None) -> None:
        super().__init__(response_of_length)
        self._fault = fault

    async def power_on(self) -> ATR:
        if self._fault is not None:
            raise self._fault
        return await trio.sleep_forever()


@pytest.mark.parametrize("fault", [CardGoneError, ZeroDivisionError, None])
async def test_a_mute_card_is_none_and_the_next_is_there(
    nursery: trio.Nursery,
    fault: type[Exception] | None,
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(nursery, Slot())
    await bench.start()
    bench.slot.insert(MuteCard(fault))
    await trio.sleep(10)
    assert bench.peer.seen[-1] == vscard.ReaderAdd(b"ccidd")
    bench.slot.insert(echo_card())
    await bench.peer.until(lambda: bench.peer.atr)
    assert await bench.peer.transmit(b"\0\x10\0\2") == OK


async def test_commands_that_come_before_the_atr_are_for_no_card(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer(command: bytes) -> bytes:
        # It would hold up its own ATR, and its removal.
        return await trio.sleep_forever()

    bench = Bench(nursery, Slot())
    await bench.start()
    await bench.peer.until(lambda: vscard.ReaderAdd(b"ccidd") in bench.peer.seen)
    await trio.sleep(SWAP_DELAY)
    bench.slot.insert(ScriptedCard(answer))
    for _ in range(20):
        await bench.peer.send(vscard.APDU(b"\0\x10\0\2"))
    with trio.fail_after(10):
        await bench.peer.until(lambda: bench.peer.atr)
    assert bench.peer.seen[-21:-1] == [vscard.APDU(b"\x6f\0", 0)] * 20


async def test_an_unplugged_reader_says_goodbye(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.start()
    bench.slot.unplug()
    await bench.ended.wait()
    assert bench.peer.seen[-2:] == [vscard.CardRemove(0), vscard.ReaderRemove(0)]
    assert bench.spoke_vscard


async def test_the_command_in_flight_is_answered_before_its_card_goes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer(command: bytes) -> bytes:
        await trio.sleep(0.5)
        return b"late" + OK

    bench = Bench(nursery, Slot(ScriptedCard(answer)))
    await bench.start()
    await bench.peer.send(vscard.APDU(b"\0\x10\0\0"))
    await trio.testing.wait_all_tasks_blocked()
    bench.slot.unplug()
    await bench.ended.wait()
    assert bench.peer.seen[-3:] == [
        vscard.APDU(b"late" + OK, 0),
        vscard.CardRemove(0),
        vscard.ReaderRemove(0),
    ]


async def test_a_card_that_works_too_long_is_removed_all_the_same(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer(command: bytes) -> bytes:
        await trio.sleep(3600)
        return OK

    bench = Bench(nursery, Slot(ScriptedCard(answer)))
    await bench.start()
    for _ in range(3):
        await bench.peer.send(vscard.APDU(b"\0\x10\0\0"))
    await trio.testing.wait_all_tasks_blocked()
    start = trio.current_time()
    bench.slot.remove()
    await bench.peer.until(lambda: bench.peer.atr is None)
    assert trio.current_time() - start <= 1.0
    assert bench.peer.seen[-4:] == [vscard.APDU(b"\x6f\0", 0)] * 3 + [vscard.CardRemove(0)]


async def test_a_swap_leaves_the_guest_time_to_see_both(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.start()
    second = ScriptedCard(echo_card().transmit, historical=b"second")
    start = trio.current_time()
    bench.slot.insert(second)
    await bench.peer.until(lambda: bench.peer.atr == bytes.fromhex("3B06") + b"second")
    assert trio.current_time() - start == pytest.approx(SWAP_DELAY)
    assert isinstance(bench.peer.seen[-2], vscard.CardRemove)
    assert len(await bench.peer.transmit(bytes.fromhex("00100004"))) == 4


async def test_a_card_that_comes_later_is_inserted_later(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    bench = Bench(nursery, Slot())
    await bench.start()
    await trio.testing.wait_all_tasks_blocked()
    assert bench.peer.atr is None
    assert bench.peer.reader_is_there
    bench.slot.insert(echo_card())
    await bench.peer.until(lambda: bench.peer.atr)


async def test_the_card_is_powered_as_long_as_it_is_connected(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    card = echo_card()
    bench = Bench(nursery, Slot(card))
    await bench.start()
    assert card.history == ["on"]
    await bench.theirs.send_eof()
    await bench.ended.wait()
    assert card.history == ["on", "off"]
    again = Bench(nursery, Slot(card))
    await again.start()
    assert card.history == ["on", "off", "on"]


async def test_init_that_qemu_sends_by_itself_disturbs_nothing(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.start()
    await bench.peer.send(vscard.Init())
    assert await bench.peer.transmit(bytes.fromhex("00100002")) == OK


async def test_a_guest_that_is_at_work_when_the_card_comes_sees_its_command_fail(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.start(peer=False)
    command = vscard.encode(vscard.APDU(bytes.fromhex("00100002")))
    await bench.theirs.send_all(vscard.encode(vscard.Init()) + command)
    connection = vscard.Connection(vscard.Role.HOST)
    connection.send(vscard.Init())
    seen: list[object] = []
    while vscard.ReaderRemove() not in seen:
        connection.receive_data(bytes(await bench.theirs.receive_some(1000)))
        while (event := connection.next_event()) is not NEED_DATA:
            seen.append(event)
            if event == vscard.Init():
                connection.send(vscard.APDU(bytes.fromhex("00100002")))
    # There may be an Error for a command left behind, if the guest's was answered before it.
    assert [event for event in seen if not isinstance(event, vscard.Error)] == [
        vscard.Init(),
        vscard.APDU(b"\x6f\x00", 0),
        vscard.ReaderRemove(),
    ]
    await bench.theirs.send_eof()
    await bench.ended.wait()


async def test_flush_is_answered_after_the_commands_before_it(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.start()
    await bench.peer.send(vscard.APDU(bytes.fromhex("00100002")))
    await bench.peer.send(vscard.Flush())
    await bench.peer.until(lambda: vscard.FlushComplete() in bench.peer.seen)
    assert bench.peer.seen[-2:] == [vscard.APDU(OK, 0), vscard.FlushComplete()]


async def test_a_peer_that_does_not_answer_init_is_given_up(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, logs: list[EventDict]
) -> None:
    bench = Bench(nursery, Slot(echo_card()), answers=False)
    nursery.start_soon(bench.peer.run)
    await bench.start(peer=False)
    start = trio.current_time()
    await bench.ended.wait()
    assert trio.current_time() - start == INIT_TIMEOUT
    assert not bench.spoke_vscard
    assert [entry["event"] for entry in logs] == ["connection_failed"]
    assert "chardev-send-break" in logs[0]["reason"]


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "type", id="another protocol"),
        pytest.param(vscard.encode(vscard.APDU(b"\0\0\0\0")) * 200, "unanswered", id="a flood"),
        pytest.param(vscard.encode(vscard.Flush()) * 500, "Flush", id="a flood of Flush"),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_left_with_one_line(
    bench: Bench,
    garbage: bytes,
    reason: str,
    logs: list[EventDict],
    autojump_clock: trio.testing.MockClock,
) -> None:
    await bench.start()
    await bench.theirs.send_all(garbage)
    await bench.ended.wait()
    (failure,) = [entry for entry in logs if entry["log_level"] != "info"]
    assert failure["event"] == "connection_failed"
    assert reason in failure["reason"]


async def test_a_peer_that_closes_ends_the_connection_quietly(
    bench: Bench, logs: list[EventDict], autojump_clock: trio.testing.MockClock
) -> None:
    await bench.start()
    await bench.theirs.send_eof()
    await bench.ended.wait()
    assert logs[-1]["event"] == "connection_closed"
    assert bench.spoke_vscard


async def test_we_read_although_the_card_works(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer(command: bytes) -> bytes:
        await trio.sleep(60)
        return OK

    bench = Bench(nursery, Slot(ScriptedCard(answer)))
    await bench.start()
    for _ in range(128):
        await bench.peer.send(vscard.APDU(bytes(300)))
    await trio.testing.wait_all_tasks_blocked()
    await bench.peer.until(lambda: bench.peer.seen.count(vscard.APDU(OK, 0)) == 128)
