# SPDX-License-Identifier: Apache-2.0
"""The front door `serial`: the reader on a pseudo-terminal, as a GemPC Twin or a relative of it.

Source: `ccid_protocol.gempc` (the framing); tty_ioctl(4), TIOCPKT (packet mode); and what libccid's
serial driver does: it flushes the line when it opens it, and waits on after a time request.

The line is never hung up: ccidd keeps the slave open itself, so hosts come and go. A host that
flushes the line, as libccid does when it opens it, finds the reader as if it was just plugged in.
"""

import fcntl
import os
import re
import select
import termios
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import trio

from ccid_protocol import ccid, gempc
from ccid_protocol.ccid import (
    Abort,
    CommandStatus,
    Response,
    decode_command,
)
from ccid_protocol.events import NeedData
from ccidd.errors import UserError
from ccidd.reader.ccid_reader import CcidReader
from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import Level, ReaderProfile
from ccidd.reader.slot import Slot
from ccidd.reader.witness import Witness

log: structlog.stdlib.BoundLogger = structlog.get_logger()

FRAME_TIMEOUT: Final = 1.0
"""Seconds of silence after which a frame that has begun is given up."""

LEAVE_TIMEOUT: Final = 2.0
"""Seconds that commands and their answers have when the reader is unplugged."""

MAX_UNSENT: Final = 1 << 16
"""Bytes that may wait for a host that does not read; what comes after them is lost."""

_RECEIVE_SIZE: Final = 4096

# Our links name the slave with a dot more than is needed, which tells them from those of others.
_LINK_TARGET: Final = re.compile(r"/dev/pts/\./(\d+)")


@dataclass(frozen=True, slots=True)
class SerialModel:
    """A reader that libccid's serial driver knows.

    Attributes:
        name: what DEVICENAME in reader.conf calls it.
        slots: how many slots the driver takes it to have.
        echo: whether it repeats each frame of the host.
    """

    name: str
    slots: int
    echo: bool


_MODELS: Final = (
    SerialModel("GemPCTwin", slots=1, echo=True),
    # libccid never notices a card that comes or goes in a GemCoreSIMPro, which has two slots.
    SerialModel("GemCorePOSPro", slots=5, echo=False),
)
_PIN_PAD: Final = SerialModel("GemPCPinPad", slots=1, echo=True)


def serial_model(slots: int, *, has_pin_entry: bool = False) -> SerialModel:
    """Gives the smallest model that has so many slots.

    Raises:
        UserError: There is none.
    """
    if has_pin_entry and slots == 1:
        return _PIN_PAD
    for model in _MODELS:
        if slots <= model.slots:
            return model
    raise UserError(f"a serial reader has at most {_MODELS[-1].slots} slots, not {slots}")


class Line(ABC):
    """A serial line, seen from the reader."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Waits for bytes of the host; none mean that it has begun anew."""

    @abstractmethod
    async def send(self, data: bytes) -> int:
        """Sends the first bytes as soon as there is room, and tells how many."""


class PseudoTerminal(Line):
    """A pseudo-terminal, and the link that hosts find it by.

    Args:
        link: the symbolic link to make. A stale one of ours is replaced, anything else is not.

    Raises:
        UserError: The link cannot be made.
    """

    def __init__(self, link: Path) -> None:
        if ":" in f"{link}":
            raise UserError(f"cannot make {link}: libccid takes what follows a colon for a model")
        self._link = link
        self._master, self._slave = os.openpty()
        try:
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            # In packet mode each read tells first whether the host has flushed the line.
            fcntl.ioctl(self._master, termios.TIOCPKT, (1).to_bytes(4, "little"))
            # The lock tells others that the link is in use.
            fcntl.flock(self._slave, fcntl.LOCK_EX | fcntl.LOCK_NB)
            number = Path(os.ttyname(self._slave)).name
            self._target = f"/dev/pts/./{number}"
            _remove_stale_link(link, self._target)
            link.symlink_to(self._target)
        except OSError as error:
            self._close_descriptors()
            raise UserError(f"cannot make {link}: {error.strerror}") from error
        except UserError:
            self._close_descriptors()
            raise
        self._priority = select.poll()
        self._priority.register(self._master, select.POLLPRI)

    async def receive(self) -> bytes:
        """See `Line.receive`."""
        while True:
            await trio.lowlevel.wait_readable(self._master)
            try:
                kind, *_ = packet = os.read(self._master, _RECEIVE_SIZE)
            except BlockingIOError:
                continue
            if kind == termios.TIOCPKT_DATA:
                return packet[1:]
            if kind & (termios.TIOCPKT_FLUSHREAD | termios.TIOCPKT_FLUSHWRITE):
                return b""

    async def send(self, data: bytes) -> int:
        """See `Line.send`."""
        await trio.lowlevel.wait_writable(self._master)
        if self._priority.poll(0):
            # A host that has just flushed the line is not to find what was meant for another.
            return 0
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Removes the link, unless another has taken its place, and closes the terminal."""
        if _target(self._link) == self._target:
            self._link.unlink(missing_ok=True)
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        os.close(self._slave)
        os.close(self._master)


def _target(link: Path) -> str:
    """Gives what a link holds, to the letter; nothing if it is no link."""
    return os.readlink(link) if link.is_symlink() else ""  # noqa: PTH115 (Path drops the dot)


def _remove_stale_link(link: Path, ours: str) -> None:
    """Removes a link of a ccidd that is gone; the new terminal may have the old one's number."""
    if not os.path.lexists(link):
        return
    match = _LINK_TARGET.fullmatch(_target(link))
    if match is None:
        raise UserError(f"cannot make {link}: it exists and is no link of ccidd's")
    if match[0] != ours and _is_locked(Path("/dev/pts", match[1])):
        raise UserError(f"cannot make {link}: another process serves it")
    link.unlink(missing_ok=True)


