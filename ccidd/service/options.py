# SPDX-License-Identifier: Apache-2.0
"""The values of `--card` and `--reader`: OPTION=VALUE,... in the style of QEMU's options.

A comma in a value is written twice.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ccidd.card.guard.operations import CONFIRMABLE
from ccidd.errors import UserError
from ccidd.keys.uri import Pkcs11Uri, check_key_uri, parse_uri
from ccidd.reader.profile import IDENTITIES, MAX_SLOTS
from ccidd.service.cardtypes import CARD_TYPES, key_reference
from ccidd.service.configtable import suggestion
from ccidd.service.where import COMMAND_LINE, READER, Where


@dataclass(frozen=True, slots=True)
class OptionHelp:
    """One option of a card or of the reader.

    Attributes:
        value: what its value is, for people.
        help: what it is for.
        repeatable: whether it may be given more than once.
        pattern: what its name looks like, if there are many such options.
    """

    value: str
    help: str
    repeatable: bool = False
    pattern: str | None = None


KEY_OPTION: Final = re.compile(r"key([0-9A-Fa-f]{2})")
"""The options that say which key has a reference, with the reference."""

_CARD_OPTIONS: Final[Mapping[str, OptionHelp]] = {
    "card": OptionHelp("NAME", "a card that ccidd keeps (`ccidd card create`), keys, PIN and all"),
    "keys": OptionHelp(
        "FILE.p12|FILE.pem",
        "instead: private keys with their certificates; in the order given they take the key"
        " references that are free",
        repeatable=True,
    ),
    "nss": OptionHelp(
        "sql:DIR", "or: an NSS database; its password is the PIN, unless there is a pin-file"
    ),
    "certN": OptionHelp(
        "NICKNAME",
        "with nss: a certificate, cert1 for the first key; default: all that have keys",
        pattern=r"cert[1-9][0-9]?",
    ),
    "pkcs11": OptionHelp(
        "URI",
        "or: keys of a PKCS#11 token (RFC 7512, with ?module-path=); its PIN is the card's,"
        " unless there is a pin-file",
        repeatable=True,
    ),
    "token": OptionHelp(
        "URI|any",
        "or: the slot follows a PKCS#11 token, which is the card while it is there; any: all tokens"
        " that there are, each in a slot",
    ),
    "module": OptionHelp(
        "PATH",
        "with token: a PKCS#11 module to look in; default: those that p11-kit is configured with",
        repeatable=True,
    ),
    "slots": OptionHelp("N", "with token=any: how many slots it fills, 1 to 16; default: 4"),
    "keyXX": OptionHelp(
        "FILE|pkcs11:URI|nss:NICKNAME",
        "the key with the reference XX (9A, 9C, ...): one key of any of these; with token: one of"
        " its keys (pkcs11:id=%01), which are else placed by the usage in their certificates",
        pattern=KEY_OPTION.pattern,
    ),
    "pin-file": OptionHelp(
        "FILE",
        "the PIN, 6 to 8 digits, in the file's first line; what a guest makes of it later stands"
        " until the file says something else",
    ),
    "puk-file": OptionHelp("FILE", "the PUK, 8 characters, likewise; default: none"),
    "password-file": OptionHelp(
        "FILE",
        "in the file's first line: the password of encrypted key files; with a pin-file, that of"
        " tokens and databases too",
    ),
}
"""What cards of every kind are made from."""

_GUARD_OPTIONS: Final[Mapping[str, OptionHelp]] = {
    "policy": OptionHelp(
        "use|manage|RULES",
        "what a guest may do: read, verify, sign and decrypt (use), or also change-pin, write,"
        " generate, delete and what is unknown (manage), or some of these names, joined by +;"
        " default: use for cards of the host's and keys on tokens, else manage",
    ),
    "retry-floor": OptionHelp(
        "N",
        "how many tries of each PIN are kept from a guest; default: 1 for cards of the host's and"
        " keys on tokens, else 0",
    ),
    "confirm": OptionHelp("sign,decrypt", "a person at the host is asked before each"),
    "confirm-with": OptionHelp(
        "PROGRAM|agent",
        "the pinentry that asks; default: pinentry; agent: whoever has a `ccidctl agent` at the"
        " control socket is asked",
    ),
}
"""What a guest may do with a card (`ccidd.service.guards`)."""


ANY_TOKEN: Final = "any"  # noqa: S105 (no secret)
"""The value of `token` that stands for every token."""

PKCS11: Final = "pkcs11:"
"""What a key's PKCS#11 URI begins with."""

NSS: Final = "nss:"
"""What the nickname of a key begins with."""

