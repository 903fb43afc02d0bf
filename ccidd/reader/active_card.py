# SPDX-License-Identifier: Apache-2.0
"""A card that has power: its ATR, the way to it, its parameters and its clock.

Source: USB CCID Rev 1.1, 6.1.5 to 6.1.7 (parameters) and 6.1.9 (clock).
"""

from dataclasses import dataclass
from typing import Final

from ccid_protocol.atr import ATR
from ccid_protocol.ccid import (
    BadFieldError,
    ClockCommand,
    ClockStatus,
    ClockStop,
    GetParameters,
    Offset,
    ProtocolParameters,
    ResetParameters,
    SetParameters,
    T0Parameters,
    T1Parameters,
    t0_parameters,
    t1_parameters,
)
from ccidd.reader.exchange import Exchange, TpduExchange
from ccidd.reader.profile import CLOCK, DATA_RATES

_TCCKS_OFFSET: Final = Offset.DATA + 1
_NAD_OFFSET: Final = Offset.DATA + 6


@dataclass(slots=True)
class ActiveCard:
    """A card from its ATR to its next.

    Attributes:
        atr: its ATR.
        exchange: the way to it.
        parameters: the protocol data structure that is in force.
        clock: whether its clock runs.
    """

    atr: ATR
    exchange: Exchange
    parameters: ProtocolParameters
    clock: ClockStatus = ClockStatus.RUNNING

    def update_parameters(
        self, command: GetParameters | ResetParameters | SetParameters
    ) -> ProtocolParameters:
        """Does what a message asks for, and gives what then is in force.

        Raises:
            BadFieldError: The card has no such protocol, or the reader cannot do what is asked for.
        """
        match command:
            case ResetParameters():
                self.parameters = type(self.parameters)()
            case SetParameters(parameters=parameters):
                self._set_parameters(parameters)
            case GetParameters():
                pass
        return self.parameters

    def _set_parameters(self, parameters: ProtocolParameters) -> None:
        protocol = 1 if isinstance(parameters, T1Parameters) else 0
        if protocol not in self.atr.protocols:
            raise BadFieldError(Offset.PARAMETER)
        if parameters.data_rate(CLOCK) > DATA_RATES[-1]:
            raise BadFieldError(Offset.DATA)
        if isinstance(parameters, T1Parameters):
            if parameters.crc:
                raise BadFieldError(_TCCKS_OFFSET)
            # dwFeatures does not say that the reader takes other node addresses.
            if parameters.nad:
                raise BadFieldError(_NAD_OFFSET)
        self.parameters = parameters
        if isinstance(self.exchange, TpduExchange):
            self.exchange.select(protocol)

    def set_clock(self, command: ClockCommand) -> None:
        """Stops or restarts the clock; a message for the card starts it as well."""
        if command is ClockCommand.RESTART:
            self.clock = ClockStatus.RUNNING
        elif self.parameters.clock_stop is ClockStop.HIGH:
            self.clock = ClockStatus.STOPPED_HIGH
        else:
            self.clock = ClockStatus.STOPPED_LOW


def automatic_parameters(atr: ATR) -> ProtocolParameters:
    """What an APDU reader sets by itself: T=1 where the card has it, as it is the better one."""
    return t1_parameters(atr) if 1 in atr.protocols else t0_parameters(atr)


def default_parameters(atr: ATR) -> ProtocolParameters:
    """What a host finds that sets them itself: the defaults of what the card offers first."""
    return T1Parameters() if atr.first_protocol == 1 else T0Parameters()
