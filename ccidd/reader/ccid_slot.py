# SPDX-License-Identifier: Apache-2.0
"""One slot of a CCID reader: what each message of the host does to it.

Source: USB CCID Rev 1.1, 6.1 (PC_to_RDR messages), 5.3.1 and 6.1.13 (abort), 6.2.6 (slot status).

A slot carries out one command at a time. Each gets one final answer: when its work is done, when
the host aborts it, or when the card is gone. Until then the host is told each second to wait on.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import structlog
import trio

from ccid_protocol.atr import ATR
from ccid_protocol.ccid import (
    Abort,
    BadFieldError,
    BadMessage,
    ClockCommand,
    ClockStatus,
    Command,
    CommandStatus,
    DataBlock,
    DataRateAndClockFrequency,
    Escape,
    EscapeResponse,
    GetParameters,
    GetSlotStatus,
    IccClock,
    IccPowerOff,
    IccPowerOn,
    IccStatus,
    Offset,
    Parameters,
    ProtocolParameters,
    ResetParameters,
    Response,
    Secure,
    SetDataRateAndClockFrequency,
    SetParameters,
    SlotError,
    SlotStatus,
    T0Apdu,
    T0Parameters,
    T1Parameters,
    XfrBlock,
    failure,
    response_type,
    t0_parameters,
    t1_parameters,
)
from ccidd.reader.escape import answer_escape
from ccidd.reader.exchange import (
    Exchange,
    ExtendedApduExchange,
    ShortApduExchange,
    SlotFailure,
    TpduExchange,
)
from ccidd.reader.profile import CLOCK, DATA_RATES, Level, ReaderProfile
from ccidd.reader.secure import PinPad
from ccidd.reader.slot import Insertion, Slot

log: structlog.stdlib.BoundLogger = structlog.get_logger()

TIME_EXTENSION_INTERVAL: Final = 0.9
"""Seconds between time extensions: hosts want one each second."""

REMOVAL_TIMEOUT: Final = 1.0
"""Seconds that a command may still take when the whole reader is to go."""

Respond: TypeAlias = Callable[[Response], None]

# Those that wait for the card; all others are answered at once.
_Slow: TypeAlias = IccPowerOn | IccPowerOff | XfrBlock | Secure


class CcidSlot:
    """The state of one slot, and the command that it carries out.

    Args:
        slot: the slot and its card.
        profile: the reader's profile.
        respond: sends an answer to the host.
        announce: called when the host is to be notified of a change.
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
        self._respond = respond
        self._announce = announce
        self._pin_pad = pin_pad
        self.changed = True
        """Whether the host is yet to be notified of a change."""
        # The card.
        self._insertion = slot.insertion
        self._exchange: Exchange | None = None
        self._atr = ATR(b"")
        self._parameters: ProtocolParameters = T0Parameters()
        self._clock = ClockStatus.RUNNING
        self._data_rate = DATA_RATES[0]
        # The command that is carried out, and what ends it from outside.
        self._running: _Slow | None = None
        self._scope = trio.CancelScope()
        self._ended_by: int | None = None
        self._idle = trio.Event()
        self._idle.set()
        self._commands_in, self._commands = trio.open_memory_channel[_Slow](1)
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
        return IccStatus.INACTIVE if self._exchange is None else IccStatus.ACTIVE

    async def run(self) -> None:
        """Carries out commands and follows the card, until it is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work)
            nursery.start_soon(self._follow)

    # What the host says. Nothing here waits.

    def submit(self, command: Command | BadMessage, *, reader_is_busy: bool) -> None:
        """Takes a message of the host.

        Args:
            command: the message, for this slot.
            reader_is_busy: whether as many slots work as can at a time.
        """
        if isinstance(command, Abort):
            self._take_bulk_abort(command)
        elif self._control_abort is not None or self._bulk_abort is not None:
            self._fail(command, SlotError.CMD_ABORTED)
        elif isinstance(command, BadMessage):
            self._fail(command, command.error)
        elif isinstance(command, GetSlotStatus):
            self._respond(self._slot_status(command))
        elif self.is_busy or (reader_is_busy and isinstance(command, _Slow)):
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
        self._interrupt(SlotError.CMD_ABORTED)
        self._complete_abort()

    def reset(self) -> None:
        """Does what a reset of the bus does: the card is off, and nothing is left to answer."""
        self._control_abort = self._bulk_abort = None
        self._interrupt(None)
        self._deactivate()
        self.changed = True

    def _take_bulk_abort(self, command: Abort) -> None:
        if self._bulk_abort is not None or self._control_abort not in {None, command.seq}:
            self._fail(command, SlotError.CMD_ABORTED)
            return
        self._bulk_abort = command
        self._interrupt(SlotError.CMD_ABORTED)
        self._complete_abort()

    def _complete_abort(self) -> None:
        """Answers the abort when both of its halves are there and the command is answered."""
        if self._bulk_abort is None or self._control_abort is None or self.is_busy:
            return
        command, self._bulk_abort, self._control_abort = self._bulk_abort, None, None
        self._respond(self._slot_status(command))

    def _fail(self, command: Command | BadMessage, error: int) -> None:
        self._respond(failure(command, self.status, error))

    def _slot_status(self, command: Command) -> SlotStatus:
        return SlotStatus(command.slot, command.seq, self.status, self._clock)

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
            case GetParameters() | ResetParameters() | SetParameters():
                self._update_parameters(command)
                return Parameters(slot, seq, self.status, self._parameters)
            case IccClock(clock_command=clock_command):
                self._require_active()
                stop = clock_command is ClockCommand.STOP
                self._clock = ClockStatus.STOPPED_LOW if stop else ClockStatus.RUNNING
                return self._slot_status(command)
            case T0Apdu() if self._profile.level is not Level.TPDU:
                # The card's end of T=0 takes any class byte that the host may choose.
                return self._slot_status(command)
            case Escape(data=data):
                answer = answer_escape(data, self._slot.name)
                return EscapeResponse(slot, seq, self.status, answer)
            case SetDataRateAndClockFrequency(data_rate=wanted):
                slower = [rate for rate in DATA_RATES if rate <= wanted]
                self._data_rate = max(slower, default=DATA_RATES[0])
                return DataRateAndClockFrequency(slot, seq, self.status, CLOCK, self._data_rate)
            case _:
                # Mechanical among them: there is nothing to move.
                raise SlotFailure(SlotError.CMD_NOT_SUPPORTED)

    def _update_parameters(self, command: GetParameters | ResetParameters | SetParameters) -> None:
        exchange = self._require_active()
        if isinstance(command, ResetParameters):
            kind = type(self._parameters)
            self._parameters = kind()
        elif isinstance(command, SetParameters):
            protocol = 1 if isinstance(command.parameters, T1Parameters) else 0
            if protocol not in self._atr.protocols:
                raise BadFieldError(Offset.PARAMETER)
            self._parameters = command.parameters
            if isinstance(exchange, TpduExchange):
                exchange.select(protocol)

    def _require_active(self) -> Exchange:
        if self._exchange is None:
            raise SlotFailure(SlotError.ICC_MUTE)
        return self._exchange

    # Commands that wait for the card.

    def _start(self, command: _Slow) -> None:
        self._running = command
        self._idle = trio.Event()
        self._scope = trio.CancelScope()
        self._ended_by = None
        self._commands_in.send_nowait(command)

    def _interrupt(self, error: int | None) -> None:
        """Ends the command, which then is answered with an error, or not at all."""
        if self.is_busy:
            self._ended_by = error
            self._scope.cancel()

    async def _work(self) -> None:
        async for command in self._commands:
            response: Response | None = None
            with self._scope as scope:
                response = await self._carry_out(command)
            self._running = None
            self._idle.set()
            if scope.cancel_called:
                # What the card did is not known to the host; it hears of the end alone.
                ended = self._ended_by
                response = None if ended is None else failure(command, self.status, ended)
            if response is not None:
                self._respond(response)
            self._complete_abort()

    async def _carry_out(self, command: _Slow) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._extend_time, command)
            response = await self._outcome(command)
            nursery.cancel_scope.cancel()
        return response

    async def _extend_time(self, command: _Slow) -> None:
        kind = response_type(command.message_type)
        while True:
            await trio.sleep(TIME_EXTENSION_INTERVAL)
            self._respond(
                kind(
                    command.slot,
                    command.seq,
                    IccStatus.ACTIVE,
                    command_status=CommandStatus.TIME_EXTENSION,
                    error=1,
                )
            )

    async def _outcome(self, command: _Slow) -> Response:
        try:
            return await self._do(command)
        except BadFieldError as error:
            return failure(command, self.status, error.offset)
        except SlotFailure as error:
            return failure(command, self.status, error.error)
        except Exception:
            # A fault of the card must look like one to the host, and nothing else may suffer.
            log.exception("card_fault", slot=command.slot)
            return failure(command, self.status, SlotError.HW_ERROR)

    async def _do(self, command: _Slow) -> Response:
        match command:
            case IccPowerOn():
                return await self._power_on(command)
            case IccPowerOff():
                return await self._power_off(command)
            case XfrBlock():
                return await self._transfer(command)
            case Secure():
                return await self._enter_pin(command)

    async def _power_on(self, command: IccPowerOn) -> Response:
        insertion = self._insertion
        if insertion is None:
            raise SlotFailure(SlotError.ICC_MUTE)
        self._deactivate()
        self._atr = await insertion.card.power_on()
        self._parameters = self._automatic_parameters(self._atr)
        self._exchange = self._new_exchange(insertion, self._atr)
        return DataBlock(command.slot, command.seq, self.status, self._atr.encode())

    async def _power_off(self, command: IccPowerOff) -> Response:
        self._deactivate()
        if self._insertion is not None:
            await self._insertion.card.power_off()
        return SlotStatus(command.slot, command.seq, self.status, ClockStatus.STOPPED_LOW)

    async def _transfer(self, command: XfrBlock) -> Response:
        exchange = self._require_active()
        self._clock = ClockStatus.RUNNING
        data, chain = await exchange.transfer(command.data, command.level)
        return DataBlock(command.slot, command.seq, self.status, data, chain)

    async def _enter_pin(self, command: Secure) -> Response:
        if self._pin_pad is None:
            raise SlotFailure(SlotError.CMD_NOT_SUPPORTED)
        exchange = self._require_active()
        if command.level:
            # Nothing that begins a PIN entry is too long for one message.
            raise BadFieldError(Offset.LEVEL_PARAMETER)
        self._clock = ClockStatus.RUNNING
        data = await self._pin_pad.carry_out(command.data, exchange)
        return DataBlock(command.slot, command.seq, self.status, data)

    def _automatic_parameters(self, atr: ATR) -> ProtocolParameters:
        """What the reader sets by itself: T=1 where the card has it, as it is the better one.

        At the TPDU level the host sets them, and finds the defaults of the protocol that the card
        offers first.
        """
        if self._profile.level is Level.TPDU:
            return T1Parameters() if atr.protocols[0] == 1 else T0Parameters()
        return t1_parameters(atr) if 1 in atr.protocols else t0_parameters(atr)

    def _new_exchange(self, insertion: Insertion, atr: ATR) -> Exchange:
        match self._profile.level:
            case Level.EXTENDED_APDU:
                max_data = self._profile.max_message_length - 10
                return ExtendedApduExchange(insertion.card, max_data)
            case Level.SHORT_APDU:
                return ShortApduExchange(insertion.card)
            case Level.TPDU:
                return TpduExchange(insertion.card, atr)

    def _deactivate(self) -> None:
        self._exchange = None
        self._parameters = T0Parameters()
        self._clock = ClockStatus.RUNNING

    # The card comes and goes.

    async def _follow(self) -> None:
        while not self._slot.unplugged:
            await self._slot.wait_until_not(self._insertion)
            await self._let_finish()
            gone, self._insertion = self._insertion, self._slot.insertion
            self._deactivate()
            self._interrupt(SlotError.ICC_MUTE)
            self.changed = True
            self._announce()
            if gone is not None:
                await self._idle.wait()
                await gone.card.power_off()

    async def _let_finish(self) -> None:
        """Gives a command some time where the whole reader is to go; a card is gone at once."""
        if self._slot.unplugged:
            with trio.move_on_after(REMOVAL_TIMEOUT):
                await self._idle.wait()