ANY_TOKEN_SLOTS: Final = 4
"""How many slots it fills, unless it is told."""

# What goes with cards that are there from the start.
_NOT_OF_TOKENS: Final = re.compile(r"card|keys|nss|cert.*|pkcs11|pin-file|puk-file|password-file")

_MAX_SECONDS: Final = 86400

PCSC: Final = "pcsc"
"""The kind of card that is in a reader of this host's."""

PCSC_DESCRIPTION: Final = "the card in one of this host's readers (PC/SC), which others go on using"

_PCSC_OPTIONS: Final[Mapping[str, OptionHelp]] = {
    "reader": OptionHelp(
        "NAME",
        "the reader's name, as `opensc-tool --list-readers` says it, or a pattern (* ? []); of"
        " several readers, the first that has a card",
    ),
    "exclusive": OptionHelp(
        "on|off", "whether host programs are refused while the guest uses the card; default: off"
    ),
    "idle-release": OptionHelp(
        "SECONDS",
        "how long the guest may leave the card alone until others get it, 1 to 86400; default: 15."
        " Its PIN is due again then",
    ),
    "max-hold": OptionHelp(
        "SECONDS",
        "after how long others get it though the guest goes on using it, 1 to 86400; default: 60",
    ),
}
"""Of the card in a reader of this host's."""


READER_OPTIONS: Final[Mapping[str, OptionHelp]] = {
    "slots": OptionHelp("N", "how many slots it has, 1 to 16; default: one for each --card"),
    "level": OptionHelp(
        "extended|short|tpdu", "the exchange level: extended or short APDUs, or TPDUs"
    ),
    "max-message": OptionHelp(
        "N",
        "bytes of the longest message at the level extended, 271 to 65554 (default); longer APDUs"
        " go in pieces, which suits hosts with small buffers",
    ),
    "profile": OptionHelp(
        "|".join(IDENTITIES),
        "which reader it passes for, of those that libccid knows; default: "
        "vmware with one slot, sysmocom with more",
    ),
    "usb-id": OptionHelp(
        "VVVV:PPPP", "instead: vendor and product in hexadecimal; libccid must know it"
    ),
    "serial": OptionHelp("TEXT", "the serial number; default: one that stays with the socket"),
    "manufacturer": OptionHelp("TEXT", "the manufacturer's name"),
    "product": OptionHelp("TEXT", "the reader's name"),
    "pin-entry": OptionHelp(
        "PROGRAM|agent",
        "a pinentry of this host asks for PINs, which the guest then never sees; agent: whoever has"
        " a `ccidctl agent` at the control socket is asked",
    ),
    "pin-file": OptionHelp(
        "FILE", "instead: the PIN is in the file's first line, or in a credential of systemd's"
    ),
}


@dataclass(frozen=True, slots=True)
class CardOptions:
    """A parsed `--card`.

    Attributes:
        type: the kind of card.
        values: the values of each option, in the order given.
        where: where they are from, for messages.
    """

    type: str
    values: Mapping[str, tuple[str, ...]]
    where: Where = field(default=COMMAND_LINE.within("card"), compare=False, repr=False)

    def one(self, name: str) -> str | None:
        """Gives the value of an option that is not repeatable."""
        values = self.values.get(name, ())
        return values[0] if values else None

    @property
    def slot_count(self) -> int:
        """How many slots of the reader it fills."""
        if self.one("token") != ANY_TOKEN:
            return 1
        return int(self.one("slots") or ANY_TOKEN_SLOTS)

    @property
    def looks_everywhere(self) -> bool:
        """Whether it follows tokens of whatever modules this machine has."""
        token = self.one("token")
        if token is None or "module" in self.values:
            return False
        return token == ANY_TOKEN or not parse_uri(token).names_module

    @property
    def is_shared(self) -> bool:
        """Whether others use its keys too: it is hardware, or its keys are on a token."""
        return self.type == PCSC or _has_token(self.values)

    @property
    def switches(self) -> frozenset[str]:
        """The options that are on."""
        return frozenset(name for name in _switches(self.type) if self.one(name) == "on")


def _switches(kind: str) -> Collection[str]:
    return {"exclusive"} if kind == PCSC else CARD_TYPES[kind].switches


def card_options(kind: str) -> Mapping[str, OptionHelp]:
    """Gives the options of a kind of card."""
    if kind == PCSC:
        return {**_PCSC_OPTIONS, **_GUARD_OPTIONS}
    switches = CARD_TYPES[kind].switches
    on_or_off = {name: OptionHelp("on|off", switches[name]) for name in switches}
    return {**_CARD_OPTIONS, **on_or_off, **_GUARD_OPTIONS}


