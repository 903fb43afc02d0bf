# SPDX-License-Identifier: Apache-2.0
"""PKI applets: each has a private key and its certificate.

Source: GSC-IS 2.1, 5.3 (PRIVATE SIGN/DECRYPT) and appendix D (the PKI container of the CAC).

The GSC-IS knows RSA only: the command takes a whole block, which the host has padded. For a key on
an elliptic curve the same command takes a hash, and gives ECDSA's signature in DER; or it takes an
uncompressed point, and gives the X coordinate of ECDH's. So SP 800-73 has it for PIV, and a hash is
always shorter than a point. Clients with the RSA of the GSC-IS alone show the certificate of such a
key, but do not use it (OpenSC's `cac` driver does so).
"""

import enum
from collections.abc import Sequence
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU, StatusWord
from ccidd.card.application import CardError
from ccidd.card.cac import simpletlv
from ccidd.card.cac.containers import INFORMATION, Container, buffer_properties
from ccidd.card.cac.keys import PkiCredential, PkiCredentials
from ccidd.card.cac.references import (
    ALGORITHM_IDENTIFIERS,
    RSA,
    Instruction,
    PropertyTag,
    pki_applet,
    pki_object,
)
from ccidd.card.cac.simpletlv import Buffers, SimpleTlv
from ccidd.card.pin import Pin
from ccidd.keys.key import EcKey, InvalidInputError, KeyUnavailableError, PrivateKey, RsaKey

_INITIALISED: Final = 0x01

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_UNCOMPRESSED_POINT: Final = b"\x04"


class _Piece(enum.IntEnum):
    """P1 of PRIVATE SIGN/DECRYPT."""

    LAST = 0x00
    MORE_FOLLOW = 0x80


def is_supported(key: PrivateKey) -> bool:
    """Tells whether a PKI applet can have a key."""
    return isinstance(key, RsaKey) or key.algorithm in ALGORITHM_IDENTIFIERS


class PkiApplet(Container):
    """A PKI applet; it is not there while the card has no key for it.

    Args:
        number: its number, from 0.
        credentials: the card's keys.
        pin: the card's PIN.
    """

    update_refusal: int = StatusWord.CONDITIONS_NOT_SATISFIED

    def __init__(self, number: int, credentials: PkiCredentials, pin: Pin) -> None:
        super().__init__(pki_applet(number), pin)
        self._number = number
        self._credentials = credentials
        # What the host has sent of a block that more is to follow of.
        self._block = b""

    def is_selected_by(self, aid: bytes) -> bool:
        """See `Application.is_selected_by`."""
        return super().is_selected_by(aid) and self._number < len(self._credentials())

    def select(self) -> bytes:
        """See `Application.select`."""
        self._block = b""
        return super().select()

    def deselect(self) -> None:
        """See `Application.deselect`."""
        self._block = b""

    @property
    def object_ids(self) -> Sequence[bytes]:
        """See `Applet.object_ids`."""
        return (pki_object(self._number),)

    @property
    def _credential(self) -> PkiCredential:
        credentials = self._credentials()
        if self._number >= len(credentials):
            # The key has gone while the applet was selected.
            raise CardError(StatusWord.COMMAND_NOT_ALLOWED)
        return credentials[self._number]

    def properties(self) -> Sequence[SimpleTlv]:
        """See `Applet.properties`."""
        key = self._credential.key
        algorithm = ALGORITHM_IDENTIFIERS.get(key.algorithm, RSA)
        size = _bits(key) // 8 // 8
        about_key = bytes([algorithm, size, _INITIALISED, _INITIALISED])
        about = [
            *buffer_properties(self.object_ids[0], self.buffers()),
            SimpleTlv(PropertyTag.PKI_PROPERTIES, about_key),
            SimpleTlv(PropertyTag.OBJECT_26, b"\x01"),
        ]
        return (
            INFORMATION,
            SimpleTlv(PropertyTag.NUMBER_OF_OBJECTS, b"\x01"),
            SimpleTlv(PropertyTag.PKI_OBJECT, simpletlv.encode(*about)),
        )

    def buffers(self) -> Buffers:
        """See `Container.buffers`; CertInfo 01 says that the certificate is gzipped."""
        credential = self._credential
        return Buffers.holding(
            [
                SimpleTlv(0x71, bytes([credential.compressed])),
                SimpleTlv(0x70, credential.certificate),
                SimpleTlv(0x72),  # no MSCUID, the name that Windows has for the key
                SimpleTlv(0xFE),
            ]
        )

    async def process_own(self, command: CommandAPDU) -> ResponseAPDU:
        """See `GscApplication.process_own`."""
        if command.ins == Instruction.PRIVATE_SIGN_DECRYPT:
            return ResponseAPDU(await self._sign_or_decrypt(command))
        return await super().process_own(command)

    async def _sign_or_decrypt(self, command: CommandAPDU) -> bytes:
        """PRIVATE SIGN/DECRYPT, with a block that may come in pieces."""
        if command.p2:
            raise CardError(StatusWord.INCORRECT_P1_P2)
        key = self._credential.key
        block, self._block = self._block + command.data, b""
        match command.p1:
            case _Piece.MORE_FOLLOW:
                # One byte too many is enough to know that it is no block.
                self._block = block[: _max_input(key) + 1]
                return b""
            case _Piece.LAST if not self._pin.verified:
                raise CardError(StatusWord.CONDITIONS_NOT_SATISFIED)
            case _Piece.LAST:
                return await self._use(key, block)
            case _:
                raise CardError(StatusWord.INCORRECT_P1_P2)

    async def _use(self, key: PrivateKey, block: bytes) -> bytes:
        try:
            return await _operate(key, block)
        except InvalidInputError as error:
            raise CardError(StatusWord.REFERENCE_DATA_NOT_USABLE) from error
        except KeyUnavailableError as error:
            log.warning("key_unavailable", reason=str(error))
            if self._pin.must_be_entered_again(error):
                raise CardError(StatusWord.CONDITIONS_NOT_SATISFIED) from error
            raise CardError(StatusWord.NO_PRECISE_DIAGNOSIS) from error


async def _operate(key: PrivateKey, block: bytes) -> bytes:
    match key:
        case RsaKey():
            return await key.decrypt_block(block)
        case EcKey() if len(block) == _max_input(key) and block.startswith(_UNCOMPRESSED_POINT):
            return await key.agree(block)
        case EcKey():
            return await key.sign_hash(block)
    raise AssertionError("is_supported refuses other keys")


def _bits(key: PrivateKey) -> int:
    """Gives the size of an RSA key's modulus, or of the field of a curve."""
    public_key = key.public_key
    assert isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return public_key.key_size


def _max_input(key: PrivateKey) -> int:
    """Gives the bytes of the longest input of a key: an RSA block, or a point."""
    size = _bits(key) // 8
    return size if isinstance(key, RsaKey) else 1 + 2 * size
