# SPDX-License-Identifier: Apache-2.0
"""Use of the private keys: GENERAL AUTHENTICATE with any key but the administrator's.

Source: NIST SP 800-73-4, part 2, 3.2.4 and appendix A.3 to A.5.
"""

from typing import Final

import structlog

from ccid_protocol.apdu import StatusWord
from ccidd.card.application import CardError
from ccidd.card.pin import Pin
from ccidd.card.piv.references import ALGORITHM_IDENTIFIERS, KeyReference
from ccidd.card.piv.slots import Slot, Slots
from ccidd.keys.key import (
    EcKey,
    Ed25519Key,
    InvalidInputError,
    KeyUnavailableError,
    PrivateKey,
    RsaKey,
    X25519Key,
)

# Tags of the dynamic authentication template (part 2, table 7).
_CHALLENGE: Final = 0x81
_RESPONSE: Final = 0x82
_EXPONENTIATION: Final = 0x85

_SIGNING_KEYS: Final = frozenset(
    {KeyReference.AUTHENTICATION, KeyReference.SIGNATURE, KeyReference.CARD_AUTHENTICATION}
)
"""The keys that the standard has no keys agreed with (SP 800-73-5, part 2, 3.2.4)."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def slot_for_use(
    slots: Slots, algorithm_identifier: int, reference: int, *, otherwise: StatusWord
) -> Slot:
    """Gives the key that P1 and P2 name.

    Args:
        slots: the keys.
        algorithm_identifier: P1.
        reference: P2.
        otherwise: the status word if there is no such key now.

    Raises:
        CardError: There is no such key, or it has another algorithm.
    """
    if reference not in set(KeyReference):
        raise CardError(StatusWord.INCORRECT_P1_P2)
    slot = slots.get(reference)
    if slot is None or ALGORITHM_IDENTIFIERS[slot.key.algorithm] != algorithm_identifier:
        raise CardError(otherwise)
    return slot


async def use(
    slot: Slot, reference: int, fields: dict[int, bytes], pin: Pin, *, any_key_agrees: bool
) -> bytes:
    """Signs, decrypts or agrees, as the template asks for.

    Args:
        slot: the key.
        reference: its reference.
        fields: the data objects of the dynamic authentication template.
        pin: the application's PIN.
        any_key_agrees: whether keys may be agreed with the keys for signing too.

    Returns:
        The value of the response.

    Raises:
        CardError: The template asks for something else, or the operation fails.
    """
    challenge, point = fields.get(_CHALLENGE, b""), fields.get(_EXPONENTIATION, b"")
    if fields.get(_RESPONSE) or not fields.keys() <= {_CHALLENGE, _RESPONSE, _EXPONENTIATION}:
        raise CardError(StatusWord.INCORRECT_DATA)
    if point and reference in _SIGNING_KEYS and not any_key_agrees:
        raise CardError(StatusWord.INCORRECT_DATA)
    try:
        return await _operate(slot.key, challenge, point)
    except InvalidInputError as error:
        raise CardError(StatusWord.INCORRECT_DATA) from error
    except KeyUnavailableError as error:
        log.warning("key_unavailable", reference=f"{reference:02X}", reason=str(error))
        if pin.must_be_entered_again(error):
            raise CardError(StatusWord.SECURITY_STATUS_NOT_SATISFIED) from error
        raise CardError(StatusWord.NO_PRECISE_DIAGNOSIS) from error


async def _operate(key: PrivateKey, challenge: bytes, point: bytes) -> bytes:
    """A.3 and A.4: sign; A.5: agree; RSA decrypts as it signs."""
    match key:
        case RsaKey() if challenge and not point:
            return await key.decrypt_block(challenge)
        case EcKey() if challenge and not point:
            return await key.sign_hash(challenge)
        case Ed25519Key() if challenge and not point:
            return await key.sign_message(challenge)
        case EcKey() | X25519Key() if point and not challenge:
            return await key.agree(point)
        case _:
            raise InvalidInputError("a template for another use")
