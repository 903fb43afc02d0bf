# SPDX-License-Identifier: Apache-2.0
"""The instructions that cards have beyond the standard, for tools that provision them.

Source: Yubico's PIV extensions, as `yubico-piv-tool`, OpenSC and others use them. They are there
only with `PivOptions.vendor_extensions`. Nothing on this card can be touched, so no key and no
administration key takes another touch policy than "never".
"""

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, StatusWord
from ccidd.card.application import CardError
from ccidd.card.piv import templates
from ccidd.card.piv.administrator import Administrator
from ccidd.card.piv.attestation import TOUCH_NEVER, Issuer, Statement, attestation
from ccidd.card.piv.contents import certificate_in
from ccidd.card.piv.identity import Identity
from ccidd.card.piv.imported import private_key
from ccidd.card.piv.key_pairs import take_policies
from ccidd.card.piv.management_key import (
    DEFAULT_MANAGEMENT_KEY,
    ManagementAlgorithm,
    ManagementKey,
)
from ccidd.card.piv.objects import DataObjects
from ccidd.card.piv.options import PivOptions
from ccidd.card.piv.pins import Pins
from ccidd.card.piv.records import MANAGEMENT_KEY as MANAGEMENT_KEY_NAME
from ccidd.card.piv.records import Records, key_name, object_name
from ccidd.card.piv.references import (
    ALGORITHM_IDENTIFIERS,
    ALGORITHMS,
    ATTESTATION_KEY,
    MANAGEMENT_KEY,
    Origin,
    PinReference,
    certificate_tag,
)
from ccidd.card.piv.slots import Slot, Slots, public_key_objects
from ccidd.keys.local import compute

VERSION: Final = bytes([5, 7, 0])
"""The first version of the extensions that has all of these instructions and algorithms."""

_MAX_TRIES: Final = 15
"""More cannot be told by 63CX."""

_NO_DESTINATION: Final = 0xFF
"""Moved to there, a key is deleted."""

_NO_TOUCH: Final = 0xFF
"""P2 of SET MANAGEMENT KEY; FE would have the key touched."""

# Tags of GET METADATA.
_ALGORITHM: Final = 0x01
_POLICY: Final = 0x02
_ORIGIN: Final = 0x03
_PUBLIC_KEY: Final = 0x04
_IS_DEFAULT: Final = 0x05
_RETRIES: Final = 0x06

_PIN_ALGORITHM: Final = b"\xff"

_Command: TypeAlias = Callable[[CommandAPDU], Awaitable[bytes]]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ExtensionInstruction(enum.IntEnum):
    """The instruction bytes."""

    MOVE_KEY = 0xF6
    GET_METADATA = 0xF7
    GET_SERIAL = 0xF8
    ATTEST = 0xF9
    SET_PIN_RETRIES = 0xFA
    RESET = 0xFB
    GET_VERSION = 0xFD
    IMPORT_KEY = 0xFE
    SET_MANAGEMENT_KEY = 0xFF


