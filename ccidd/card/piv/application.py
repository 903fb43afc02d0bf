# SPDX-License-Identifier: Apache-2.0
"""The commands of the PIV card application.

Source: NIST SP 800-73-4, part 2, section 3. The commands that change the card (CHANGE REFERENCE
DATA, RESET RETRY COUNTER, PUT DATA, GENERATE ASYMMETRIC KEY PAIR) are not there yet.
"""

import secrets
from collections.abc import Mapping
from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU, StatusWord
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.application import Application, CardError
from ccidd.card.pin import Pin
from ccidd.card.piv.objects import data_objects
from ccidd.card.piv.references import (
    AID,
    ALGORITHM_IDENTIFIERS,
    MANAGEMENT_ALGORITHMS,
    MANAGEMENT_KEY,
    PIX,
    RID,
    KeyReference,
    PinPolicy,
    PinReference,
)
from ccidd.keys.key import Credential, EcKey, InvalidInputError, PrivateKey, RsaKey

_LABEL: Final = b"ccidd PIV"

_PIN_SIZE: Final = 8
"""Bytes of a PIN on the wire: 6 to 8 digits, filled up with FF (part 2, 2.4.3)."""

_MIN_PIN_DIGITS: Final = 6
_PIN_PADDING: Final = b"\xff"

_CURRENT_DIRECTORY: Final = (0x3F, 0xFF)
"""P1 and P2 of GET DATA."""

# Tags of the dynamic authentication template (part 2, table 7).
_TEMPLATE: Final = 0x7C
_CHALLENGE: Final = 0x81
_RESPONSE: Final = 0x82
_EXPONENTIATION: Final = 0x85


class PivApplication(Application):
    """The PIV card application.

    Args:
        credentials: its keys and their certificates.
        pin: the PIV card application PIN.
    """

    def __init__(self, credentials: Mapping[KeyReference, Credential], pin: Pin) -> None:
        self._credentials = credentials
        self._objects = data_objects(credentials)
        self._pin = pin
        # Whether no key was used since the PIN was verified: what "PIN always" asks for.
        self._pin_is_fresh = False

    def is_selected_by(self, aid: bytes) -> bool:
        """See `Application.is_selected_by`: the full identifier, or its beginning.

        Hosts leave the version away, and some all but the RID.
        """
        return len(aid) >= len(RID) and AID.startswith(aid)

    def select(self) -> bytes:
        """See `Application.select`: the application property template (part 2, table 3).

        Selected again, the application keeps its security status (part 2, 3.1.1).
        """
        algorithms = (
            tlv.encode(0x80, bytes([identifier])) for identifier in ALGORITHM_IDENTIFIERS.values()
        )
        return tlv.encode(
            0x61,
            tlv.encode(0x4F, PIX),
            tlv.encode(0x79, tlv.encode(0x4F, RID)),
            tlv.encode(0x50, _LABEL),
            tlv.encode(0xAC, *algorithms, tlv.encode(0x06, b"\x00")),
        )

    def deselect(self) -> None:
        """See `Application.deselect`."""
        self._end_pin()

    async def process(self, command: CommandAPDU) -> ResponseAPDU:
        """See `Application.process`."""
        match command.ins:
            case Instruction.GET_DATA:
                return ResponseAPDU(self._get_data(command))
            case Instruction.VERIFY:
                await self._verify(command)
                return ResponseAPDU()
            case Instruction.GENERAL_AUTHENTICATE:
                return ResponseAPDU(await self._general_authenticate(command))
            case _:
                raise CardError(StatusWord.INSTRUCTION_NOT_SUPPORTED)

    def _get_data(self, command: CommandAPDU) -> bytes:
        """GET DATA (part 2, 3.1.2)."""
        if (command.p1, command.p2) != _CURRENT_DIRECTORY:
            raise CardError(StatusWord.INCORRECT_P1_P2)
        tag_list = _decode_template(command.data).get(0x5C)
        if not tag_list:
            raise CardError(StatusWord.INCORRECT_DATA)
        content = self._objects.get(int.from_bytes(tag_list))
        if content is None or not tag_list[0]:
            raise CardError(StatusWord.NOT_FOUND)
        return content

    async def _verify(self, command: CommandAPDU) -> None:
        """VERIFY (part 2, 3.2.1)."""
        if command.p2 != PinReference.APPLICATION_PIN:
            raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)
        match command.p1, command.data:
            case 0x00, b"":
                await self._pin.check_status()
            case 0x00, pin:
                if not _is_well_formed(pin):
                    raise CardError(StatusWord.INCORRECT_DATA)
                self._end_pin()
                await self._pin.verify(pin)
                self._pin_is_fresh = True
            case 0xFF, b"":
                self._end_pin()
            case 0xFF, _:
                raise CardError(StatusWord.INCORRECT_DATA)
            case _:
                raise CardError(StatusWord.INCORRECT_P1_P2)

    def _end_pin(self) -> None:
        self._pin.end()
        self._pin_is_fresh = False

    async def _general_authenticate(self, command: CommandAPDU) -> bytes:
        """GENERAL AUTHENTICATE (part 2, 3.2.4): sign, decrypt or agree with one of the keys."""
        if command.p2 == MANAGEMENT_KEY:
            return _challenge_for_administrator(command)
        credential = self._credential(command.p1, command.p2)
        self._use_pin(KeyReference(command.p2))
        template = _decode_template(command.data).get(_TEMPLATE)
        if template is None:
            raise CardError(StatusWord.INCORRECT_DATA)
        fields = _decode_template(template)
        try:
            result = await _use(
                credential.key, fields.get(_CHALLENGE, b""), fields.get(_EXPONENTIATION, b"")
            )
        except InvalidInputError as error:
            raise CardError(StatusWord.INCORRECT_DATA) from error
        return tlv.encode(_TEMPLATE, tlv.encode(_RESPONSE, result))

    def _credential(self, algorithm_identifier: int, key_reference: int) -> Credential:
        by_number = {int(reference): c for reference, c in self._credentials.items()}
        credential = by_number.get(key_reference)
        if (
            credential is None
            or ALGORITHM_IDENTIFIERS[credential.key.algorithm] != algorithm_identifier
        ):
            raise CardError(StatusWord.INCORRECT_P1_P2)
        return credential

    def _use_pin(self, reference: KeyReference) -> None:
        """Holds the key's security condition against the PIN's state, which its use then ages."""
        fresh, self._pin_is_fresh = self._pin_is_fresh, False
        satisfied = {
            PinPolicy.NEVER: True,
            PinPolicy.ONCE: self._pin.verified,
            PinPolicy.ALWAYS: fresh,
        }
        if not satisfied[reference.pin_policy]:
            raise CardError(StatusWord.SECURITY_STATUS_NOT_SATISFIED)


