# SPDX-License-Identifier: Apache-2.0
"""What the PIV card application remembers while the card has no power, and how it is encoded.

The names in the card's memory (`CardMemory.contents`):

==================================  ==============================================================
``piv/guid``                        the card's GUID, 16 bytes
``piv/expires``                     the card's last day, eight ASCII digits YYYYMMDD
``piv/management-key``              the algorithm identifier (1 byte), the key
``piv/default-pins``                key references of the PINs that have their well-known value
``piv/content-signing-key``         PKCS#8 in DER: it signs CHUID and security object
``piv/content-signing-certificate`` X.509 in DER
``piv/key/9A``                      a key by its reference: origin (1 byte: 01 generated,
                                    02 imported), PIN policy (1 byte: 01 never, 02 once,
                                    03 always), PKCS#8 in DER. Empty: there is none, although one
                                    was configured from outside.
``piv/object/5FC102``               a data object by its tag, as it was put: what is inside tag 53,
                                    or the whole object for the tags 7E and 7F61. Empty: there is
                                    none, although one follows from what is on the card.
==================================  ==============================================================
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from ccidd.card.memory import CardMemory
from ccidd.card.piv.management_key import ManagementKey
from ccidd.card.piv.references import Origin, PinPolicy
from ccidd.keys.local import LocalPrivateKey

GUID: Final = "piv/guid"
EXPIRES: Final = "piv/expires"
MANAGEMENT_KEY: Final = "piv/management-key"
DEFAULT_PINS: Final = "piv/default-pins"
CONTENT_SIGNING_KEY: Final = "piv/content-signing-key"
CONTENT_SIGNING_CERTIFICATE: Final = "piv/content-signing-certificate"
_KEY_PREFIX: Final = "piv/key/"
_OBJECT_PREFIX: Final = "piv/object/"

ABSENT: Final = b""
"""The value that hides a key or an object which would be there without it."""


def key_name(reference: int) -> str:
    """The name of a key."""
    return f"{_KEY_PREFIX}{reference:02X}"


def object_name(tag: int) -> str:
    """The name of a data object."""
    return f"{_OBJECT_PREFIX}{tag:X}"


def is_object_name(name: str) -> bool:
    """Whether a name is that of a data object."""
    return name.startswith(_OBJECT_PREFIX)


def private_key_der(key: LocalPrivateKey) -> bytes:
    """A private key in unencrypted PKCS#8 (RFC 5958), in DER."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _load_private_key(der: bytes) -> LocalPrivateKey:
    # What is stored was checked when it was made or imported.
    return load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)  # type: ignore[return-value] # only such keys are stored


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key that was made in the card or imported into it.

    Attributes:
        origin: where it came from.
        pin_policy: its security condition for use.
        der: the private key, PKCS#8 in DER.
    """

    origin: Origin
    pin_policy: PinPolicy
    der: bytes = field(repr=False)

    @classmethod
    def of(cls, key: LocalPrivateKey, origin: Origin, pin_policy: PinPolicy) -> Self:
        """Makes the record of a key."""
        return cls(origin, pin_policy, private_key_der(key))

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Reads what `encode` gives."""
        return cls(Origin(value[0]), PinPolicy(value[1]), value[2:])

    def encode(self) -> bytes:
        """Gives the value to be stored."""
        return bytes([self.origin, self.pin_policy]) + self.der

    def private_key(self) -> LocalPrivateKey:
        """Gives the key itself."""
        return _load_private_key(self.der)


@dataclass(frozen=True, slots=True)
class ContentSigner:
    """The issuer's key for CHUID and security object, with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


class Records:
    """The card's memory, read as the values of the PIV card application.

    Args:
        memory: the card's memory.
    """

    def __init__(self, memory: CardMemory) -> None:
        self._memory = memory

    async def store(self, changes: Mapping[str, bytes | None]) -> None:
        """Changes values, all or none; see `CardMemory.store`."""
        await self._memory.store(changes)

    def guid(self) -> uuid.UUID | None:
        """The card's GUID, if it was given one of its own."""
        value = self._memory.contents.get(GUID)
        return None if value is None else uuid.UUID(bytes=value)

    def expires(self) -> str | None:
        """The card's last day, YYYYMMDD, if it was given one."""
        value = self._memory.contents.get(EXPIRES)
        return None if value is None else value.decode()

    def management_key(self) -> ManagementKey | None:
        """The administration key, if there is one."""
        value = self._memory.contents.get(MANAGEMENT_KEY)
        return None if value is None else ManagementKey.decode(value)

    def default_pins(self) -> frozenset[int]:
        """The key references of the PINs that have their well-known value."""
        return frozenset(self._memory.contents.get(DEFAULT_PINS, b""))

    async def note_pin_changed(self, reference: int) -> None:
        """Remembers that a PIN has its well-known value no more."""
        defaults = self.default_pins()
        if reference in defaults:
            await self.store({DEFAULT_PINS: bytes(defaults - {reference}) or None})

    def content_signer(self) -> ContentSigner | None:
        """The key that signs CHUID and security object, if there is one."""
        contents = self._memory.contents
        if CONTENT_SIGNING_KEY not in contents:
            return None
        key = _load_private_key(contents[CONTENT_SIGNING_KEY])
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certificate = x509.load_der_x509_certificate(contents[CONTENT_SIGNING_CERTIFICATE])
        return ContentSigner(key, certificate)

    def key_value(self, reference: int) -> bytes | None:
        """What is stored for a key; `ABSENT` hides one from outside."""
        return self._memory.contents.get(key_name(reference))

    def object_value(self, tag: int) -> bytes | None:
        """What is stored for a data object; `ABSENT` hides one that would follow."""
        return self._memory.contents.get(object_name(tag))

    def object_sizes(self) -> dict[str, int]:
        """Bytes of each data object that is stored, by name."""
        return {
            name: len(value)
            for name, value in self._memory.contents.items()
            if is_object_name(name)
        }

    def forgetting_all_but(self, kept: Iterable[str]) -> dict[str, bytes | None]:
        """Gives the changes that forget all keys and data objects but those of the names given."""
        kept = set(kept)
        return {
            name: None
            for name in self._memory.contents
            if name.startswith((_KEY_PREFIX, _OBJECT_PREFIX)) and name not in kept
        }
