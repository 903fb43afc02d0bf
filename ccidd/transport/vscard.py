# SPDX-License-Identifier: Apache-2.0
"""The front door `vscard`: a card for QEMU's usb-ccid with ccid-card-passthru.

One connection serves one slot, as `ccid_protocol.vscard` describes. QEMU remembers reader and card
beyond a connection, and may show a guest what an earlier client left behind. So each connection
starts by taking the reader away, and plugs it in anew with the card that is there now.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Final

import structlog
import trio

from ccid_protocol import vscard
from ccid_protocol.apdu import ResponseAPDU, StatusWord
from ccid_protocol.atr import ATR
from ccid_protocol.ccid import (
    DataBlock,
    IccPowerOn,
    IccStatus,
    NotifySlotChange,
    SlotChange,
    XfrBlock,
)
from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.events import ConnectionClosed, NeedData
from ccidd.card.card import Card, CardGoneError
from ccidd.reader.short_responses import ShortResponses
from ccidd.reader.slot import Insertion, Slot
from ccidd.reader.witness import Witness
from ccidd.transport.sockets import write_now

log: structlog.stdlib.BoundLogger = structlog.get_logger()

INIT_TIMEOUT: Final = 10.0
"""Seconds that QEMU has to answer Init. It does so at once, even while the guest is paused."""

REMOVAL_TIMEOUT: Final = 1.0
"""Seconds that a command may still take when its card is to be removed."""

GOODBYE_TIMEOUT: Final = 2.0
"""Seconds that QEMU has to see card and reader go, commands in flight included."""

QUIET_TIME: Final = 0.1
"""Seconds without a command after which a guest is taken to be at rest."""

SWAP_DELAY: Final = 0.3
"""Seconds between two cards: more than a guest takes to poll the interrupt endpoint once.

QEMU keeps one flag for all changes, so a guest that has not polled would miss the removal.
"""

_READER_NAME: Final = b"ccidd"
_RECEIVE_SIZE: Final = 65536

# What a command gets whose card does not answer: it must have an answer, to keep QEMU in step.
_CARD_IS_MUTE: Final = ResponseAPDU(sw=StatusWord.NO_PRECISE_DIAGNOSIS).encode()


async def serve_vscard(stream: trio.abc.Stream, slot: Slot, witness: Witness | None = None) -> bool:
    """Serves a connection until QEMU closes it, breaks it, or the slot is unplugged.

    Args:
        stream: the connection, which the caller closes.
        slot: the slot; its card is powered on for this connection.
        witness: who looks on, and sees messages of CCID for those of VSCARD.

    Returns:
        Whether the peer spoke VSCARD at all.
    """
    session = _Session(stream, slot, witness)
    try:
        await session.run()
    except* RemoteProtocolError as errors:
        log.warning("connection_failed", reason="; ".join(map(str, errors.exceptions)))
    except* trio.BrokenResourceError:
        # QEMU closes so where it has not read all: when it is killed, or the device is unplugged.
        log.info("connection_closed", unread=True)
    else:
        log.info("connection_closed")
    return session.is_open


class _Interpreter:
    """Tells a witness in messages of CCID what is said in messages of VSCARD."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._commands = itertools.count()
        self._responses = itertools.count()

    def insertion(self, atr: bytes) -> None:
        """Tells that a card is there, with its ATR."""
        self._witness.notification(NotifySlotChange((SlotChange(present=True, changed=True),)))
        self._witness.command(IccPowerOn(0, _next(self._commands)))
        self.response(atr)

    def command(self, data: bytes) -> None:
        """Tells of a command."""
        self._witness.command(XfrBlock(0, _next(self._commands), data))

    def response(self, data: bytes) -> None:
        """Tells of a response; they are in the order of the commands."""
        self._witness.response(DataBlock(0, _next(self._responses), IccStatus.ACTIVE, data=data))

    def removal(self) -> None:
        """Tells that the card is gone."""
        self._witness.notification(NotifySlotChange((SlotChange(present=False, changed=True),)))


def _next(counter: Iterator[int]) -> int:
    """Gives the next bSeq."""
    return next(counter) % 256


async def _transmit(card: ShortResponses, command: bytes) -> bytes:
    """Has a card carry out a command; a fault of it is a card that does not answer."""
    try:
        return await card.transmit(command)
    except CardGoneError:
        return _CARD_IS_MUTE
    except Exception:
        log.exception("card_fault")
        return _CARD_IS_MUTE


