# SPDX-License-Identifier: Apache-2.0
"""What vscclient's option `-e` says: libcacard's "emul args".

They are separated by blanks, newlines or commas. Beyond what libcacard 2.8 takes, a comma ends each
of them (there, the rest up to a blank is passed over), so that hw_type need not be the last. `no`
may be written as `false` and `off` as well, and there is `any`; all of these mean yes there. An
empty hw_params is empty, and not what comes behind the blank. Blanks behind names are left out, as
those before them are.

Source: libcacard 2.8, `vcard_emul_options` and the text of `vcard_emul_usage`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ccidd.errors import UserError

_BLANKS: Final = " \t\n\v\f\r"
_SEPARATORS: Final = _BLANKS + ","
_WORD: Final = re.compile(rf"[^{_SEPARATORS}]*")
_UNTIL_BLANK: Final = re.compile(rf"[^{_BLANKS}]*")
_NAME: Final = re.compile(r"(?:[a-z_]+=?)?")
_QUOTED: Final = re.compile(r'"([^"\n]+)["\n]')
_BRACKETS: Final = re.compile(r"\(([^)]*)\)")

_SOFT_FIELDS: Final = 4
"""Slot, reader name, card type and parameters, which come before the certificates."""


class Hardware(Enum):
    """Which tokens of the database's modules are served."""

    NO = "no"
    YES = "yes"
    REMOVABLE = "removable"
    ANY = "any"


class CardType(Enum):
    """What a token is shown to the guest as."""

    CAC = "CAC"
    PASSTHRU = "PASSTHRU"


@dataclass(frozen=True, slots=True)
class SoftReader:
    """A reader with a card that has certificates of the database (`soft=`).

    Attributes:
        slot: NSS's name of the slot or token that they are in; empty for the database itself.
        name: the reader's name.
        certificates: their nicknames.
    """

    slot: str
    name: str
    certificates: Sequence[str]


@dataclass(frozen=True, slots=True)
class Emulation:
    """What is to be emulated.

    Attributes:
        database: the NSS database; None for the system's.
        hardware: which tokens to serve, each in a reader of its own.
        card_type: what the tokens are shown as.
        hw_params: parameters for the tokens' cards, which neither kind of card has any use for.
        soft: the readers with certificates.
    """

    database: str | None = None
    hardware: Hardware = Hardware.YES
    card_type: CardType = CardType.CAC
    hw_params: str | None = None
    soft: Sequence[SoftReader] = ()


def parse_emulation(text: str) -> Emulation:
    """Reads the value of `-e`.

    Raises:
        UserError: It is none that libcacard would take.
    """
    parser = _Parser(text)
    while not parser.at_end():
        parser.take()
    return parser.result()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._database: str | None = None
        self._hardware = Hardware.YES
        self._card_type = CardType.CAC
        self._hw_params: str | None = None
        self._soft: list[SoftReader] = []

    def result(self) -> Emulation:
        return Emulation(
            self._database, self._hardware, self._card_type, self._hw_params, tuple(self._soft)
        )

    def at_end(self) -> bool:
        self._skip(_SEPARATORS)
        return self._at == len(self._text)

    def take(self) -> None:
        """Reads one of the arguments."""
        match self._name():
            case "db=":
                _check_once("db", self._database)
                self._database = self._quoted()
            case "use_hw=":
                self._hardware = _hardware(self._value(_WORD))
            case "hw_type=":
                self._card_type = _card_type("hw_type=", self._value(_WORD))
            case "hw_params=":
                _check_once("hw_params", self._hw_params)
                self._hw_params = self._match(_UNTIL_BLANK)
            case "soft=":
                self._soft.append(self._soft_reader())
            case "nssemul":
                self._hardware, self._card_type = Hardware.YES, CardType.CAC
            case "passthru":
                self._hardware, self._card_type = Hardware.YES, CardType.PASSTHRU
            case other:
                raise UserError(
                    f"-e: {other!r} is none of db=, use_hw=, hw_type=, hw_params=, soft=, nssemul"
                    " and passthru"
                )

    def _name(self) -> str:
        """Reads what an argument begins with; of one without a value, that is all."""
        name = self._match(_NAME)
        return name if name.endswith("=") else name + self._match(_WORD)

    def _value(self, pattern: re.Pattern[str]) -> str:
        self._skip(_BLANKS)
        return self._match(pattern)

    def _skip(self, characters: str) -> None:
        rest = self._text[self._at :]
        self._at += len(rest) - len(rest.lstrip(characters))

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return match[0]

    def _quoted(self) -> str:
        """Reads a path in quotes; a newline ends it as well."""
        self._skip(_BLANKS)
        match = _QUOTED.match(self._text, self._at)
        if match is None:
            raise UserError('-e: the path behind db= is to be in quotes: db="sql:DIR"')
        self._at = match.end()
        return match[1]

    def _soft_reader(self) -> SoftReader:
        self._skip(_BLANKS)
        match = _BRACKETS.match(self._text, self._at)
        if match is None:
            raise UserError(
                "-e: behind soft= there is no (slot,reader name,CAC,parameters,certificate,…)"
            )
        self._at = match.end()
        fields = [field.strip(_BLANKS) for field in match[1].split(",")]
        if len(fields) <= _SOFT_FIELDS:
            raise UserError(
                f"-e: soft={match[0]} has no certificates; they come behind slot, reader name,"
                " CAC and parameters"
            )
        slot, name, kind, _parameters, *certificates = fields
        if _card_type(f"soft={match[0]}:", kind) is not CardType.CAC:
            raise UserError(f"-e: soft={match[0]}: a card with certificates is a CAC")
        return SoftReader(slot, name, tuple(nickname for nickname in certificates if nickname))


def _check_once(name: str, value: str | None) -> None:
    if value is not None:
        raise UserError(f"-e: {name}= is given twice")


def _hardware(word: str) -> Hardware:
    if word.startswith("removable"):
        return Hardware.REMOVABLE
    if word == "any":
        return Hardware.ANY
    if word[:1] in set("0NnFf") or word.lower() == "off":
        return Hardware.NO
    if word[:1] in set("1YyTt") or word.lower() == "on":
        return Hardware.YES
    raise UserError(f"-e: use_hw={word} is none of yes, no, removable and any")


def _card_type(where: str, word: str) -> CardType:
    try:
        return CardType(word.upper())
    except ValueError as error:
        raise UserError(f"-e: {where}{word} is none of CAC and PASSTHRU") from error
