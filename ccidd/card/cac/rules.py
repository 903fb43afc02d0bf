# SPDX-License-Identifier: Apache-2.0
"""The access control rules of the applets, as GET ACR tells them.

Source: GSC-IS 2.1: table 3-2 (types of rules), 5.3.3.5 (GET ACR) with tables 5-15 (rules), 5-16
(applets and objects), 5-20 (access method providers) and 5-21 (service applets). The forms called
compact are in no public document; they are those of cards in use.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ccid_protocol.apdu import Instruction as IsoInstruction
from ccidd.card.cac import simpletlv
from ccidd.card.cac.references import (
    ACCESS_CONTROL_APPLET,
    ACCESS_CONTROL_FILE,
    CAC_RID,
    CARD_CAPABILITY_CONTAINER,
    MAX_PKI_APPLETS,
    Instruction,
    pki_applet,
    pki_object,
)
from ccidd.card.cac.simpletlv import SimpleTlv

VALUES: Final = 0x02
"""First data byte of a READ BUFFER that reads the V-buffer."""

TAGS: Final = 0x01
"""That of one that reads the T-buffer."""

_WHOLE_APPLET: Final = b"\xff\xff"
"""Stands for an object where rules are for the applet."""


class Tag(enum.IntEnum):
    """Tags of a GET ACR response."""

    APPLET_RULES = 0x80
    NUMBER_OF_APPLETS = 0x81
    OBJECT_RULES = 0x82
    PROVIDER = 0x90
    NUMBER_OF_PROVIDERS = 0x91
    APPLET_IDENTIFIER = 0x92
    SERVICE_APPLET = 0x93
    NUMBER_OF_SERVICE_APPLETS = 0x94
    RULE = 0xA0
    NUMBER_OF_RULES = 0xA1


class RuleType(enum.IntEnum):
    """What a rule asks for."""

    ALWAYS = 0x00
    NEVER = 0x01
    EXTERNAL_AUTHENTICATION = 0x02
    EXTERNAL_AUTHENTICATION_OR_PIN = 0x03
    SECURE_CHANNEL = 0x04
    PIN = 0x06


class Provider(enum.IntEnum):
    """Who looks after an access method: the ACA, under three names."""

    EXTERNAL_AUTHENTICATION = 0x1D
    PIN = 0x1E
    SECURE_CHANNEL = 0x1F


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule.

    Attributes:
        identifier: its identifier (ACRID).
        type: what it asks for.
        methods: providers and key references of the access methods, two at most.
        manager: a byte of the compact form that names a provider, or none.
    """

    identifier: int
    type: RuleType
    methods: tuple[tuple[Provider, int], ...] = ()
    manager: int = 0

    def encode(self) -> bytes:
        """Gives an entry of the table of rules."""
        return bytes([self.identifier, self.type, len(self.methods), *_flat(self.methods)])

    def encode_compact(self) -> bytes:
        """Gives an entry in the compact form."""
        methods = _flat(self.methods) or (0, 0)
        entry = bytes([self.identifier, self.type, self.manager, *methods, 0])
        return bytes([len(entry)]) + entry


