# SPDX-License-Identifier: Apache-2.0
"""One slot of a CCID reader: what each message of the host does to it.

Source: USB CCID Rev 1.1, 6.1 (PC_to_RDR messages), 5.3.1 and 6.1.13 (abort), 6.2.6 (slot status).

A slot carries out one command at a time. Each gets one final answer: when its work is done, or at
once when the host aborts it or the card is gone. Until then the host is told each second to wait
on. Only the card's next command waits for what the card may still do for one that was ended so.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import structlog
import trio

from ccid_protocol.atr import ATR
from ccid_protocol.ccid import (
    HEADER_SIZE,
    Abort,
    BadFieldError,
    BadMessage,
    ClockStatus,
    Command,
    CommandStatus,
    DataBlock,
    DataRateAndClockFrequency,
    Escape,
    EscapeResponse,
    GetParameters,
    GetSlotStatus,
    HardwareError,
    IccClock,
    IccPowerOff,
    IccPowerOn,
    IccStatus,
    Offset,
    Parameters,
    ResetParameters,
    Response,
    Secure,
    SetDataRateAndClockFrequency,
    SetParameters,
    SlotError,
    SlotStatus,
    T0Apdu,
    XfrBlock,
    failure,
    response_type,
)
from ccidd.card.card import CardGoneError
from ccidd.reader.active_card import ActiveCard, automatic_parameters, default_parameters
from ccidd.reader.escape import answer_escape
from ccidd.reader.exchange import (
    ExtendedApduExchange,
    ShortApduExchange,
    SlotFailure,
    TpduExchange,
)
from ccidd.reader.presence import Presence
from ccidd.reader.profile import CLOCK, DATA_RATES, Level, ReaderProfile
from ccidd.reader.secure import PinPad
from ccidd.reader.slot import Insertion, Slot

log: structlog.stdlib.BoundLogger = structlog.get_logger()

TIME_EXTENSION_INTERVAL: Final = 0.9
"""Seconds between time extensions: hosts want one each second."""

POWER_ON_TIMEOUT: Final = 4.5
"""Seconds that a card has for its answer to reset: hosts wait for 5, and for no time extension."""

REMOVAL_TIMEOUT: Final = 1.0
"""Seconds that a command may still take when the whole reader is to go."""

Respond: TypeAlias = Callable[[Response], None]

# Those that wait for the card; all others are answered at once.
_Slow: TypeAlias = IccPowerOn | XfrBlock | Secure


class _Handover:
    """Where a worker that has nothing to do is given its next command."""

    def __init__(self) -> None:
        self._ready = trio.Event()
        self._work: tuple[_Slow, trio.CancelScope] | None = None

    def put(self, command: _Slow, scope: trio.CancelScope) -> None:
        """Gives the command, and the scope that ends it; once."""
        self._work = command, scope
        self._ready.set()

    async def take(self) -> tuple[_Slow, trio.CancelScope]:
        """Waits for it."""
        await self._ready.wait()
        assert self._work is not None
        return self._work


class CcidSlot:
    """The state of one slot, and the command that it carries out.

    Args:
        slot: the slot and its card.
        profile: the reader's profile.
        respond: sends an answer to the host.
        announce: called when the host is to be notified of something.
        pin_pad: how PINs are entered, if they can be.
    """

    def __init__(
        self,
        slot: Slot,
        profile: ReaderProfile,
        respond: Respond,
        announce: Callable[[], None],
        pin_pad: PinPad | None = None,
    ) -> None:
        self._slot = slot
        self._profile = profile
        self._send = respond
        self._announce = announce
        self._pin_pad = pin_pad
        self._tasks: trio.Nursery | None = None
        # The card.
        self._insertion = slot.insertion
        self._active: ActiveCard | None = None
        self.presence: Final = Presence(present=self.is_present)
        """What the host has been told of the card's comings and goings."""
        self.hardware_error: HardwareError | None = None
        """What the host is yet to be notified of."""
        # The command that is carried out, and what ends it.
        self._running: _Slow | None = None
        self._scope = trio.CancelScope()
        self._handover: _Handover | None = None
        self._began = trio.Event()
        self._extension_is_due = 0.0
        self._idle = trio.Event()
        self._idle.set()
        # The halves of an abort.
        self._control_abort: int | None = None
        self._bulk_abort: Abort | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a command is being carried out."""
        return self._running is not None

    @property
    def is_present(self) -> bool:
        """Whether a card is in the slot."""
        return self._insertion is not None

    @property
    def status(self) -> IccStatus:
        """BmICCStatus."""
        if self._insertion is None:
            return IccStatus.ABSENT
        return IccStatus.INACTIVE if self._active is None else IccStatus.ACTIVE

    async def run(self) -> None:
        """Carries out commands and follows the card, until it is cancelled."""
        async with trio.open_nursery() as self._tasks:
            self._tasks.start_soon(self._extend_times)
            if self._running is not None:
                self._tasks.start_soon(self._work, self._running, self._scope)
            await self._follow()
            await trio.sleep_forever()

    # What the host says. Nothing here waits.

    def submit(self, command: Command | BadMessage) -> None:
        """Takes a message of the host for this slot.

        bMaxCCIDBusySlots is the number of slots, so that others never keep this one from working.
        """
        if isinstance(command, Abort):
            self._take_bulk_abort(command)
        elif self._control_abort is not None or self._bulk_abort is not None:
            self._fail(command, SlotError.CMD_ABORTED)
        elif isinstance(command, BadMessage):
            self._fail(command, command.error)
        elif isinstance(command, GetSlotStatus):
            self._respond(self._slot_status(command))
        elif self.is_busy:
            self._fail(command, SlotError.CMD_SLOT_BUSY)
        elif isinstance(command, _Slow):
            self._start(command)
        else:
            self._respond(self._answer_at_once(command))

    def abort(self, seq: int) -> None:
        """Takes the control half of an abort (5.3.1)."""
        if self._bulk_abort is not None and self._bulk_abort.seq != seq:
            self._fail(self._bulk_abort, SlotError.CMD_ABORTED)
            self._bulk_abort = None
        self._control_abort = seq
        self._abort_command()
        self._complete_abort()

    def forget_command(self) -> None:
        """Ends what a host was about that is there no more; another has begun anew.

        Neither a command nor half an abort is answered. The card stays as it is.
        """
        self._control_abort = self._bulk_abort = None
        self._abort_command(None)

    def reset(self) -> None:
        """Does what a reset of the bus does: the card is off, and nothing is left to answer."""
        self._control_abort = self._bulk_abort = None
        self._end_command(None)
        self._power_off()
        self.hardware_error = None
        self.presence.start_over()

    def _take_bulk_abort(self, command: Abort) -> None:
        if self._control_abort not in {None, command.seq}:
            self._fail(command, SlotError.CMD_ABORTED)
            return
        if self._bulk_abort is not None:
            # The host has given up waiting for the one before.
            self._fail(self._bulk_abort, SlotError.CMD_ABORTED)
        self._bulk_abort = command
        self._abort_command()
        self._complete_abort()

    def _abort_command(self, error: int | None = SlotError.CMD_ABORTED) -> None:
        self._end_command(error)
        if self._active is not None:
            self._active.exchange.abort()

    def _complete_abort(self) -> None:
        """Answers the abort when both of its halves are there."""
        if self._bulk_abort is not None and self._control_abort is not None:
            command, self._bulk_abort, self._control_abort = self._bulk_abort, None, None
            self._respond(self._slot_status(command))

    def _respond(self, response: Response) -> None:
        """Gives a final answer, which tells the host whether a card is there."""
        self.presence.known = True
        self._send(response)

    def _fail(self, command: Command | BadMessage, error: int) -> None:
        self._respond(failure(command, self.status, error))

    def _slot_status(self, command: Command) -> SlotStatus:
        # A card without power has its clock contact at the lower level (ISO/IEC 7816-3, 6.4).
        clock = ClockStatus.STOPPED_LOW if self._active is None else self._active.clock
        return SlotStatus(command.slot, command.seq, self.status, clock)

    # Commands that need no time.

    def _answer_at_once(self, command: Command) -> Response:
        try:
            return self._answer(command)
        except BadFieldError as error:
            return failure(command, self.status, error.offset)
        except SlotFailure as error:
            return failure(command, self.status, error.error)

    def _answer(self, command: Command) -> Response:
        slot, seq = command.slot, command.seq
        match command:
            case IccPowerOff():
                self._power_off()
                return self._slot_status(command)
            case GetParameters() | ResetParameters() | SetParameters():
                parameters = self._require_active().update_parameters(command)
                return Parameters(slot, seq, self.status, parameters)
            case IccClock(clock_command=clock_command):
                self._require_active().set_clock(clock_command)
                return self._slot_status(command)
            case T0Apdu() if self._profile.level is not Level.TPDU:
                # The card's end of T=0 takes any class byte that the host may choose.
                return self._slot_status(command)
            case Escape(data=data):
                answer = answer_escape(data, self._slot.name, has_pin_pad=self._pin_pad is not None)
                return EscapeResponse(slot, seq, self.status, answer)
            case SetDataRateAndClockFrequency(data_rate=wanted):
                slower = [rate for rate in DATA_RATES if rate <= wanted]
                given = max(slower, default=DATA_RATES[0])
                return DataRateAndClockFrequency(slot, seq, self.status, CLOCK, given)
            case _:
                # Mechanical among them: there is nothing to move.
                raise SlotFailure(SlotError.CMD_NOT_SUPPORTED)

    def _require_active(self) -> ActiveCard:
        if self._active is None:
            raise SlotFailure(SlotError.ICC_MUTE)
        return self._active

    # Commands that wait for the card.

    def _start(self, command: _Slow) -> None:
        self._running = command
        self._extension_is_due = trio.current_time() + TIME_EXTENSION_INTERVAL
        self._began.set()
        self._idle = trio.Event()
        self._scope = trio.CancelScope()
        if self._handover is not None:
            self._handover.put(command, self._scope)
            self._handover = None
        elif self._tasks is not None:
            # A host may be there before the reader runs.
            self._tasks.start_soon(self._work, command, self._scope)

    def _end_command(self, error: int | None) -> None:
        """Ends the command, which is answered with an error or not at all."""
        if self._running is None:
            return
        command, self._running = self._running, None
        self._idle.set()
        self._scope.cancel()
        if error is not None:
            self._fail(command, error)

    async def _work(self, command: _Slow, scope: trio.CancelScope) -> None:
        """Carries out one command after the other.

        A command that was ended may go on for a while, as threads do. The next one then has another
        worker, and of those that are done one waits for more.
        """
        # For the log, whatever comes to speak on the way to the card.
        structlog.contextvars.bind_contextvars(slot=self._slot.index)
        while True:
            await self._carry_out(command, scope)
            if self._handover is not None:
                return
            self._handover = handover = _Handover()
            command, scope = await handover.take()

    async def _carry_out(self, command: _Slow, scope: trio.CancelScope) -> None:
        with scope:
            # A command may be ended before its task begins.
            await trio.lowlevel.checkpoint_if_cancelled()
            response = await self._outcome(command)
            if self._running is command:
                self._running = None
                self._idle.set()
                self._respond(response)

    async def _outcome(self, command: _Slow) -> Response:
        try:
            return await self._do(command)
        except BadFieldError as error:
            return failure(command, self.status, error.offset)
        except SlotFailure as error:
            return failure(command, self.status, error.error)
        except CardGoneError:
            return failure(command, self.status, SlotError.ICC_MUTE)
        except Exception:
            # A fault of the card must look like one to the host, and nothing else may suffer.
            log.exception("card_fault", slot=command.slot)
            if self._running is command:
                self.hardware_error = HardwareError(command.slot, command.seq)
                self._announce()
            return failure(command, self.status, SlotError.HW_ERROR)

    async def _extend_times(self) -> None:
        """Tells the host to wait on, for as long as a command runs.

        One task does it for all commands, and sleeps through those that are short.
        """
        while True:
            await self._began.wait()
            while (command := self._running) is not None:
                if trio.current_time() < self._extension_is_due:
                    await trio.sleep_until(self._extension_is_due)
                    continue
                self._extension_is_due += TIME_EXTENSION_INTERVAL
                if not isinstance(command, IccPowerOn):
                    # libccid would take that for an ATR of no bytes.
                    self._extend_time(command)
            self._began = trio.Event()

    def _extend_time(self, command: _Slow) -> None:
        kind = response_type(command.message_type)
        status = CommandStatus.TIME_EXTENSION
        slot, seq = command.slot, command.seq
        self._send(kind(slot, seq, IccStatus.ACTIVE, command_status=status, error=1))

    async def _do(self, command: _Slow) -> Response:
        match command:
            case IccPowerOn():
                return await self._power_on(command)
            case XfrBlock():
                return await self._transfer(command)
            case Secure():
                return await self._enter_pin(command)

    async def _power_on(self, command: IccPowerOn) -> Response:
        insertion = self._insertion
        if insertion is None:
            raise SlotFailure(SlotError.ICC_MUTE)
        self._deactivate()
        try:
            with trio.move_on_after(POWER_ON_TIMEOUT):
                atr = await insertion.power_on()
                if not {0, 1} & set(atr.protocols):
                    raise SlotFailure(SlotError.ICC_PROTOCOL_NOT_SUPPORTED)
                self._active = self._activate(insertion, atr)
                return DataBlock(command.slot, command.seq, self.status, atr.encode())
            raise SlotFailure(SlotError.ICC_MUTE)
        finally:
            # What has begun meanwhile powers the card by itself.
            if self._active is None and self._running in {command, None}:
                self._cut_power(insertion)

    async def _transfer(self, command: XfrBlock) -> Response:
        card = self._require_active()
        card.clock = ClockStatus.RUNNING
        data, chain = await card.exchange.transfer(command.data, command.level)
        return DataBlock(command.slot, command.seq, self.status, data, chain)

    async def _enter_pin(self, command: Secure) -> Response:
        if self._pin_pad is None:
            raise SlotFailure(SlotError.CMD_NOT_SUPPORTED)
        card = self._require_active()
        if card.exchange.is_amid or (command.level and self._profile.level is Level.EXTENDED_APDU):
            # Nothing that begins a PIN entry is too long for one message.
            raise BadFieldError(Offset.LEVEL_PARAMETER)
        card.clock = ClockStatus.RUNNING
        data = await self._pin_pad.carry_out(command.data, card.exchange)
        return DataBlock(command.slot, command.seq, self.status, data)

    def _activate(self, card: Insertion, atr: ATR) -> ActiveCard:
        if self._profile.level is Level.TPDU:
            assert self._tasks is not None
            tpdu = TpduExchange(card, atr, self._tasks)
            return ActiveCard(atr, tpdu, default_parameters(atr))
        if self._profile.level is Level.SHORT_APDU:
            return ActiveCard(atr, ShortApduExchange(card), automatic_parameters(atr))
        max_data = self._profile.max_message_length - HEADER_SIZE
        exchange = ExtendedApduExchange(card, max_data)
        return ActiveCard(atr, exchange, automatic_parameters(atr))

    def _deactivate(self) -> None:
        if self._active is not None:
            self._active.exchange.close()
            self._active = None

    def _power_off(self) -> None:
        self._deactivate()
        if self._insertion is not None:
            self._cut_power(self._insertion)

    def _cut_power(self, insertion: Insertion) -> None:
        """Takes the power from a card that the host has no more to do with, and waits for nothing.

        Before the reader runs no card has had power.
        """
        if self._tasks is not None and insertion.cut_power():
            self._tasks.start_soon(_settle, insertion)

    # The card comes and goes.

    async def _follow(self) -> None:
        while not self._slot.unplugged:
            await self._slot.wait_until_not(self._insertion)
            await self._let_finish()
            gone, self._insertion = self._insertion, self._slot.insertion
            self._deactivate()
            self._end_command(SlotError.ICC_MUTE)
            self.presence.change(present=self.is_present)
            self._announce()
            if gone is not None:
                self._cut_power(gone)

    async def _let_finish(self) -> None:
        """Gives a command some time where the whole reader is to go; a card is gone at once."""
        if self._slot.unplugged:
            with trio.move_on_after(REMOVAL_TIMEOUT):
                await self._idle.wait()


async def _settle(card: Insertion) -> None:
    try:
        await card.settle()
    except Exception:
        log.exception("card_fault")
