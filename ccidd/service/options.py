# SPDX-License-Identifier: Apache-2.0
"""The values of `--card` and `--reader`: OPTION=VALUE,... in the style of QEMU's options.

A comma in a value is written twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ccidd.errors import UserError
from ccidd.reader.profile import IDENTITIES


@dataclass(frozen=True, slots=True)
class OptionHelp:
    """One option of a kind of card.

    Attributes:
        value: what its value is, for people.
        help: what it is for.
        required: whether the card cannot do without.
        repeatable: whether it may be given more than once.
    """

    value: str
    help: str
    required: bool = False
    repeatable: bool = False


CARD_TYPES: Final[Mapping[str, tuple[str, Mapping[str, OptionHelp]]]] = {
    "piv": (
        "a PIV card (NIST SP 800-73-4) with keys from files",
        {
            "keys": OptionHelp(
                "FILE.p12|FILE.pem",
                "private keys with their certificates; in the order given they become the keys"
                " 9A (authentication), 9C (signature), 9D (key management), 9E (card"
                " authentication)",
                required=True,
                repeatable=True,
            ),
            "pin-file": OptionHelp(
                "FILE", "the PIN, 6 to 8 digits, in the file's first line", required=True
            ),
            "password-file": OptionHelp(
                "FILE", "the password of encrypted key files, in the file's first line"
            ),
        },
    )
}


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
        "PROGRAM", "a pinentry of this host asks for PINs, which the guest then never sees"
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
    """

    type: str
    values: Mapping[str, tuple[str, ...]]

    def one(self, name: str) -> str | None:
        """Gives the value of an option that is not repeatable."""
        values = self.values.get(name, ())
        return values[0] if values else None


def parse_card(text: str) -> CardOptions:
    """Reads the value of a `--card`.

    Raises:
        UserError: The type or an option is unknown, missing or given twice.
    """
    card_type, *assignments = _split(text)
    if card_type not in CARD_TYPES:
        raise UserError(
            f"--card={card_type}: there is no such type of card; --card=help lists them"
        )
    _description, known = CARD_TYPES[card_type]
    return CardOptions(card_type, _parse(f"--card={card_type}", "--card", assignments, known))


def parse_reader(text: str) -> Mapping[str, str]:
    """Reads the value of `--reader`; gives the options that it has.

    Raises:
        UserError: An option is unknown or given twice.
    """
    values = _parse("--reader", "--reader", _split(text), READER_OPTIONS)
    return {name: value for name, (value,) in values.items()}


def _parse(
    where: str, help_option: str, assignments: Sequence[str], known: Mapping[str, OptionHelp]
) -> Mapping[str, tuple[str, ...]]:
    values: dict[str, tuple[str, ...]] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if name not in known:
            raise UserError(f"{where}: there is no option {name!r}; {help_option}=help lists them")
        if not equals or not value:
            raise UserError(f"{where}: the option {name} needs a value: {name}=...")
        if name in values and not known[name].repeatable:
            raise UserError(f"{where}: the option {name} is given twice")
        values[name] = (*values.get(name, ()), value)
    for name, option in known.items():
        if option.required and name not in values:
            raise UserError(f"{where}: the option {name}={option.value} is missing")
    return values


def _split(text: str) -> list[str]:
    """Splits at commas; two commas stand for one in the value."""
    # No argument of a program can hold a NUL.
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def card_help() -> str:
    """What `--card=help` prints."""
    lines = ["--card=TYPE,OPTION=VALUE,...   (a comma in a value is written twice)", ""]
    for name, (description, options) in CARD_TYPES.items():
        lines.append(f"{name}: {description}")
        lines += _describe(options)
    lines += [
        "",
        "Without --card, ccidd serves an embedded PIV card, which it makes when it is first needed",
        "and keeps in its state directory; `ccidd card show` tells its PIN.",
    ]
    return "\n".join(lines)


def reader_help() -> str:
    """What `--reader=help` prints."""
    title = "--reader=OPTION=VALUE,...   (a comma in a value is written twice)"
    profiles = [
        f"  {name:9} {identity.vendor_id:04X}:{identity.product_id:04X}  {identity.note}"
        for name, identity in IDENTITIES.items()
    ]
    return "\n".join([title, "", *_describe(READER_OPTIONS), "", "Profiles:", *profiles])


def _describe(options: Mapping[str, OptionHelp]) -> Iterator[str]:
    for name, info in options.items():
        notes = [
            note
            for note, holds in (("required", info.required), ("repeatable", info.repeatable))
            if holds
        ]
        suffix = f" ({', '.join(notes)})" if notes else ""
        yield f"  {name}={info.value}{suffix}"
        yield f"      {info.help}"
