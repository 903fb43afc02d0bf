# SPDX-License-Identifier: Apache-2.0
"""GENERATE ASYMMETRIC KEY PAIR, and the rules that a new key comes with.

Source: NIST SP 800-73-4, part 2, 3.3.2; part 1, table 5 (cryptographic mechanisms). The PIN and
touch policies are of the extensions (Yubico's PIV extensions, "PIN policy" and "touch policy").
"""

from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, StatusWord
from ccidd.card.application import CardError
from ccidd.card.piv import templates
from ccidd.card.piv.options import PivOptions
from ccidd.card.piv.references import (
    ALGORITHMS,
    RETIRED_KEYS,
    KeyReference,
    PinPolicy,
    default_pin_policy,
)
from ccidd.card.piv.slots import Slots, public_key_objects
from ccidd.keys.key import KeyAlgorithm

_CONTROL_REFERENCE_TEMPLATE: Final = 0xAC
_PUBLIC_KEY: Final = 0x7F49

_MECHANISM: Final = 0x80
_PARAMETER: Final = 0x81
_PIN_POLICY: Final = 0xAA
_TOUCH_POLICY: Final = 0xAB
_POLICIES: Final = frozenset({_PIN_POLICY, _TOUCH_POLICY})

_PUBLIC_EXPONENT: Final = 65537
"""The only one: others are no safer, and a card need not let the host choose (part 1, table 5)."""

_GENERATED: Final = frozenset(KeyReference) - frozenset(RETIRED_KEYS)
"""The keys that the standard has the card generate."""


async def generate_key_pair(command: CommandAPDU, slots: Slots, options: PivOptions) -> bytes:
    """GENERATE ASYMMETRIC KEY PAIR, for the administrator."""
    reference = command.p2
    allowed = slots.has(reference) if options.vendor_extensions else reference in _GENERATED
    if command.p1 or not allowed:
        raise CardError(StatusWord.INCORRECT_P1_P2)
    fields = templates.decode_template(command.data, _CONTROL_REFERENCE_TEMPLATE)
    algorithm = _algorithm(fields.pop(_MECHANISM, b""), fields.pop(_PARAMETER, b""), options)
    pin_policy = take_policies(fields, reference, options)
    if fields:
        raise CardError(StatusWord.INCORRECT_DATA)
    public_key = await slots.generate(reference, algorithm, pin_policy)
    return tlv.encode(_PUBLIC_KEY, public_key_objects(public_key))


def _algorithm(mechanism: bytes, parameter: bytes, options: PivOptions) -> KeyAlgorithm:
    algorithm = ALGORITHMS.get(mechanism[0]) if len(mechanism) == 1 else None
    if algorithm is None or not options.takes(algorithm):
        raise CardError(StatusWord.INCORRECT_DATA)
    is_rsa = algorithm.value.startswith("RSA")
    if parameter and not (is_rsa and int.from_bytes(parameter) == _PUBLIC_EXPONENT):
        raise CardError(StatusWord.INCORRECT_DATA)
    return algorithm


def take_policies(fields: dict[int, bytes], reference: int, options: PivOptions) -> PinPolicy:
    """Takes the policies out of the data objects that make a key.

    There is nothing to touch, so the touch policy can only be "never", or left to the card. Without
    the extensions there are no policies, and the key has the rule of its reference.

    Returns:
        The PIN policy of the key.
    """
    if not options.vendor_extensions:
        return default_pin_policy(reference)
    pin_policy = fields.pop(_PIN_POLICY, b"\0")
    touch_policy = fields.pop(_TOUCH_POLICY, b"\0")
    if len(pin_policy) != 1 or len(touch_policy) != 1:
        raise CardError(StatusWord.INCORRECT_DATA)
    if touch_policy[0] > 1 or pin_policy[0] > PinPolicy.ALWAYS:
        raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)
    return PinPolicy(pin_policy[0]) if pin_policy[0] else default_pin_policy(reference)