def parse_card(text: str) -> CardOptions:
    """Reads the value of a `--card`.

    Raises:
        UserError: The type or an option is unknown, missing or given twice, or two options exclude
            each other.
    """
    kind, *assignments = split(text)
    return make_card(kind, assignments)


def make_card(kind: str, assignments: Sequence[str], where: Where | None = None) -> CardOptions:
    """Makes the options of a card.

    Args:
        kind: its type.
        assignments: OPTION=VALUE each.
        where: where they are from; by default the command line.

    Raises:
        UserError: As `parse_card`.
    """
    where = where or COMMAND_LINE.within(f"card={kind}")
    if kind != PCSC and kind not in CARD_TYPES:
        hint = suggestion(kind, (*CARD_TYPES, PCSC)) or "; --card=help lists them"
        raise where.error(f"there is no such type of card: {kind!r}{hint}")
    values = parse_options(where, "--card", _joined(assignments), card_options(kind))
    for name in _switches(kind):
        if values.get(name, ("off",))[0] not in {"on", "off"}:
            raise where.error("this is on or off", name)
    if kind == PCSC:
        _check_pcsc(where, values)
        return CardOptions(kind, values, where)
    _check_keys(where, kind, values)
    _check_uris(where, values)
    if "token" in values:
        _check_token(where, values)
    else:
        _check_sources(where, values, CARD_TYPES[kind].switches)
    return CardOptions(kind, values, where)


def _check_keys(where: Where, kind: str, values: Mapping[str, tuple[str, ...]]) -> None:
    """Checks which keys are named."""
    seen: set[int] = set()
    for name in values:
        match = KEY_OPTION.fullmatch(name)
        if match is None:
            continue
        with where.naming(name):
            reference = key_reference(match[1], kind)
        if reference in seen:
            raise where.error("this key is given twice", name)
        seen.add(reference)


def _check_sources(
    where: Where, values: Mapping[str, tuple[str, ...]], switches: Collection[str]
) -> None:
    """Checks the options of a card that is there from the start."""
    for name in ("module", "slots"):
        if name in values:
            raise where.error("this goes with token", name)
    other_options = {*switches, *_GUARD_OPTIONS}
    sources = [name for name in values if name not in other_options]
    if "card" in sources and len(sources) > 1:
        other = next(name for name in sources if name != "card")
        raise where.error(f"a card that ccidd keeps has its own: leave out {other} or card")
    if "card" not in sources:
        if not any(name.startswith(("key", "nss", "pkcs11")) for name in sources):
            raise where.error("give it keys=FILE.p12|FILE.pem, or card=NAME")
        if "pin-file" not in sources and not _has_token(values):
            raise where.error("the option pin-file=FILE is missing")
    if "nss" not in values:
        for name, (value, *_) in values.items():
            is_nickname = name.startswith("cert") or value.startswith(NSS)
            if is_nickname and name.startswith(("cert", "key")):
                raise where.error("a nickname needs a database: nss=sql:DIR", name)


def _check_uris(where: Where, values: Mapping[str, tuple[str, ...]]) -> None:
    """Checks all PKCS#11 URIs."""
    for name, given in values.items():
        is_key = KEY_OPTION.fullmatch(name) is not None
        for value in given:
            with where.naming(name):
                if name == "token" and value != ANY_TOKEN:
                    check_key_uri(parse_uri(value))
                elif is_key and "token" in values:
                    _check_token_key(parse_uri(value))
                elif name == "pkcs11" or (is_key and value.startswith(PKCS11)):
                    check_key_uri(parse_uri(value), needs_module=True)


def _check_token_key(uri: Pkcs11Uri) -> None:
    if uri != Pkcs11Uri(object=uri.object, id=uri.id, type=uri.type) or uri == Pkcs11Uri():
        raise UserError("it chooses among the token's keys, by id or object alone: pkcs11:id=%01")


def _check_token(where: Where, values: Mapping[str, tuple[str, ...]]) -> None:
    for name in values:
        if _NOT_OF_TOKENS.fullmatch(name):
            raise where.error(f"keys and PIN are the token's: leave out {name} or token")
    (token,) = values["token"]
    (slots,) = values.get("slots", ("1",))
    if "slots" in values and token != ANY_TOKEN:
        raise where.error("this goes with token=any", "slots")
    if not (slots.isdecimal() and len(slots) <= 2 and 1 <= int(slots) <= MAX_SLOTS):
        raise where.error(f"{slots} is none of 1 to {MAX_SLOTS}", "slots")
    if "module" in values and token != ANY_TOKEN and parse_uri(token).names_module:
        raise where.error("the URI of token names a module already: leave this out", "module")


