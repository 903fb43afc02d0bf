# SPDX-License-Identifier: Apache-2.0
"""The keys on the card: those configured from outside, and those made in it or imported.

A key in the card's memory takes the place of a configured one with the same reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccid_protocol import tlv
from ccid_protocol.apdu import StatusWord
from ccidd.card.application import CardError
from ccidd.card.piv.records import ABSENT, KeyRecord, Records, key_name
from ccidd.card.piv.references import ATTESTATION_KEY, KeyReference, Origin, PinPolicy
from ccidd.keys.generated import generate
from ccidd.keys.key import Credential, KeyAlgorithm, PrivateKey, PublicKey
from ccidd.keys.local import LocalPrivateKey, local_key

_NUMBERS: Final = frozenset({*(int(reference) for reference in KeyReference), ATTESTATION_KEY})

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Slot:
    """A key on the card.

    Attributes:
        key: the key.
        pin_policy: its security condition for use.
        origin: where it came from.
        local: the key itself if it is in the card's memory, and None if it is somewhere else.
    """

    key: PrivateKey
    pin_policy: PinPolicy
    origin: Origin
    local: LocalPrivateKey | None = None


class Slots:
    """The keys of a card by their references.

    Args:
        credentials: the keys that are configured from outside.
        records: where the others are kept.
    """

    def __init__(self, credentials: Mapping[KeyReference, Credential], records: Records) -> None:
        self._credentials: Mapping[int, Credential] = {int(r): c for r, c in credentials.items()}
        self._records = records
        # Reading a key takes longer than using it: the stored value, and what was read from it.
        self._read: dict[int, tuple[bytes, Slot]] = {}

    @staticmethod
    def has(reference: int) -> bool:
        """Tells whether there can be a key with this reference."""
        return reference in _NUMBERS

    def get(self, reference: int) -> Slot | None:
        """Gives a key, or None if there is none."""
        value = self._records.key_value(reference)
        if value is None:
            credential = self._credentials.get(reference)
            if credential is None:
                return None
            return Slot(credential.key, KeyReference(reference).pin_policy, Origin.IMPORTED)
        if value == ABSENT:
            return None
        read = self._read.get(reference)
        if read is None or read[0] != value:
            read = self._read[reference] = value, _read_slot(value)
        return read[1]

    def configured_certificate(self, reference: int) -> x509.Certificate | None:
        """Gives the certificate of a key that is configured from outside, while it is in use."""
        credential = self._credentials.get(reference)
        if credential is None or self._records.key_value(reference) is not None:
            return None
        return credential.certificate

    async def generate(
        self, reference: int, algorithm: KeyAlgorithm, pin_policy: PinPolicy
    ) -> PublicKey:
        """Makes a key in the card, in place of what was there."""
        key = await generate(algorithm)
        await self._store(reference, KeyRecord.of(key, Origin.GENERATED, pin_policy))
        log.info("key_generated", reference=f"{reference:02X}", algorithm=algorithm.value)
        return key.public_key()

    async def put(self, reference: int, key: LocalPrivateKey, pin_policy: PinPolicy) -> None:
        """Stores an imported key, in place of what was there."""
        await self._store(reference, KeyRecord.of(key, Origin.IMPORTED, pin_policy))
        log.info("key_imported", reference=f"{reference:02X}")

    async def delete(self, reference: int) -> None:
        """Removes a key; one that is configured from outside is hidden from then on."""
        self._check_filled(reference)
        await self._records.store({key_name(reference): self._nothing(reference)})
        log.info("key_deleted", reference=f"{reference:02X}")

    async def move(self, source: int, destination: int) -> None:
        """Gives a key another reference, at which there must be none yet."""
        self._check_filled(source)
        value = self._records.key_value(source)
        if value is None:
            # It is somewhere else, under the reference that it was configured with.
            raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)
        if self.get(destination) is not None:
            # What ykman takes for "the destination is not empty".
            raise CardError(StatusWord.INCORRECT_DATA)
        await self._records.store(
            {key_name(destination): value, key_name(source): self._nothing(source)}
        )
        log.info("key_moved", source=f"{source:02X}", destination=f"{destination:02X}")

    def hiding_all(self) -> dict[str, bytes | None]:
        """Gives the changes that hide all keys which are configured from outside."""
        return {key_name(reference): ABSENT for reference in self._credentials}

    def _check_filled(self, reference: int) -> None:
        if self.get(reference) is None:
            raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)

    def _nothing(self, reference: int) -> bytes | None:
        return ABSENT if reference in self._credentials else None

    async def _store(self, reference: int, record: KeyRecord) -> None:
        await self._records.store({key_name(reference): record.encode()})


def _read_slot(value: bytes) -> Slot:
    record = KeyRecord.decode(value)
    key = record.private_key()
    return Slot(local_key(key), record.pin_policy, record.origin, key)


def public_key_objects(key: PublicKey) -> bytes:
    """The data objects of a public key (SP 800-73-4, part 2, table 18): what is in 7F49."""
    match key:
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            exponent = numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8)
            return tlv.encode(0x81, numbers.n.to_bytes(key.key_size // 8)) + tlv.encode(
                0x82, exponent
            )
        case ec.EllipticCurvePublicKey():
            point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return tlv.encode(0x86, point)
        case _:
            return tlv.encode(0x86, key.public_bytes(Encoding.Raw, PublicFormat.Raw))