def _is_locked(terminal: Path) -> bool:
    """Tells whether a ccidd serves a terminal; by now it may be one of quite another kind."""
    try:
        descriptor = os.open(terminal, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


async def serve_serial(
    line: Line,
    slots: Sequence[Slot],
    profile: ReaderProfile,
    pins: PinSource | None = None,
    witness: Witness | None = None,
) -> None:
    """Serves a reader on a line until the reader is unplugged.

    Args:
        line: the line, which the caller closes.
        slots: the reader's slots, as many as a `SerialModel` has.
        profile: what the reader is like; its level is TPDU, for libccid knows no other here.
        pins: where PINs come from that are entered at the reader, if there is such a place.
        witness: who looks on at what the host and the reader say.
    """
    assert profile.level is Level.TPDU
    await _Session(line, slots, profile, pins, witness).run(slots)


class _Session:
    """The reader on its line. A task reads and decides, one writes, one waits for the end."""

    def __init__(
        self,
        line: Line,
        slots: Sequence[Slot],
        profile: ReaderProfile,
        pins: PinSource | None,
        witness: Witness | None,
    ) -> None:
        self._line = line
        self._model = serial_model(len(slots))
        self._max_message = profile.max_message_length
        self._reader = CcidReader(
            slots, profile, self._respond, self._announce, pins, witness=witness
        )
        self._connection = self._new_connection()
        # The commands that wait for their answer, by slot and seq.
        self._pending: set[tuple[int, int]] = set()
        self._unsent = bytearray()
        self._loses = False
        self._progress = trio.Event()
        # Whether the host that is there knows of a card; None before it has said anything.
        self._told: bool | None = None

    async def run(self, slots: Sequence[Slot]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reader.run)
            nursery.start_soon(self._receive)
            nursery.start_soon(self._write)
            for slot in slots:
                await slot.wait_until_unplugged()
            with trio.move_on_after(LEAVE_TIMEOUT):
                await self._until(lambda: not (self._pending or self._told or self._unsent))
            nursery.cancel_scope.cancel()

    def _new_connection(self) -> gempc.Connection:
        return gempc.Connection(
            gempc.Role.READER, max_message=self._max_message, echo=self._model.echo
        )

    # Reading.

    async def _receive(self) -> None:
        timeout = FRAME_TIMEOUT
        while True:
            data = None
            with trio.move_on_after(timeout):
                data = await self._line.receive()
            if data is None:
                timeout = float("inf")
                self._take(self._connection.time_out())
                continue
            timeout = FRAME_TIMEOUT
            if not data:
                self._start_over()
                continue
            self._connection.receive_data(data)
            while not isinstance(event := self._connection.next_event(), NeedData):
                # Nothing else comes from a host, as the line is never closed.
                assert isinstance(event, gempc.Message | gempc.BadFrame)
                self._take(event)

    def _start_over(self) -> None:
        """Is as if just plugged in: another host has come, or the same one anew."""
        log.info("line_opened", model=self._model.name)
        self._connection = self._new_connection()
        self._reader.reset()
        self._pending.clear()
        self._unsent = bytearray()
        self._loses = False
        self._told = None

    def _take(self, event: gempc.Message | gempc.BadFrame | None) -> None:
        if event is None:
            return
        self._put(self._connection.acknowledge(event))
        if isinstance(event, gempc.BadFrame):
            log.debug("bad_frame", reason=event.reason)
            return
        if self._told is None:
            # A host asks for the status of each slot when it begins.
            self._told = self._is_card_present()
        command = decode_command(event.data)
        self._pending.add((command.slot, command.seq))
        if isinstance(command, Abort):
            # There is no control pipe that the other half of an abort could come by.
            self._reader.abort(command.slot, command.seq)
        self._reader.submit(command)

    # Writing.

    def _respond(self, response: Response) -> None:
        if response.command_status is CommandStatus.TIME_EXTENSION:
            # libccid waits on after this byte. Where the line echoes, it takes the message behind a
            # time extension of CCID for the echo of a command, and would lose the answer.
            if not self._unsent:
                self._put(self._connection.send(gempc.TimeRequest()))
            return
        self._pending.discard((response.slot, response.seq))
        self._put(self._connection.send(gempc.Message(ccid.encode(response))))

    def _announce(self) -> None:
        """Tells of the card, where there is but one that an event can mean."""
        if self._told is None or self._model.slots > 1:
            return
        notification = self._reader.take_notification()
        if notification is None:
            return
        present = notification.slots[0].present
        if present is self._told:
            # It was there, went and came again, or the other way round.
            self._put(self._connection.send(gempc.CardEvent(not present)))
        self._told = present
        self._put(self._connection.send(gempc.CardEvent(present)))

    def _is_card_present(self) -> bool:
        """What the host learns by itself, and need not be told."""
        notification = self._reader.take_notification()
        if notification is None or self._model.slots > 1:
            return False
        return notification.slots[0].present

    def _put(self, data: bytes) -> None:
        """Puts a frame behind what is to be written."""
        if len(self._unsent) + len(data) <= MAX_UNSENT:
            self._unsent += data
        elif not self._loses:
            self._loses = True
            log.warning("answers_lost", reason="the host does not read")
        self._announce_progress()

    async def _write(self) -> None:
        while True:
            await self._until(lambda: bool(self._unsent))
            # It may be another by the time that something is sent.
            unsent = self._unsent
            del unsent[: await self._line.send(bytes(unsent))]
            self._announce_progress()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._progress.wait()

    def _announce_progress(self) -> None:
        self._progress.set()
        self._progress = trio.Event()