def _joined(assignments: Sequence[str]) -> list[str]:
    """Puts together again what `confirm=sign,decrypt` was split into."""
    joined: list[str] = []
    for assignment in assignments:
        if joined and joined[-1].startswith("confirm=") and assignment in CONFIRMABLE:
            joined[-1] += f"+{assignment}"
        else:
            joined.append(assignment)
    return joined


def _check_pcsc(where: Where, values: Mapping[str, tuple[str, ...]]) -> None:
    if "reader" not in values:
        raise where.error(
            "the option reader=NAME is missing; `opensc-tool --list-readers` lists them"
        )
    for name in ("idle-release", "max-hold"):
        (value,) = values.get(name, ("1",))
        if not re.fullmatch("[0-9]{1,5}", value) or not 1 <= int(value) <= _MAX_SECONDS:
            raise where.error(f"this is a number of seconds, 1 to {_MAX_SECONDS}", name)


def _has_token(values: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether there is a token or a database, which has a PIN of its own."""
    return any(
        name in {"nss", "pkcs11", "token"} or (name.startswith("key") and value.startswith(PKCS11))
        for name, (value, *_) in values.items()
    )


def parse_reader(text: str) -> Mapping[str, str]:
    """Reads the value of `--reader`; gives the options that it has.

    Raises:
        UserError: An option is unknown or given twice.
    """
    return make_reader(split(text))


def make_reader(assignments: Sequence[str], where: Where = READER) -> Mapping[str, str]:
    """Makes the options of a reader.

    Args:
        assignments: OPTION=VALUE each.
        where: where they are from.

    Raises:
        UserError: As `parse_reader`.
    """
    values = parse_options(where, "--reader", assignments, READER_OPTIONS)
    return {name: value for name, (value,) in values.items()}


def parse_options(
    where: Where, help_option: str, assignments: Sequence[str], known: Mapping[str, OptionHelp]
) -> Mapping[str, tuple[str, ...]]:
    """Reads options: OPTION=VALUE each.

    Args:
        where: what gave them, for people.
        help_option: the option of the command line whose value `help` lists them.
        assignments: the options.
        known: which there are.

    Raises:
        UserError: One is unknown, has no value, or is given twice.
    """
    values: dict[str, tuple[str, ...]] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        option = _find(name, known)
        if option is None:
            hint = suggestion(name, known) or f"; {help_option}=help lists them"
            raise where.error(f"there is no option {name!r}{hint}")
        if not equals or not value:
            raise where.error(f"this needs a value: {name}=...", name)
        if name in values and not option.repeatable:
            raise where.error("this is given twice", name)
        values[name] = (*values.get(name, ()), value)
    return values


def _find(name: str, known: Mapping[str, OptionHelp]) -> OptionHelp | None:
    for template, option in known.items():
        if name == template if option.pattern is None else re.fullmatch(option.pattern, name):
            return option
    return None


def split(text: str) -> list[str]:
    """Splits at commas; two commas stand for one in the value."""
    # No argument of a program can hold a NUL.
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def card_help() -> str:
    """What `--card=help` prints."""
    lines = ["--card=TYPE,OPTION=VALUE,...   (a comma in a value is written twice)", ""]
    for name, kind in CARD_TYPES.items():
        lines.append(f"{name}: {kind.description}")
        lines += describe_options(card_options(name))
    lines.append(f"{PCSC}: {PCSC_DESCRIPTION}")
    lines += describe_options(card_options(PCSC))
    lines += [
        "",
        "Without --card, ccidd serves an embedded PIV card, which it makes when it is first needed",
        "and keeps in its state directory. It shows the PIN once; `ccidd card reset-pin` makes",
        "another one.",
        "",
        "In the place of a FILE, credential:NAME is a credential that systemd passes to a service",
        "(LoadCredential=, LoadCredentialEncrypted=).",
    ]
    return "\n".join(lines)


def reader_help() -> str:
    """What `--reader=help` prints."""
    title = "--reader=OPTION=VALUE,...   (a comma in a value is written twice)"
    profiles = [
        f"  {name:9} {identity.vendor_id:04X}:{identity.product_id:04X}  {identity.note}"
        for name, identity in IDENTITIES.items()
    ]
    return "\n".join([title, "", *describe_options(READER_OPTIONS), "", "Profiles:", *profiles])


def describe_options(options: Mapping[str, OptionHelp]) -> Iterator[str]:
    """Gives the lines that explain options."""
    for name, info in options.items():
        suffix = " (repeatable)" if info.repeatable else ""
        yield f"  {name}={info.value}{suffix}"
        yield f"      {info.help}"
