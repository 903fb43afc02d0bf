# SPDX-License-Identifier: Apache-2.0
"""A trace file: a reader's messages as transfers of a USB, with the remarks that explain them.

The file begins with the descriptors of the reader, since Wireshark knows by them that what follows
is CCID. Each message is one transfer, however many the host made of it. Over a front door that has
no USB the same messages stand for what was said.

Source: USB CCID Rev 1.1, 4; Universal Serial Bus Specification Rev 2.0, 9.4.3.
"""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from ccid_protocol import capture, ccid
from ccid_protocol.capture import LINKTYPE_USB_LINUX_MMAPPED, Event, Transfer
from ccid_protocol.ccid import BadMessage, Command, Notification, NotifySlotChange, Response
from ccid_protocol.usb import (
    DescriptorType,
    SetupPacket,
    StandardRequest,
    TransferType,
)
from ccidd import __version__
from ccidd.errors import UserError
from ccidd.reader.profile import Level, ReaderProfile
from ccidd.reader.usb_reader import BULK_IN, BULK_OUT, INTERRUPT_IN, Descriptors
from ccidd.reader.witness import Witness
from ccidd.service.trace.censor import Censor

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_DEVICE: Final = 1
"""The address of the reader on the bus that the trace pretends."""

_FROM_DEVICE: Final = 0x80


class Trace(Witness):
    """Writes what it sees.

    Args:
        fd: the file, which belongs to the trace from now on.
        front_door: what the messages cross, for people.
        profile: the reader's profile.
        with_secrets: whether PINs and keys are written as well.
        clock: gives the time, in nanoseconds since 1970.
    """

    def __init__(
        self,
        fd: int,
        front_door: str,
        profile: ReaderProfile,
        *,
        with_secrets: bool = False,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._fd = fd
        self._clock = clock
        tpdu = profile.level is Level.TPDU
        self._censors = [Censor(tpdu=tpdu) for _ in range(profile.slots)]
        self._with_secrets = with_secrets
        self._transfers = 0
        self._write(
            capture.file_header(
                LINKTYPE_USB_LINUX_MMAPPED,
                application=f"ccidd {__version__}",
                interface=front_door,
            )
        )
        descriptors = Descriptors.of(profile)
        remark = "" if front_door == "usbredir" else f"over {front_door}, as CCID would say it"
        self._descriptor(DescriptorType.DEVICE, descriptors.device.encode(), remark)
        self._descriptor(DescriptorType.CONFIGURATION, descriptors.configuration.encode())

    def close(self) -> None:
        """Ends the file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def command(self, command: Command | BadMessage) -> None:
        """See `Witness.command`."""
        if isinstance(command, BadMessage):
            header = bytes([command.message_type, 0, 0, 0, 0, command.slot, command.seq, 0, 0, 0])
            self._transfer(TransferType.BULK, BULK_OUT, header, "a message that is wrong; its head")
            return
        if not self._with_secrets and command.slot < len(self._censors):
            command = self._censors[command.slot].command(command)
        self._transfer(TransferType.BULK, BULK_OUT, ccid.encode(command))

    def response(self, response: Response) -> None:
        """See `Witness.response`."""
        if not self._with_secrets and response.slot < len(self._censors):
            response = self._censors[response.slot].response(response)
        self._transfer(TransferType.BULK, BULK_IN, ccid.encode(response))

    def notification(self, notification: Notification) -> None:
        """See `Witness.notification`."""
        remark = ""
        if isinstance(notification, NotifySlotChange):
            remark = ", ".join(
                f"slot {index}: a card" if change.present else f"slot {index}: no card"
                for index, change in enumerate(notification.slots)
                if change.changed
            )
        data = ccid.encode_notification(notification)
        self._transfer(TransferType.INTERRUPT, INTERRUPT_IN, data, remark)

    def _descriptor(self, kind: DescriptorType, data: bytes, remark: str = "") -> None:
        setup = SetupPacket(
            _FROM_DEVICE, StandardRequest.GET_DESCRIPTOR, kind << 8, length=len(data)
        )
        transfer = self._begin(TransferType.CONTROL, _FROM_DEVICE)
        now = self._clock()
        submission = transfer.encode(Event.SUBMISSION, now, setup=setup, length=len(data))
        self._write(capture.enhanced_packet(now, submission, remark))
        self._write(capture.enhanced_packet(now, transfer.encode(Event.COMPLETION, now, data)))

    def _transfer(self, kind: TransferType, endpoint: int, data: bytes, remark: str = "") -> None:
        transfer = self._begin(kind, endpoint)
        now = self._clock()
        event = Event.COMPLETION if endpoint & _FROM_DEVICE else Event.SUBMISSION
        self._write(capture.enhanced_packet(now, transfer.encode(event, now, data), remark))

    def _begin(self, kind: TransferType, endpoint: int) -> Transfer:
        self._transfers += 1
        return Transfer(self._transfers, kind, endpoint, _DEVICE)

    def _write(self, data: bytes) -> None:
        """Writes a block; a file that takes no more ends the trace, and nothing else."""
        if self._fd < 0:
            return
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            log.error("trace_ended", reason=error.strerror)  # noqa: TRY400 (no fault of ours)
            self.close()


def open_trace(
    path: Path, front_door: str, profile: ReaderProfile, *, with_secrets: bool = False
) -> Trace:
    """Begins a trace in a file of its own, readable by nobody else.

    Args:
        path: the file; one that is there is replaced.
        front_door: see `Trace`.
        profile: the reader's profile.
        with_secrets: whether PINs and keys are written as well.

    Raises:
        UserError: There is something else than a file of the user's own.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(fd)
        raise UserError(f"{path} is no file of your own; name another")
    os.fchmod(fd, 0o600)
    os.ftruncate(fd, 0)
    if with_secrets:
        log.warning("trace_has_secrets", file=str(path))
    return Trace(fd, front_door, profile, with_secrets=with_secrets)
