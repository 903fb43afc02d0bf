# SPDX-License-Identifier: Apache-2.0
"""A program of the host's that uses a card through PC/SC, call by call."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio
from smartcard import scard

_Result = TypeVar("_Result")


class PcscCallError(Exception):
    """A call of the program fails.

    Args:
        code: what it returned.
    """

    def __init__(self, code: int) -> None:
        super().__init__(scard.SCardGetErrorMessage(code))
        self.code: Final = code


def _checked(code: int) -> None:
    if code:
        raise PcscCallError(code)


class HostProgram:
    """A connection to the card in a reader, shared with others.

    Args:
        context: the context.
        handle: the connection.
        protocol: T=0 or T=1.
    """

    def __init__(self, context: int, handle: int, protocol: int) -> None:
        self._context = context
        self._handle = handle
        self._protocol = protocol

    async def begin(self) -> None:
        """Begins a transaction, and takes no offence at resets before it."""
        while code := await _call(lambda: int(scard.SCardBeginTransaction(self._handle))):
            if code != scard.SCARD_W_RESET_CARD:
                raise PcscCallError(code)
            await _call(self._acknowledge_reset)

    def _acknowledge_reset(self) -> None:
        shared, leave = scard.SCARD_SHARE_SHARED, scard.SCARD_LEAVE_CARD
        code, _protocol = scard.SCardReconnect(self._handle, shared, self._protocol, leave)
        _checked(code)

    async def end(self) -> None:
        """Ends the transaction."""
        _checked(
            await _call(
                lambda: int(scard.SCardEndTransaction(self._handle, scard.SCARD_LEAVE_CARD))
            )
        )

    async def transmit(self, command: bytes) -> bytes:
        """Sends a command."""
        is_t0 = self._protocol == scard.SCARD_PROTOCOL_T0
        pci = scard.SCARD_PCI_T0 if is_t0 else scard.SCARD_PCI_T1
        code, response = await _call(lambda: scard.SCardTransmit(self._handle, pci, list(command)))
        _checked(code)
        return bytes(response)

    async def disconnect(self) -> None:
        """Ends the connection; the card is left as it is."""
        await _call(lambda: scard.SCardDisconnect(self._handle, scard.SCARD_LEAVE_CARD))
        await _call(lambda: scard.SCardReleaseContext(self._context))


async def _call(function: Callable[[], _Result]) -> _Result:
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True)


async def connect(reader: str) -> HostProgram:
    """Connects to the card in a reader."""
    code, context = await _call(lambda: scard.SCardEstablishContext(scard.SCARD_SCOPE_USER))
    _checked(code)
    protocols = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
    code, handle, protocol = await _call(
        lambda: scard.SCardConnect(context, reader, scard.SCARD_SHARE_SHARED, protocols)
    )
    _checked(code)
    return HostProgram(context, handle, protocol)


@asynccontextmanager
async def connected(reader: str) -> AsyncIterator[HostProgram]:
    """A program that connects and disconnects."""
    program = await connect(reader)
    try:
        yield program
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(2):
            await program.disconnect()
