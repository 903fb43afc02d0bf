# SPDX-License-Identifier: Apache-2.0
"""This host's PC/SC service, through pyscard: each function as it is, with types and exceptions.

Everything here blocks, and is called from worker threads. A context serves one call at a time.

Source: PC/SC Specification 2.01.14, part 5 (ICC Resource Manager), and pcsc-lite's API, which
differs where it says so.
"""

import enum
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from smartcard import scard

PNP_NOTIFICATION: Final = "\\\\?PnP?\\Notification"
"""The name of no reader, whose state changes when readers come or go."""

_POLL_SECONDS: Final = 0.3
"""Seconds between two tries where the service does not wait by itself."""

_EVENT_COUNTER_SHIFT: Final = 16
_MASK: Final = 0xFFFFFFFF
_BOTH_PROTOCOLS: Final[int] = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1


class Code(enum.IntEnum):
    """Return codes that are told apart."""

    NO_READERS_AVAILABLE = 0x8010002E
    NOT_TRANSACTED = 0x80100016
    READER_UNAVAILABLE = 0x80100017
    RESET_CARD = 0x80100068
    SHARING_VIOLATION = 0x8010000B
    SUCCESS = 0
    TIMEOUT = 0x8010000A
    UNKNOWN_READER = 0x80100009


class PcscError(Exception):
    """A function of PC/SC fails.

    Args:
        function: which one.
        code: what it returned.
    """

    def __init__(self, function: str, code: int) -> None:
        super().__init__(f"{function}: {scard.SCardGetErrorMessage(code)}")
        self.code: Final = code


def _check(function: str, code: int, *allowed: int) -> int:
    code &= _MASK
    if code != Code.SUCCESS and code not in allowed:
        raise PcscError(function, code)
    return code


class State(enum.IntFlag):
    """What is so in a reader (the lower half of dwEventState)."""

    CHANGED = 0x0002
    PRESENT = 0x0020


@dataclass(frozen=True, slots=True)
class ReaderState:
    """What SCardGetStatusChange says of a reader.

    Attributes:
        event_state: dwEventState.
        atr: the ATR of the card in it, if there is one.
    """

    event_state: int
    atr: bytes

    @property
    def is_present(self) -> bool:
        """Whether a card is in it."""
        return bool(self.event_state & State.PRESENT)

    @property
    def insertion(self) -> int:
        """A number that another card has not, nor the same put in again."""
        return self.event_state >> _EVENT_COUNTER_SHIFT


class Context:
    """A context in which readers are watched."""

    def __init__(self) -> None:
        self._context: int | None = None

    @property
    def is_established(self) -> bool:
        """Whether the service was found."""
        return self._context is not None

    def establish(self) -> None:
        """Finds the service.

        Raises:
            PcscError: It is not there, or does not let us in.
        """
        code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
        _check("SCardEstablishContext", code)
        self._context = context

    def close(self) -> None:
        """Gives the context up."""
        context, self._context = self._context, None
        if context is not None:
            scard.SCardReleaseContext(context)

    def readers(self) -> Sequence[str]:
        """Gives the names of all readers.

        Raises:
            PcscError: The service is gone.
        """
        code, names = scard.SCardListReaders(self._context, [])
        _check("SCardListReaders", code, Code.NO_READERS_AVAILABLE)
        return list(names)

    def wait_for_change(
        self, known: Mapping[str, int], seconds: float
    ) -> Mapping[str, ReaderState] | None:
        """Waits until something is other than known.

        Args:
            known: the `event_state` of each reader as it was last, 0 for one that is new.
            seconds: how long to wait.

        Returns:
            How they all are now, or None if one of them is gone.

        Raises:
            PcscError: The service is gone.
        """
        wanted = [(name, state & ~State.CHANGED) for name, state in known.items()]
        code, states = scard.SCardGetStatusChange(self._context, int(seconds * 1000), wanted)
        code = _check(
            "SCardGetStatusChange",
            code,
            Code.TIMEOUT,
            Code.UNKNOWN_READER,
            Code.READER_UNAVAILABLE,
        )
        if code in {Code.UNKNOWN_READER, Code.READER_UNAVAILABLE}:
            return None
        return {name: ReaderState(state & _MASK, bytes(atr)) for name, state, atr in states}


@dataclass
class CardConnection:
    """A connection to the card in a reader, in a context of its own.

    Attributes:
        reader: the reader's name.
        exclusive: whether nobody else may have one.
    """

    reader: str
    exclusive: bool
    _context: Context = field(default_factory=Context)
    _handle: int | None = None
    _protocol: int = 0

    @property
    def is_t0(self) -> bool:
        """Whether the card speaks T=0, where TPDUs are sent."""
        return bool(self._protocol == scard.SCARD_PROTOCOL_T0)

    def wait_for_turn(self, gives_up: threading.Event) -> None:
        """Connects and begins a transaction, once others have ended theirs.

        Args:
            gives_up: set when there is no use in waiting on.

        Raises:
            PcscError: It cannot.
        """
        while True:
            try:
                self._connect()
                break
            except PcscError as error:
                # Somebody has the card for himself. (Transactions are waited for by themselves.)
                if error.code != Code.SHARING_VIOLATION or gives_up.wait(_POLL_SECONDS):
                    raise
        while True:
            try:
                _check("SCardBeginTransaction", scard.SCardBeginTransaction(self._handle))
                break
            except PcscError as error:
                if error.code != Code.RESET_CARD or gives_up.is_set():
                    raise
                # Somebody has reset the card since; which is told until it is acknowledged.
                self._reconnect(scard.SCARD_LEAVE_CARD)

    def _connect(self) -> None:
        if not self._context.is_established:
            self._context.establish()
        code, self._handle, self._protocol = scard.SCardConnect(
            self._context._context,  # noqa: SLF001 (both are of this module)
            self.reader,
            self._share_mode,
            _BOTH_PROTOCOLS,
        )
        if code:
            self._handle = None
        _check("SCardConnect", code)

    @property
    def _share_mode(self) -> int:
        return int(scard.SCARD_SHARE_EXCLUSIVE if self.exclusive else scard.SCARD_SHARE_SHARED)

    def reset(self) -> bytes:
        """Resets the card; all others who are connected are told.

        Returns:
            Its ATR.

        Raises:
            PcscError: It does not answer.
        """
        self._reconnect(scard.SCARD_RESET_CARD)
        code, _reader, _state, _protocol, atr = scard.SCardStatus(self._handle)
        _check("SCardStatus", code)
        return bytes(atr)

    def _reconnect(self, initialization: int) -> None:
        code, protocol = scard.SCardReconnect(
            self._handle, self._share_mode, _BOTH_PROTOCOLS, initialization
        )
        _check("SCardReconnect", code)
        self._protocol = protocol

    def transmit(self, data: bytes) -> bytes:
        """Sends a command APDU, or a TPDU of T=0.

        Raises:
            PcscError: There is no answer.
        """
        pci = scard.SCARD_PCI_T0 if self.is_t0 else scard.SCARD_PCI_T1
        code, response = scard.SCardTransmit(self._handle, pci, list(data))
        _check("SCardTransmit", code)
        return bytes(response)

    def close(self) -> None:
        """Ends the transaction and the connection; the card is left as it is."""
        handle, self._handle = self._handle, None
        if handle is not None:
            scard.SCardDisconnect(handle, scard.SCARD_LEAVE_CARD)
        self._context.close()