def _flat(methods: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(number for method in methods for number in method)


_EXTERNAL: Final = Provider.EXTERNAL_AUTHENTICATION
_CHANNEL: Final = Provider.SECURE_CHANNEL
_EITHER: Final = RuleType.EXTERNAL_AUTHENTICATION_OR_PIN

RULES: Final = (
    Rule(0x00, RuleType.ALWAYS),
    Rule(0x01, RuleType.NEVER),
    Rule(0x02, RuleType.ALWAYS, manager=_CHANNEL),
    Rule(0x06, RuleType.PIN, ((Provider.PIN, 0x00),)),
    Rule(0x04, RuleType.SECURE_CHANNEL, ((_CHANNEL, 0x21),), manager=_CHANNEL),
    Rule(0x08, _EITHER, ((_EXTERNAL, 0x01), (Provider.PIN, 0x01))),
    Rule(0x09, RuleType.EXTERNAL_AUTHENTICATION, ((_EXTERNAL, 0x01),)),
    Rule(0x0A, _EITHER, ((_EXTERNAL, 0x03), (Provider.PIN, 0x01))),
    Rule(0x0B, RuleType.EXTERNAL_AUTHENTICATION, ((_EXTERNAL, 0x00),)),
    Rule(0x10, RuleType.ALWAYS, manager=Provider.PIN),
    Rule(0x11, RuleType.ALWAYS, manager=_EXTERNAL),
)


@dataclass(frozen=True, slots=True)
class Service:
    """A command of an applet, and the rule for it.

    Attributes:
        ins: the instruction byte.
        rule: the identifier of the rule.
        p1: the only P1 that it is for; None for any.
        first: likewise the first byte of its data.
    """

    ins: int
    rule: int
    p1: int | None = None
    first: int | None = None

    def encode(self) -> bytes:
        """Gives the service as it stands among an object's rules."""
        has_p1, has_first = self.p1 is not None, self.first is not None
        conditions = [byte for byte in (self.p1, self.first) if byte is not None]
        return bytes([self.ins, 0x01 * has_p1 | 0x04 * has_first, *conditions, self.rule])


@dataclass(frozen=True, slots=True)
class ObjectRules:
    """The rules for an object of an applet, or for the applet itself."""

    object_id: bytes
    services: tuple[Service, ...]

    def encode(self) -> bytes:
        """Gives the value of a data object of these rules."""
        return self.object_id + b"".join(service.encode() for service in self.services)


@dataclass(frozen=True, slots=True)
class AppletRules:
    """The rules of an applet.

    Attributes:
        number: its number in the tables of the ACA.
        objects: the rules for its objects.
    """

    number: int
    objects: tuple[ObjectRules, ...]

    def encode(self) -> bytes:
        """Gives the value of a data object of these rules."""
        entries = (SimpleTlv(Tag.OBJECT_RULES, rules.encode()) for rules in self.objects)
        return bytes([self.number, len(self.objects)]) + simpletlv.encode(*entries)

    def encode_compact(self) -> bytes:
        """Gives the rules in the compact form."""
        entry = bytes([self.number, len(self.objects)])
        for rules in self.objects:
            entry += bytes([len(rules.encode())]) + rules.encode()
        return bytes([len(entry)]) + entry


def _update(rule: int) -> Service:
    return Service(Instruction.UPDATE_BUFFER, rule)


_READ: Final = Service(Instruction.READ_BUFFER, 0x00)
_READ_TAGS: Final = Service(Instruction.READ_BUFFER, 0x00, first=TAGS)
_VERIFY: Final = Service(IsoInstruction.VERIFY, 0x10)
_ADMINISTER: Final = (
    Service(Instruction.EXTERNAL_AUTHENTICATE, 0x11, p1=0x00),
    Service(Instruction.GET_CHALLENGE, 0x11),
    _VERIFY,
)


def _read_values(rule: int) -> tuple[Service, ...]:
    return _READ_TAGS, Service(Instruction.READ_BUFFER, rule)


def _container(number: int, *objects: tuple[str, tuple[Service, ...]]) -> AppletRules:
    of_objects = [ObjectRules(bytes.fromhex(name), services) for name, services in objects]
    return AppletRules(number, (*of_objects, ObjectRules(_WHOLE_APPLET, _ADMINISTER)))


def _empty_container(number: int) -> AppletRules:
    rules = ObjectRules(_WHOLE_APPLET, (_update(0x04), _READ, *_ADMINISTER))
    return AppletRules(number, (rules,))


def _pki(number: int) -> AppletRules:
    services = (_update(0x04), _READ, Service(Instruction.PRIVATE_SIGN_DECRYPT, 0x06))
    return AppletRules(
        _PKI_NUMBER + number,
        (ObjectRules(pki_object(number), services), ObjectRules(_WHOLE_APPLET, (_VERIFY,))),
    )


_PKI_NUMBER: Final = 0x61
_PKI_RULES: Final = tuple(_pki(number) for number in range(MAX_PKI_APPLETS))

_OTHER_RULES: Final = (
    # The ACA.
    AppletRules(0x1F, (ObjectRules(_WHOLE_APPLET, (Service(IsoInstruction.VERIFY, 0x00),)),)),
    _container(0x4F, ("DB00", (_update(0x04), _READ))),
    _container(0x4B, ("02FB", (_update(0x06), _READ))),
    _container(0x41, ("0200", (_update(0x09), *_read_values(0x08)))),
    _container(0x42, ("0201", (_update(0x0B), *_read_values(0x0A)))),
    _container(
        0x40,
        ("3000", (_update(0x04), _READ, Service(Instruction.READ_BINARY, 0x00))),
        ("6010", (_update(0x04), *_read_values(0x06))),
        ("6030", (_update(0x04), *_read_values(0x06))),
        ("9000", (_update(0x04), _READ)),
    ),
    _container(0x4E, ("02FE", (_update(0x04), _READ))),
    _container(0x4D, ("02FD", (_update(0x06), *_read_values(0x06)))),
    _empty_container(0x50),
    _empty_container(0x51),
    _empty_container(0x52),
    _container(0x44, ("1201", (_update(0x06), *_read_values(0x06)))),
    _container(0x45, ("1202", (_update(0x06), *_read_values(0x06)))),
)

_OTHER_SERVICE_APPLETS: Final = {
    0x40: ACCESS_CONTROL_FILE,
    0x4F: CARD_CAPABILITY_CONTAINER,
    0x4B: CAC_RID + b"\x02\xfb",
    0x41: CAC_RID + b"\x02\x00",
    0x42: CAC_RID + b"\x02\x01",
    0x4E: CAC_RID + b"\x02\xfe",
    0x4D: CAC_RID + b"\x02\xfd",
    0x50: CAC_RID + b"\x02\xf2",
    0x51: CAC_RID + b"\x02\xf0",
    0x52: CAC_RID + b"\x02\xf1",
    0x44: CAC_RID + b"\x12\x01",
    0x45: CAC_RID + b"\x12\x02",
}


def applet_rules(pki_applets: int) -> Sequence[AppletRules]:
    """Gives the rules of all applets of a card with that many PKI applets."""
    return (*_PKI_RULES[:pki_applets], *_OTHER_RULES)


def service_applets(pki_applets: int) -> dict[int, bytes]:
    """Gives the applets' identifiers by their numbers."""
    pki = {_PKI_NUMBER + number: pki_applet(number) for number in range(pki_applets)}
    return pki | _OTHER_SERVICE_APPLETS


PROVIDERS: Final = {
    Provider.SECURE_CHANNEL: bytes.fromhex("12000000"),
    Provider.PIN: bytes.fromhex("10010000"),
    Provider.EXTERNAL_AUTHENTICATION: bytes.fromhex("01000000"),
}
"""The access method providers, and what the compact form says of them beside their identifiers."""

COMPACT_PROVIDERS: Final = b"".join(
    bytes([provider, 0x00, len(ACCESS_CONTROL_APPLET)]) + ACCESS_CONTROL_APPLET + more
    for provider, more in PROVIDERS.items()
)
"""The table of access method providers in the compact form."""


def values_need_pin(object_id: bytes) -> bool:
    """Tells whether the PIN must be verified before a host reads the values of an object."""
    types = {rule.identifier: rule.type for rule in RULES}
    return any(
        types[service.rule] != RuleType.ALWAYS
        for applet in _OTHER_RULES
        for rules in applet.objects
        if rules.object_id == object_id
        for service in rules.services
        if service.ins == Instruction.READ_BUFFER and service.first in {None, VALUES}
    )
