# SPDX-License-Identifier: Apache-2.0
"""The reader as a USB device: descriptors, requests on endpoint zero, and its three endpoints.

Source: Universal Serial Bus Specification Rev 2.0, chapter 9; USB CCID Rev 1.1, 4 (endpoints), 5.1
(descriptors) and 5.3 (class-specific requests).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from ccid_protocol import ccid, usb
from ccid_protocol.ccid import (
    AbortRequest,
    CommandStatus,
    GetClockFrequencies,
    GetDataRates,
    MessageReader,
    Response,
    RuntTransfer,
    decode_control_request,
    encode_notification,
    encode_rates,
)
from ccid_protocol.events import NeedData
from ccid_protocol.usb import (
    DescriptorType,
    FeatureSelector,
    Recipient,
    RequestKind,
    SetupPacket,
    StandardRequest,
    TransferType,
)
from ccidd.reader.bulk_in import BulkIn, Piece
from ccidd.reader.ccid_reader import CcidReader
from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import CLOCK, DATA_RATES, Level, ReaderProfile
from ccidd.reader.slot import Slot
from ccidd.reader.witness import Witness

BULK_OUT: Final = 0x01
BULK_IN: Final = 0x82
INTERRUPT_IN: Final = 0x83

MAX_PACKET_SIZE: Final = 64
"""Bytes: full speed with 64-byte packets works on every host controller but a bare EHCI."""

CONFIGURATION: Final = 1
INTERFACE: Final = 0

MAX_UNREAD: Final = 64
"""Answers that may wait to be read; a host that sends yet more messages finds a halted endpoint."""

_INTERRUPT_INTERVAL: Final = 16
_MANUFACTURER, _PRODUCT, _SERIAL_NUMBER, _INTERFACE_NAME = range(1, 5)
_NO_STATUS: Final = bytes(2)


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What the device says of itself.

    Attributes:
        device: its device descriptor.
        interface: its one interface.
        configuration: its one configuration.
    """

    device: usb.DeviceDescriptor
    interface: usb.Interface
    configuration: usb.Configuration

    @classmethod
    def of(cls, profile: ReaderProfile) -> Self:
        """Makes the descriptors of a reader."""
        device = usb.DeviceDescriptor(
            profile.vendor_id,
            profile.product_id,
            manufacturer=_MANUFACTURER,
            product=_PRODUCT,
            serial_number=_SERIAL_NUMBER,
        )
        interface = _interface(profile)
        return cls(device, interface, usb.Configuration((interface,)))