@dataclass(frozen=True, slots=True)
class Extensions:
    """The instructions of one card.

    Attributes:
        records: what the card remembers.
        options: how it is configured.
        identity: who it is.
        administrator: the administrator's security status.
        pins: the cardholder's.
        slots: the keys.
        objects: the data objects.
    """

    records: Records
    options: PivOptions
    identity: Identity
    administrator: Administrator
    pins: Pins
    slots: Slots
    objects: DataObjects

    async def process(self, command: CommandAPDU) -> bytes:
        """Carries out one of the instructions.

        Returns:
            The response data.

        Raises:
            CardError: It is refused, or is none of them.
        """
        commands: dict[int, _Command] = {
            ExtensionInstruction.MOVE_KEY: self._move_key,
            ExtensionInstruction.GET_METADATA: self._get_metadata,
            ExtensionInstruction.GET_SERIAL: self._get_serial,
            ExtensionInstruction.ATTEST: self._attest,
            ExtensionInstruction.SET_PIN_RETRIES: self._set_pin_retries,
            ExtensionInstruction.RESET: self._reset,
            ExtensionInstruction.GET_VERSION: self._get_version,
            ExtensionInstruction.IMPORT_KEY: self._import_key,
            ExtensionInstruction.SET_MANAGEMENT_KEY: self._set_management_key,
        }
        carry_out = commands.get(command.ins)
        if carry_out is None:
            raise CardError(StatusWord.INSTRUCTION_NOT_SUPPORTED)
        return await carry_out(command)

    async def _get_version(self, command: CommandAPDU) -> bytes:
        _check_parameters(command, 0, 0)
        return VERSION

    async def _get_serial(self, command: CommandAPDU) -> bytes:
        _check_parameters(command, 0, 0)
        return self.identity.serial_number.to_bytes(4)

    async def _get_metadata(self, command: CommandAPDU) -> bytes:
        """GET METADATA of a PIN, the administration key or a key."""
        _check_parameters(command, 0, command.p2)
        match command.p2:
            case PinReference.APPLICATION_PIN | PinReference.PUK:
                return await self._pin_metadata(command.p2)
            case 0x9B:
                return self._management_key_metadata()
            case reference:
                return _slot_metadata(self._slot(reference))

    async def _pin_metadata(self, reference: int) -> bytes:
        is_puk = reference == PinReference.PUK
        memory = (self.pins.puk if is_puk else self.pins.application).memory
        counters = bytes([await memory.max_tries(), await memory.tries_left()])
        is_default = reference in self.records.default_pins()
        return b"".join(
            (
                tlv.encode(_ALGORITHM, _PIN_ALGORITHM),
                tlv.encode(_IS_DEFAULT, bytes([is_default])),
                tlv.encode(_RETRIES, counters),
            )
        )

    def _management_key_metadata(self) -> bytes:
        key = self.records.management_key()
        if key is None:
            raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)
        return b"".join(
            (
                tlv.encode(_ALGORITHM, bytes([key.algorithm])),
                tlv.encode(_POLICY, bytes([0, TOUCH_NEVER])),
                tlv.encode(_IS_DEFAULT, bytes([key == DEFAULT_MANAGEMENT_KEY])),
            )
        )

    def _slot(self, reference: int) -> Slot:
        slot = self.slots.get(reference) if self.slots.has(reference) else None
        if slot is None:
            raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)
        return slot

    async def _import_key(self, command: CommandAPDU) -> bytes:
        """IMPORT ASYMMETRIC KEY: P1 is the algorithm, P2 the key reference."""
        self.administrator.require()
        algorithm = ALGORITHMS.get(command.p1)
        if algorithm is None or not self.options.takes(algorithm):
            raise CardError(StatusWord.INCORRECT_P1_P2)
        if not self.slots.has(command.p2):
            raise CardError(StatusWord.INCORRECT_P1_P2)
        fields = templates.decode(command.data)
        pin_policy = take_policies(fields, command.p2, self.options)
        try:
            key = await compute(partial(private_key, algorithm, fields))
        except ValueError:
            raise CardError(StatusWord.INCORRECT_DATA) from None
        await self.slots.put(command.p2, key, pin_policy)
        return b""

    async def _move_key(self, command: CommandAPDU) -> bytes:
        """MOVE KEY: P1 is where to, P2 where from; certificates stay where they are."""
        self.administrator.require()
        destination, source = command.p1, command.p2
        if not self.slots.has(source):
            raise CardError(StatusWord.INCORRECT_P1_P2)
        if destination == _NO_DESTINATION:
            await self.slots.delete(source)
            return b""
        # The attestation key says of others that they were made here; it can only be deleted.
        if not self.slots.has(destination) or ATTESTATION_KEY in {source, destination}:
            raise CardError(StatusWord.INCORRECT_P1_P2)
        await self.slots.move(source, destination)
        return b""

    async def _attest(self, command: CommandAPDU) -> bytes:
        """ATTEST: P1 is the reference of a key that was generated here."""
        _check_parameters(command, command.p1, 0)
        if command.p1 == ATTESTATION_KEY or not self.slots.has(command.p1):
            raise CardError(StatusWord.INCORRECT_P1_P2)
        slot, signer = self._slot(command.p1), self._slot(ATTESTATION_KEY)
        container = self.objects.content(certificate_tag(ATTESTATION_KEY))
        if container is None or signer.local is None:
            raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)
        if slot.origin is not Origin.GENERATED:
            raise CardError(StatusWord.INCORRECT_DATA)
        try:
            issuer = Issuer(signer.local, certificate_in(container))
            statement = Statement(command.p1, slot, VERSION, self.identity.serial_number)
            certificate = await compute(partial(attestation, issuer, statement))
        except ValueError as error:
            # Somebody has replaced the attestation key or its certificate by something else.
            raise CardError(StatusWord.CONDITIONS_NOT_SATISFIED) from error
        return certificate.public_bytes(Encoding.DER)

    async def _set_management_key(self, command: CommandAPDU) -> bytes:
        """SET MANAGEMENT KEY: algorithm, then the key in a data object 9B."""
        self.administrator.require()
        if command.p1 != 0xFF:
            raise CardError(StatusWord.INCORRECT_P1_P2)
        if command.p2 != _NO_TOUCH:
            raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)
        algorithm = ManagementAlgorithm.of(command.data[0]) if command.data else None
        fields = templates.decode(command.data[1:])
        if algorithm is None or set(fields) != {MANAGEMENT_KEY}:
            raise CardError(StatusWord.INCORRECT_DATA)
        try:
            key = ManagementKey(algorithm, fields[MANAGEMENT_KEY])
        except ValueError:
            raise CardError(StatusWord.INCORRECT_DATA) from None
        await self.records.store({MANAGEMENT_KEY_NAME: key.encode()})
        log.info("management_key_changed", algorithm=algorithm.name)
        return b""

    async def _set_pin_retries(self, command: CommandAPDU) -> bytes:
        """SET PIN RETRIES: P1 for the PIN, P2 for the PUK; both get their well-known values."""
        self.administrator.require()
        if not self.pins.application.verified:
            raise CardError(StatusWord.SECURITY_STATUS_NOT_SATISFIED)
        if not (1 <= command.p1 <= _MAX_TRIES and 1 <= command.p2 <= _MAX_TRIES):
            raise CardError(StatusWord.INCORRECT_P1_P2)
        await self.pins.set_tries(command.p1, command.p2)
        return b""

    async def _reset(self, command: CommandAPDU) -> bytes:
        """RESET: gives a card whose PIN and PUK are blocked back as it was new.

        Keys go first, for the PIN that it then has is known to everyone; those configured from
        outside are hidden for the same reason. The attestation key and its certificate stay.
        """
        _check_parameters(command, 0, 0)
        if self.pins.application.memory.is_token_pin:
            raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)
        if not await self.pins.are_blocked():
            raise CardError(StatusWord.CONDITIONS_NOT_SATISFIED)
        kept = {key_name(ATTESTATION_KEY), object_name(certificate_tag(ATTESTATION_KEY))}
        changes = {
            **self.records.forgetting_all_but(kept),
            **self.slots.hiding_all(),
            MANAGEMENT_KEY_NAME: DEFAULT_MANAGEMENT_KEY.encode(),
        }
        await self.records.store(changes)
        self.administrator.end()
        await self.pins.restore_defaults()
        log.info("card_reset")
        return b""


def _slot_metadata(slot: Slot) -> bytes:
    return b"".join(
        (
            tlv.encode(_ALGORITHM, bytes([ALGORITHM_IDENTIFIERS[slot.key.algorithm]])),
            tlv.encode(_POLICY, bytes([slot.pin_policy, TOUCH_NEVER])),
            tlv.encode(_ORIGIN, bytes([slot.origin])),
            tlv.encode(_PUBLIC_KEY, public_key_objects(slot.key.public_key)),
        )
    )


def _check_parameters(command: CommandAPDU, p1: int, p2: int) -> None:
    if (command.p1, command.p2) != (p1, p2):
        raise CardError(StatusWord.INCORRECT_P1_P2)