def _challenge_for_administrator(command: CommandAPDU) -> bytes:
    """Begins an external authentication (part 2, A.1): OpenSC takes random numbers from it.

    There is no administration key yet, so none can be ended.
    """
    block_size = MANAGEMENT_ALGORITHMS.get(command.p1)
    if block_size is None:
        raise CardError(StatusWord.INCORRECT_P1_P2)
    if command.data != tlv.encode(_TEMPLATE, tlv.encode(_CHALLENGE)):
        raise CardError(StatusWord.SECURITY_STATUS_NOT_SATISFIED)
    return tlv.encode(_TEMPLATE, tlv.encode(_CHALLENGE, secrets.token_bytes(block_size)))


async def _use(key: PrivateKey, challenge: bytes, point: bytes) -> bytes:
    """Does what the template asks for (part 2, A.4: sign; A.5: agree; RSA decrypts as it signs)."""
    match key:
        case RsaKey() if challenge and not point:
            return await key.decrypt_block(challenge)
        case EcKey() if challenge and not point:
            return await key.sign_hash(challenge)
        case EcKey() if point and not challenge:
            return await key.agree(point)
        case _:
            raise InvalidInputError("a template for another use")


def _is_well_formed(pin: bytes) -> bool:
    digits = pin.rstrip(_PIN_PADDING)
    return len(pin) == _PIN_SIZE and len(digits) >= _MIN_PIN_DIGITS and digits.isdigit()


def _decode_template(data: bytes) -> dict[int, bytes]:
    try:
        return tlv.decode_to_dict(data)
    except RemoteProtocolError as error:
        raise CardError(StatusWord.INCORRECT_DATA) from error