class _Session:
    """One connection. A task reads, one answers commands in order, one follows the slot."""

    def __init__(self, stream: trio.abc.Stream, slot: Slot, witness: Witness | None) -> None:
        self._witness = None if witness is None else _Interpreter(witness)
        self._stream = stream
        self._slot = slot
        self._connection = vscard.Connection(vscard.Role.CLIENT)
        self._sending = trio.Lock()
        self._progress = trio.Event()
        # The connection refuses to have more commands pending than the channel holds.
        self._commands_in, self._commands = trio.open_memory_channel[vscard.APDU | vscard.Flush](
            2 * vscard.MAX_PENDING_APDUS
        )
        self._last_error = vscard.Error(vscard.ErrorCode.SUCCESS)
        self._reader_id = 0
        self._card: ShortResponses | None = None
        self._working = trio.CancelScope()
        self._last_command = -math.inf

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, nursery.cancel_scope)
            nursery.start_soon(self._answer_commands)
            nursery.start_soon(self._limit_goodbye, nursery.cancel_scope)
            if await self._greet():
                await self._follow_slot()
            nursery.cancel_scope.cancel()

    async def _limit_goodbye(self, session: trio.CancelScope) -> None:
        await self._slot.wait_until_unplugged()
        self._announce_progress()
        await trio.sleep(GOODBYE_TIMEOUT)
        log.warning("peer_does_not_answer")
        session.cancel()

    # Reading: it never waits for anything but the peer, who may stop a whole virtual machine until
    # what it sent is read.

    async def _receive(self, session: trio.CancelScope) -> None:
        while True:
            self._connection.receive_data(bytes(await self._stream.receive_some(_RECEIVE_SIZE)))
            while not isinstance(event := self._connection.next_event(), NeedData):
                if isinstance(event, ConnectionClosed):
                    with trio.move_on_after(REMOVAL_TIMEOUT):
                        await self._until(lambda: not self._connection.pending_apdus)
                    session.cancel()
                    return
                self._take(event)
            self._announce_progress()

    def _take(self, message: vscard.Message) -> None:
        match message:
            case vscard.Error():
                self._last_error = message
            case vscard.APDU() | vscard.Flush():
                self._last_command = trio.current_time()
                if self._witness is not None and isinstance(message, vscard.APDU):
                    self._witness.command(message.data)
                try:
                    self._commands_in.send_nowait(message)
                except trio.WouldBlock:
                    raise RemoteProtocolError("more Flush messages than can wait") from None
            case _:
                # A repeated Init: QEMU sends one by itself when it starts.
                pass

    # Answering.

    async def _answer_commands(self) -> None:
        structlog.contextvars.bind_contextvars(slot=0)
        async for message in self._commands:
            if isinstance(message, vscard.Flush):
                await self._send(vscard.FlushComplete(message.reader_id))
                continue
            response = _CARD_IS_MUTE
            with trio.CancelScope() as self._working:
                if self._card is not None:
                    response = await _transmit(self._card, message.data)
            await self._until(lambda: self.is_open)
            if self._witness is not None:
                self._witness.response(response)
            await self._send(vscard.APDU(response, self._reader_id))
            self._announce_progress()

    # Following the slot.

    async def _greet(self) -> bool:
        """Plugs the reader in; False if it was unplugged before QEMU had said a word."""
        await self._send(vscard.Init())
        with trio.move_on_after(INIT_TIMEOUT) as waiting:
            await self._until(lambda: self.is_open or self._slot.unplugged)
        if waiting.cancelled_caught:
            raise RemoteProtocolError(
                f"no answer to Init in {INIT_TIMEOUT:.0f} s; a QEMU serves one client at a time,"
                " and one whose last client died within a message needs QMP's chardev-send-break"
            )
        if not self.is_open:
            return False
        await self._end_command_left_behind()
        await self._notify(vscard.ReaderRemove())
        self._reader_id = (await self._notify(vscard.ReaderAdd(_READER_NAME))).reader_id
        log.info("reader_added")
        await trio.sleep(SWAP_DELAY)
        return True

    async def _end_command_left_behind(self) -> None:
        """Frees a guest that waits since an earlier ccidd was killed at work."""
        async with self._sending:
            # A guest that sends commands now waits for no older one.
            if not self._connection.pending_apdus:
                error = vscard.Error(vscard.ErrorCode.GENERAL_ERROR)
                await self._stream.send_all(self._connection.send(error))
        self._last_command = trio.current_time()
        await self._wait_for_rest()

    async def _follow_slot(self) -> None:
        while not self._slot.unplugged:
            insertion = self._slot.insertion
            if insertion is None:
                await self._slot.wait_until_not(None)
                continue
            try:
                atr = await self._power_on(insertion)
                if atr is not None:
                    await self._insert(insertion, atr)
                await self._slot.wait_until_not(insertion)
                if atr is not None:
                    await self._remove()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + REMOVAL_TIMEOUT):
                    await insertion.power_off()
            if not self._slot.unplugged:
                await trio.sleep(SWAP_DELAY)
        await self._notify(vscard.ReaderRemove(self._reader_id))

    async def _power_on(self, insertion: Insertion) -> ATR | None:
        """Powers a card on; None if it is mute, or gone before it answers."""
        atr = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_gone, insertion, nursery.cancel_scope)
            try:
                atr = await insertion.power_on()
            except CardGoneError:
                log.info("card_is_mute")
            except Exception:
                log.exception("card_fault")
            nursery.cancel_scope.cancel()
        return atr

    async def _cancel_when_gone(self, insertion: Insertion, scope: trio.CancelScope) -> None:
        await self._slot.wait_until_not(insertion)
        scope.cancel()

    async def _insert(self, card: Card, answer_to_reset: ATR) -> None:
        # QEMU's reader speaks T=0 alone.
        atr = answer_to_reset.for_t0().encode()
        short_responses = ShortResponses(
            card, longest=vscard.MAX_RESPONSE, forbidden={vscard.UNSAFE_RESPONSE_LENGTH}
        )
        answer = await self._notify(vscard.ATR(atr, self._reader_id), short_responses)
        if self._witness is not None:
            self._witness.insertion(atr)
        if answer.code == vscard.ErrorCode.SUCCESS:
            log.info("card_inserted", atr=atr.hex())

    async def _remove(self) -> None:
        with trio.move_on_after(REMOVAL_TIMEOUT):
            await self._until(lambda: not self._connection.pending_apdus)
        self._card = None
        self._working.cancel()
        await self._wait_for_rest()
        if self._witness is not None:
            self._witness.removal()
        await self._notify(vscard.CardRemove(self._reader_id))
        log.info("card_removed")

    async def _wait_for_rest(self) -> None:
        """Waits until the guest sends no more commands, all of which fail by now.

        QEMU forgets commands that cross the removal of their card without a word to the guest
        (on all controllers but xHCI). A guest at rest sends none.
        """
        with trio.move_on_after(REMOVAL_TIMEOUT):
            # An event cannot tell of time that went by; each command moves the end (ASYNC110).
            while (rested := self._last_command + QUIET_TIME) > trio.current_time():  # noqa: ASYNC110
                await trio.sleep_until(rested)

    async def _notify(
        self, message: vscard.Notification, card: ShortResponses | None = None
    ) -> vscard.Error:
        """Sends a notification as soon as no command is pending, and waits for its answer.

        Args:
            message: the notification.
            card: what gets the commands that come behind the answer. Those before it are for no
                card, and wait for none.
        """
        while True:
            await self._until(lambda: not self._connection.pending_apdus)
            async with self._sending:
                if not self._connection.pending_apdus:
                    data = self._connection.send(message)
                    self._card = card
                    await self._stream.send_all(data)
                    break
        await self._until(lambda: self._connection.unanswered is None)
        if self._last_error.code != vscard.ErrorCode.SUCCESS:
            log.warning(
                "notification_refused",
                notification=type(message).__name__,
                code=self._last_error.code,
            )
        return self._last_error

    # What all of them need.

    async def _send(self, message: vscard.Message) -> None:
        # One message, one write: the stream's bytes are in the order of the connection's states.
        try:
            # A lock that is free costs no turn of the event loop.
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            data = self._connection.send(message)
            written = write_now(self._stream, data)
            if written < len(data):
                await self._stream.send_all(data[written:])
        finally:
            self._sending.release()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._progress.wait()

    def _announce_progress(self) -> None:
        self._progress.set()
        self._progress = trio.Event()