class UsbReader:
    """A CCID reader on a USB.

    Args:
        slots: the slots and their cards.
        profile: what the reader says of itself.
        pins: where PINs come from that are entered at the reader, if the profile has PIN entry.
        witness: who looks on at what the host and the reader say.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        profile: ReaderProfile,
        pins: PinSource | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.profile: Final = profile
        self.wake: Callable[[], None] = _ignore
        """Called when an IN endpoint may have something; the bus sets it, and it must not wait."""
        self._reader = CcidReader(
            slots, profile, self._respond, self._announce, pins, witness=witness
        )
        self._messages = MessageReader(
            profile.max_message_length,
            extended_apdu=profile.level is Level.EXTENDED_APDU,
            max_packet_size=MAX_PACKET_SIZE,
        )
        self.descriptors: Final = Descriptors.of(profile)
        self._strings = {
            _MANUFACTURER: profile.manufacturer,
            _PRODUCT: profile.product,
            _SERIAL_NUMBER: profile.serial,
            _INTERFACE_NAME: "CCID",
        }
        self.configuration = 0
        """bConfigurationValue of the active configuration, 0 for none."""
        self._halted: set[int] = set()
        self._unread = BulkIn()

    async def run(self) -> None:
        """Carries out what hosts send, until it is cancelled."""
        await self._reader.run()

    @property
    def is_busy(self) -> bool:
        """Whether any command is being carried out, or its answer was not read yet."""
        return self._reader.is_busy or bool(self._unread)

    # The bus.

    def reset(self) -> None:
        """Takes a reset of the bus: the device is as when it was plugged in."""
        self.configuration = 0
        self._forget()

    def resume(self) -> None:
        """Takes its place in a session of which it may know nothing, in the middle of it.

        A virtual machine that was migrated from another host has the device configured, and is told
        of its cards again: they are off here. One that comes back may have missed a notification.
        """
        if self.configuration:
            self.restart_interrupt_in()
        else:
            self.set_configuration(CONFIGURATION)

    def set_configuration(self, value: int) -> bool:
        """Takes SET_CONFIGURATION; False if there is no such configuration."""
        if value not in {0, CONFIGURATION}:
            return False
        self.configuration = value
        self._forget()
        return True

    def alternate_setting(self, interface: int) -> int | None:
        """Tells the setting of an interface; None if there is no such interface now."""
        return 0 if self.configuration and interface == INTERFACE else None

    def set_interface(self, interface: int, alternate_setting: int) -> bool:
        """Takes SET_INTERFACE; False if there is no such setting."""
        if self.alternate_setting(interface) != alternate_setting:
            return False
        # 9.1.1.5: the endpoints start anew, but no card loses its power. The host that chooses a
        # setting has just opened the reader, and is not to find what was meant for another.
        self._halted.clear()
        self._messages.reset()
        self._reader.forget_commands()
        self._unread.clear()
        return True

    def _forget(self) -> None:
        self._halted.clear()
        self._messages.reset()
        self._unread.clear()
        self._reader.reset()
        self.wake()

    # Endpoint zero.

    def control(self, setup: SetupPacket) -> bytes | None:
        """Takes a request without data for the device, as all that it knows are.

        Returns:
            The data for the host, at most wLength bytes; None for a STALL.
        """
        match setup.kind:
            case RequestKind.STANDARD:
                answer = self._standard_request(setup)
            case RequestKind.CLASS:
                answer = self._class_request(setup)
            case _:
                answer = None
        return None if answer is None else answer[: setup.length]

    def _standard_request(self, setup: SetupPacket) -> bytes | None:
        return self._tell(setup) if setup.device_to_host else self._change(setup)

    def _tell(self, setup: SetupPacket) -> bytes | None:
        match setup.request, setup.recipient:
            case StandardRequest.GET_DESCRIPTOR, Recipient.DEVICE | Recipient.INTERFACE:
                return self._descriptor(setup)
            case StandardRequest.GET_STATUS, _:
                return self._status(setup)
            case StandardRequest.GET_CONFIGURATION, Recipient.DEVICE:
                return bytes([self.configuration])
            case StandardRequest.GET_INTERFACE, Recipient.INTERFACE:
                setting = self.alternate_setting(setup.index)
                return None if setting is None else bytes([setting])
            case _:
                return None

    def _change(self, setup: SetupPacket) -> bytes | None:
        match setup.request, setup.recipient:
            case StandardRequest.SET_CONFIGURATION, Recipient.DEVICE:
                done = self.set_configuration(setup.value)
            case StandardRequest.SET_INTERFACE, Recipient.INTERFACE:
                done = self.set_interface(setup.index, setup.value)
            case StandardRequest.SET_FEATURE | StandardRequest.CLEAR_FEATURE, _:
                done = self._change_halt(setup)
            case _:
                done = False
        return b"" if done else None

    def _descriptor(self, setup: SetupPacket) -> bytes | None:
        if setup.recipient == Recipient.INTERFACE:
            wanted = setup.descriptor_type, setup.descriptor_index, setup.index
            is_ours = wanted == (ccid.DESCRIPTOR_TYPE, 0, INTERFACE)
            return self.profile.class_descriptor().encode() if is_ours else None
        match setup.descriptor_type, setup.descriptor_index:
            case DescriptorType.DEVICE, 0:
                return self.descriptors.device.encode()
            case DescriptorType.CONFIGURATION, 0:
                return self.descriptors.configuration.encode()
            case DescriptorType.STRING, 0:
                return usb.encode_languages((usb.LANGUAGE_ENGLISH_US,))
            case DescriptorType.STRING, index if index in self._strings:
                return usb.encode_string(self._strings[index])
            case _:
                # The qualifier among them: the device knows full speed alone (9.6.2).
                return None

    def _status(self, setup: SetupPacket) -> bytes | None:
        match setup.recipient:
            case Recipient.DEVICE if not setup.index:
                return _NO_STATUS
            case Recipient.INTERFACE if self.configuration and setup.index == INTERFACE:
                return _NO_STATUS
            case Recipient.ENDPOINT if self._has_endpoint(setup.index):
                return bytes([setup.index in self._halted, 0])
            case _:
                return None

    def _change_halt(self, setup: SetupPacket) -> bool:
        """Takes SET_FEATURE and CLEAR_FEATURE, of which ENDPOINT_HALT is all that there is."""
        endpoint = setup.index
        feature = setup.recipient, setup.value
        if feature != (Recipient.ENDPOINT, FeatureSelector.ENDPOINT_HALT):
            return False
        if not self._has_endpoint(endpoint):
            return False
        if setup.request == StandardRequest.CLEAR_FEATURE:
            self._halted.discard(endpoint)
            if endpoint == BULK_OUT:
                self._messages.reset()
        elif endpoint & 0x0F:
            # Endpoint zero ends a halt of its own with the next setup packet.
            self._halted.add(endpoint)
        self.wake()
        return True

    def _has_endpoint(self, endpoint: int) -> bool:
        if endpoint in {0x00, 0x80}:
            return True
        return bool(self.configuration) and endpoint in {BULK_OUT, BULK_IN, INTERRUPT_IN}

    def _class_request(self, setup: SetupPacket) -> bytes | None:
        request = decode_control_request(setup)
        if request is None or request.interface != INTERFACE or not self.configuration:
            return None
        match request:
            case AbortRequest(slot, seq):
                return b"" if self._reader.abort(slot, seq) else None
            case GetClockFrequencies():
                return encode_rates((CLOCK,))
            case GetDataRates():
                return encode_rates(DATA_RATES)

    # The other endpoints.

    def is_halted(self, endpoint: int) -> bool:
        """Whether transfers of an endpoint get a STALL."""
        return not self.configuration or endpoint in self._halted

    def write_bulk_out(self, data: bytes) -> bool:
        """Takes a piece of a message; False for a STALL.

        Args:
            data: one or more packets, of which only the last may be short.
        """
        if len(self._unread) >= MAX_UNREAD:
            self._halted.add(BULK_OUT)
        if self.is_halted(BULK_OUT):
            return False
        self._messages.receive_packet(data)
        while not isinstance(event := self._messages.next_event(), NeedData):
            if isinstance(event, RuntTransfer):
                self._halted.add(BULK_OUT)
                return False
            self._reader.submit(event)
        return True

    def read_bulk_in(self, size: int) -> Piece | None:
        """Gives the next bytes of one message, at most `size`; None if there are none yet."""
        return self._unread.take(size)

    def unread_bulk_in(self, piece: Piece) -> None:
        """Takes bytes back that the host has not seen, to be read again before all others."""
        self._unread.give_back(piece)
        self.wake()

    def read_interrupt_in(self) -> bytes | None:
        """Gives what the host is to be notified of; None if there is nothing."""
        if self.is_halted(INTERRUPT_IN):
            return None
        notification = self._reader.take_hardware_error() or self._reader.take_notification()
        return None if notification is None else encode_notification(notification)

    def restart_interrupt_in(self) -> None:
        """Learns that the host listens again, and may have missed the last notification."""
        self._reader.repeat_notification()
        self.wake()

    def _respond(self, response: Response) -> None:
        if response.command_status is CommandStatus.TIME_EXTENSION and self._unread:
            # A host that does not read is not waiting.
            return
        self._unread.put(ccid.encode(response))
        self.wake()

    def _announce(self) -> None:
        self.wake()


def _ignore() -> None:
    """Nobody listens yet."""


def _interface(profile: ReaderProfile) -> usb.Interface:
    return usb.Interface(
        INTERFACE,
        ccid.INTERFACE_CLASS,
        name=_INTERFACE_NAME,
        class_descriptors=(profile.class_descriptor().encode(),),
        endpoints=(
            usb.Endpoint(BULK_OUT, TransferType.BULK, MAX_PACKET_SIZE),
            usb.Endpoint(BULK_IN, TransferType.BULK, MAX_PACKET_SIZE),
            usb.Endpoint(INTERRUPT_IN, TransferType.INTERRUPT, 8, _INTERRUPT_INTERVAL),
        ),
    )
