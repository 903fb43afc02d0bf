# SPDX-License-Identifier: Apache-2.0
"""A card in software: finds the application, and puts long commands and responses together.

Source: ISO/IEC 7816-4:2013: 5.4.1 (class byte), 5.3.3 (command chaining), 5.3.4 (response
chaining by 61XX and GET RESPONSE), 11.2.2 (SELECT by application identifier).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from ccid_protocol.apdu import (
    MAX_EXTENDED_NC,
    MAX_EXTENDED_NE,
    MAX_SHORT_NE,
    CommandAPDU,
    Instruction,
    ResponseAPDU,
    StatusWord,
    bytes_available,
)
from ccid_protocol.atr import ATR
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.application import Application, CardError
from ccidd.card.card import Card

_CLASS_GROUP: Final = 0xF0
_CHAINING: Final = 0x10
"""The group of class bytes of an interindustry command that others of its chain follow."""

_SELECT_BY_NAME: Final = 0x04
_NO_RESPONSE_DATA: Final = 0x0C

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Conventions:
    """Where kinds of cards differ; by default, what ISO/IEC 7816-4 says or suggests.

    Attributes:
        nothing_to_give: the status word of a GET RESPONSE when no response data wait.
        select_ignores_p2: whether SELECT by name pays no heed to P2.
        failed_select_deselects: whether no application is selected after a SELECT by name that
            found none.
        starts_long_responses: whether a response that is longer than Le begins at once. If not, it
            stays back as a whole for GET RESPONSE.
        data_without_le: whether a command without Le gets response data too, as much as a length
            field of its form can ask for. Some hosts count on it; over T=0 the reader holds the
            data back.
    """

    nothing_to_give: int = StatusWord.CONDITIONS_NOT_SATISFIED
    select_ignores_p2: bool = False
    failed_select_deselects: bool = False
    starts_long_responses: bool = True
    data_without_le: bool = False


class NoApplication(Application):
    """What answers while no application is selected."""

    def is_selected_by(self, aid: bytes) -> bool:  # noqa: ARG002 (none fits)
        """See `Application.is_selected_by`: it has no name."""
        return False

    def select(self) -> bytes:
        """See `Application.select`."""
        return b""

    def deselect(self) -> None:
        """See `Application.deselect`."""

    async def process(self, command: CommandAPDU) -> ResponseAPDU:
        """See `Application.process`."""
        if command.ins in {Instruction.GET_DATA_CA, Instruction.GET_DATA}:
            # Hosts ask for data objects to learn which card this is, before they select anything.
            raise CardError(StatusWord.NOT_FOUND)
        raise CardError(StatusWord.INSTRUCTION_NOT_SUPPORTED)


class EmulatedCard(Card):
    """A card whose applications are programs.

    Args:
        atr: its answer to reset.
        applications: what is on it. None is selected after power-on.
        no_application: what answers then.
        conventions: what kind of card it is.
    """

    def __init__(
        self,
        atr: ATR,
        applications: Sequence[Application],
        no_application: Application | None = None,
        conventions: Conventions = Conventions(),
    ) -> None:
        self._atr = atr
        self._applications = applications
        self._no_application = no_application or NoApplication()
        self._conventions = conventions
        self._selected: Application | None = None
        # The commands of a chain so far, as one.
        self._chain: CommandAPDU | None = None
        self._rest = ResponseAPDU()

    async def power_on(self) -> ATR:
        """See `Card.power_on`."""
        await self.power_off()
        return self._atr

    async def power_off(self) -> None:
        """See `Card.power_off`."""
        for application in (*self._applications, self._no_application):
            application.reset()
        self._selected = None
        self._chain = None
        self._rest = ResponseAPDU()

    async def transmit(self, command: bytes) -> bytes:
        """See `Card.transmit`; nothing that a host sends raises an exception."""
        try:
            response = await self._answer(CommandAPDU.decode(command))
        except RemoteProtocolError:
            response = ResponseAPDU(sw=StatusWord.WRONG_LENGTH)
        except CardError as error:
            response = ResponseAPDU(sw=error.sw)
        except Exception:
            # A fault of ours must look like a fault of the card, and nothing else may suffer.
            log.exception("card_fault")
            response = ResponseAPDU(sw=StatusWord.NO_PRECISE_DIAGNOSIS)
        return response.encode()

    async def _answer(self, command: CommandAPDU) -> ResponseAPDU:
        chain, self._chain = self._chain, None
        rest, self._rest = self._rest, ResponseAPDU()
        self._current.check_class(command.cla)
        if command.ins == Instruction.GET_RESPONSE:
            if not rest.data:
                raise CardError(self._conventions.nothing_to_give)
            # Some hosts leave Le away, and would ask for ever if they then got nothing.
            return self._first_piece(rest, command.ne or MAX_SHORT_NE)
        # A command that does not continue the chain takes the place of the whole of it.
        if chain is not None and _names(chain) == _names(command):
            command = replace(command, data=chain.data + command.data)
            if len(command.data) > MAX_EXTENDED_NC:
                raise CardError(StatusWord.WRONG_LENGTH)
        if command.cla & _CLASS_GROUP == _CHAINING:
            self._chain = command
            return ResponseAPDU()
        response = await self._dispatch(command)
        ne = command.ne
        if self._conventions.data_without_le and not ne:
            ne = MAX_EXTENDED_NE if command.extended else MAX_SHORT_NE
        if len(response.data) > ne and not self._conventions.starts_long_responses:
            return self._keep(response)
        return self._first_piece(response, ne)

    @property
    def _current(self) -> Application:
        return self._selected or self._no_application

    async def _dispatch(self, command: CommandAPDU) -> ResponseAPDU:
        if command.ins != Instruction.SELECT:
            return await self._current.process(command)
        if command.p1 != _SELECT_BY_NAME:
            return await self._current.select_within(command)
        return self._select(command)

    def _select(self, command: CommandAPDU) -> ResponseAPDU:
        """Selects by name."""
        p2 = 0 if self._conventions.select_ignores_p2 else command.p2
        if p2 & ~_NO_RESPONSE_DATA:
            raise CardError(StatusWord.NOT_FOUND)
        for application in self._applications:
            if application.is_selected_by(command.data):
                break
        else:
            if self._conventions.failed_select_deselects:
                self._deselect()
            raise CardError(StatusWord.NOT_FOUND)
        if self._selected is not application:
            self._deselect()
        self._selected = application
        properties = application.select()
        wants_data = p2 & _NO_RESPONSE_DATA != _NO_RESPONSE_DATA
        return ResponseAPDU(properties if wants_data else b"")

    def _deselect(self) -> None:
        if self._selected is not None:
            self._selected.deselect()
        self._selected = None

    def _first_piece(self, response: ResponseAPDU, ne: int) -> ResponseAPDU:
        """Gives what the host takes now and keeps the rest for GET RESPONSE.

        Without an Le field that is all of it: over T=0 the host could not have asked for any.
        """
        rest = response.data[ne:]
        if not rest:
            return response
        return ResponseAPDU(response.data[:ne], self._keep(ResponseAPDU(rest, response.sw)).sw)

    def _keep(self, response: ResponseAPDU) -> ResponseAPDU:
        """Keeps a response for GET RESPONSE, and gives the one that says so."""
        self._rest = response
        return ResponseAPDU(sw=bytes_available(len(response.data)))


def _names(command: CommandAPDU) -> tuple[int, int, int]:
    """Gives what all commands of a chain have in common (ISO/IEC 7816-4:2013, 5.3.3)."""
    return command.ins, command.p1, command.p2
