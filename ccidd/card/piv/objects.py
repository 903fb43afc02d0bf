# SPDX-License-Identifier: Apache-2.0
"""The PIV data objects: which there are, who may read them, GET DATA and PUT DATA.

Source: NIST SP 800-73-4, part 1, tables 2 (access rules), 3 (tags) and 7 (containers); part 2,
3.1.2 (GET DATA) and 3.3.1 (PUT DATA).

An object that was put is given back as it was put. One that was not may follow from what is on the
card: the certificates of keys from outside, CHUID and card capability container, discovery object,
key history, security object.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, StatusWord
from ccidd.card.application import CardError
from ccidd.card.piv import cms, templates
from ccidd.card.piv.contents import (
    card_capability_container,
    certificate_container,
    chuid,
    discovery_object,
    key_history,
)
from ccidd.card.piv.identity import Identity
from ccidd.card.piv.records import ABSENT, Records, object_name
from ccidd.card.piv.references import AID, RETIRED_KEYS, KeyReference, ObjectTag
from ccidd.card.piv.security_object import security_object
from ccidd.card.piv.slots import Slots

_CURRENT_DIRECTORY: Final = (0x3F, 0xFF)
"""P1 and P2 of GET DATA and PUT DATA."""

_TAG_LIST: Final = 0x5C
_DATA: Final = 0x53
_PIN_USAGE_POLICY: Final = 0x5F2F
_PIN_USAGE_POLICIES: Final = frozenset(map(bytes.fromhex, ("4000", "4010", "6010", "6020")))
_GLOBAL_PIN: Final = 0x20
_APPLICATION_IDENTIFIER: Final = 0x4F

UNWRAPPED: Final = frozenset({ObjectTag.DISCOVERY, ObjectTag.BIOMETRIC_INFORMATION})
"""The interindustry objects, which do not stand in a data object 53."""

EXTENSION_TAGS: Final = range(0x5F0000, 0x600000)
"""Further objects that cards with the extensions have; tools keep notes of theirs there."""

CAPACITY: Final = 256 * 1024
"""Bytes for all data objects together: the largest containers of part 1, table 7, are 71 KB."""

_ENTRY_SIZE: Final = 64
"""Bytes that an object takes besides its content."""


@dataclass(frozen=True, slots=True)
class Container:
    """A data object of the standard.

    Attributes:
        identifier: its ContainerID.
        needs_pin: whether the PIN must be verified to read it.
        hashed: whether the security object has its hash: all but certificates, it is recommended.
    """

    identifier: int
    needs_pin: bool = False
    hashed: bool = False


CONTAINERS: Final[dict[int, Container]] = {
    ObjectTag.CARD_CAPABILITY_CONTAINER: Container(0xDB00, hashed=True),
    ObjectTag.CHUID: Container(0x3000, hashed=True),
    KeyReference.AUTHENTICATION.certificate_tag: Container(0x0101),
    ObjectTag.FINGERPRINTS: Container(0x6010, needs_pin=True, hashed=True),
    ObjectTag.SECURITY_OBJECT: Container(0x9000),
    ObjectTag.FACIAL_IMAGE: Container(0x6030, needs_pin=True, hashed=True),
    KeyReference.CARD_AUTHENTICATION.certificate_tag: Container(0x0500),
    KeyReference.SIGNATURE.certificate_tag: Container(0x0100),
    KeyReference.KEY_MANAGEMENT.certificate_tag: Container(0x0102),
    ObjectTag.PRINTED_INFORMATION: Container(0x3001, needs_pin=True, hashed=True),
    ObjectTag.DISCOVERY: Container(0x6050, hashed=True),
    ObjectTag.KEY_HISTORY: Container(0x6060, hashed=True),
    **{
        reference.certificate_tag: Container(0x1001 + i) for i, reference in enumerate(RETIRED_KEYS)
    },
    ObjectTag.IRIS_IMAGES: Container(0x1015, needs_pin=True, hashed=True),
    ObjectTag.BIOMETRIC_INFORMATION: Container(0x1016, hashed=True),
    ObjectTag.SECURE_MESSAGING_SIGNER: Container(0x1017),
    ObjectTag.PAIRING_CODE: Container(0x1018, needs_pin=True, hashed=True),
}


class DataObjects:
    """The data objects of a card.

    Args:
        records: where those are kept that were put.
        slots: the keys, from which others follow.
        identity: who the card is.
        extensions: whether there are objects beyond the standard's.
    """

    def __init__(
        self, records: Records, slots: Slots, identity: Identity, *, extensions: bool
    ) -> None:
        self._records = records
        self._slots = slots
        self._identity = identity
        self._extensions = extensions
        self._derivations: dict[int, Callable[[], bytes | None]] = {
            ObjectTag.DISCOVERY: discovery_object,
            ObjectTag.CHUID: self._chuid,
            ObjectTag.CARD_CAPABILITY_CONTAINER: lambda: card_capability_container(identity.guid),
            ObjectTag.KEY_HISTORY: self._key_history,
            ObjectTag.SECURITY_OBJECT: self._security_object,
            **{r.certificate_tag: partial(self._certificate, r) for r in KeyReference},
        }

    @property
    def global_pin_is_used(self) -> bool:
        """Whether the global PIN is as good as the application's (part 1, 3.3.2: bit 6)."""
        content = self.content(ObjectTag.DISCOVERY)
        if content is None:
            return False
        template = tlv.decode_to_dict(content)[ObjectTag.DISCOVERY]
        return bool(tlv.decode_to_dict(template)[_PIN_USAGE_POLICY][0] & _GLOBAL_PIN)

    def content(self, tag: int) -> bytes | None:
        """Gives what is in the container of a data object, or None if there is no such object."""
        stored = self._records.object_value(tag)
        if stored is not None:
            return None if stored == ABSENT else stored
        return self._derived(tag)

    def get_data(self, command: CommandAPDU, *, pin_is_verified: Callable[[], bool]) -> bytes:
        """GET DATA.

        Args:
            command: the command.
            pin_is_verified: tells whether objects may be read that need the PIN.
        """
        _check_parameters(command)
        tag_list = templates.decode(command.data).get(_TAG_LIST)
        if not tag_list:
            raise CardError(StatusWord.INCORRECT_DATA)
        tag = int.from_bytes(tag_list)
        if not tag_list[0] or not self._is_known(tag):
            raise CardError(StatusWord.NOT_FOUND)
        # The rule comes first, as on other cards: only the PIN tells whether there is one.
        container = CONTAINERS.get(tag)
        if container is not None and container.needs_pin and not pin_is_verified():
            raise CardError(StatusWord.SECURITY_STATUS_NOT_SATISFIED)
        content = self.content(tag)
        if content is None:
            raise CardError(StatusWord.NOT_FOUND)
        return content if tag in UNWRAPPED else tlv.encode(_DATA, content)

    async def put_data(self, command: CommandAPDU) -> None:
        """PUT DATA, for the administrator. An object that is put empty is there no more."""
        _check_parameters(command)
        tag, content = self._parse_put(command.data)
        value: bytes | None = content
        if not content:
            value = None if self._derived(tag) is None else ABSENT
        sizes = self._records.object_sizes() | {object_name(tag): len(content)}
        if not have_room(sizes.values()):
            raise CardError(StatusWord.NOT_ENOUGH_MEMORY)
        await self._records.store({object_name(tag): value})

    def _parse_put(self, data: bytes) -> tuple[int, bytes]:
        objects = templates.decode(data)
        match list(objects.items()):
            case [(ObjectTag.DISCOVERY as tag, value)]:
                if value:
                    check_discovery(value)
                return tag, data if value else b""
            case [(ObjectTag.BIOMETRIC_INFORMATION as tag, value)]:
                return tag, data if value else b""
            case [(0x5C, tag_list), (0x53, content)] if tag_list and tag_list[0]:
                tag = int.from_bytes(tag_list)
                if not self._is_known(tag) or tag in UNWRAPPED:
                    raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)
                return tag, content
            case _:
                raise CardError(StatusWord.INCORRECT_DATA)

    def _is_known(self, tag: int) -> bool:
        return tag in CONTAINERS or (self._extensions and tag in EXTENSION_TAGS)

    def _derived(self, tag: int) -> bytes | None:
        """Gives the content of an object that nobody has put."""
        derive = self._derivations.get(tag)
        return derive() if derive else None

    def _certificate(self, reference: KeyReference) -> bytes | None:
        certificate = self._slots.configured_certificate(reference)
        return None if certificate is None else certificate_container(certificate)

    def _chuid(self) -> bytes:
        signer = self._records.content_signer()

        def sign(content: bytes) -> bytes:
            assert signer is not None
            return cms.detached_signature(signer, cms.PIV_CHUID_SECURITY_OBJECT, content)

        return chuid(self._identity.guid, self._identity.expires, sign if signer else None)

    def _key_history(self) -> bytes | None:
        retired = [reference for reference in RETIRED_KEYS if self._slots.get(reference)]
        certified = [r for r in retired if self.content(r.certificate_tag) is not None]
        return key_history(len(certified)) if retired else None

    def _security_object(self) -> bytes | None:
        signer = self._records.content_signer()
        if signer is None:
            return None
        contents = {
            container.identifier: content
            for tag, container in CONTAINERS.items()
            if container.hashed and (content := self.content(tag)) is not None
        }
        return security_object(signer, contents)


def _check_parameters(command: CommandAPDU) -> None:
    if (command.p1, command.p2) != _CURRENT_DIRECTORY:
        raise CardError(StatusWord.INCORRECT_P1_P2)


def have_room(sizes: Collection[int]) -> bool:
    """Tells whether objects of these sizes, in bytes, are not too much for the card."""
    return sum(sizes) + _ENTRY_SIZE * len(sizes) <= CAPACITY


def check_discovery(template: bytes) -> None:
    """Refuses a discovery object that promises what the application does not do.

    The first byte of the PIN usage policy is 40 (application PIN alone, and the second byte is 00,
    or 10 on some cards) or 60 (global PIN too, and the second byte says which is the primary: 10 or
    20). Other values stand for on-card biometric comparison and the virtual contact interface.

    Args:
        template: what is in the discovery object.

    Raises:
        CardError: It does, or it is none.
    """
    fields = templates.decode(template)
    if list(fields) != [_APPLICATION_IDENTIFIER, _PIN_USAGE_POLICY]:
        raise CardError(StatusWord.INCORRECT_DATA)
    if fields[_APPLICATION_IDENTIFIER] != AID or len(fields[_PIN_USAGE_POLICY]) != 2:
        raise CardError(StatusWord.INCORRECT_DATA)
    if fields[_PIN_USAGE_POLICY] not in _PIN_USAGE_POLICIES:
        raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)
