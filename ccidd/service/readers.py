# SPDX-License-Identifier: Apache-2.0
"""Makes the reader that the command line asks for."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from ccid_protocol.ccid import PinSupport
from ccidd.errors import UserError
from ccidd.reader.pinentry.credential import CredentialPin
from ccidd.reader.pinentry.program import PinentryProgram
from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import (
    IDENTITIES,
    MAX_MESSAGE,
    MAX_SLOTS,
    MIN_MESSAGE,
    Level,
    ReaderProfile,
    default_profile,
)
from ccidd.service.requests import AGENT
from ccidd.service.where import READER, Where

_USB_ID: Final = re.compile(r"([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})")
_MAX_STRING: Final = 126
"""UTF-16 units that a string descriptor holds."""


def reader_profile(
    options: Mapping[str, str], *, cards: int, place: str, where: Where = READER
) -> ReaderProfile:
    """Makes a profile of the options of `--reader`.

    Args:
        options: the options that were given.
        cards: how many cards there are.
        place: where the reader is served, which makes its serial number.
        where: where the options are from.

    Raises:
        UserError: A value is none that the option can have.
    """
    with where.naming("slots"):
        slots = _slots(options.get("slots"), cards)
    is_address = ":" in place and "/" not in place
    address = place if is_address else str(Path(place).absolute())
    digest = hashlib.sha256(address.encode()).hexdigest()
    with where.naming("level"):
        level = _level(options.get("level", "extended"))
    profile = default_profile(slots, digest[:12].upper(), level)
    vendor_id, product_id = _identity(options, profile, where)
    for name in ("manufacturer", "product", "serial"):
        with where.naming(name):
            _check_text(options.get(name, ""))
    with where.naming("max-message"):
        longest_message = _longest_message(options.get("max-message"), profile)
    return replace(
        profile,
        vendor_id=vendor_id,
        product_id=product_id,
        manufacturer=options.get("manufacturer", profile.manufacturer),
        product=options.get("product", profile.product),
        serial=options.get("serial", profile.serial),
        longest_message=longest_message,
    )


class Pinentries:
    """The pinentry programs in use: one program asks one question at a time, whoever has it."""

    def __init__(self) -> None:
        self._programs: dict[str, PinentryProgram] = {}

    def named(self, program: str) -> PinentryProgram:
        """Gives a program by its name or path.

        Raises:
            UserError: There is no such program.
        """
        if program not in self._programs:
            self._programs[program] = PinentryProgram(program)
        return self._programs[program]


def check_pin_source(options: Mapping[str, str], where: Where) -> None:
    """Checks that PINs come from one place.

    Raises:
        UserError: They come from two.
    """
    if "pin-entry" in options and "pin-file" in options:
        raise where.error("pin-entry and pin-file exclude each other")


def pin_source(
    options: Mapping[str, str],
    pinentries: Pinentries | None = None,
    agent: PinSource | None = None,
    where: Where = READER,
) -> PinSource | None:
    """Gives the place where PINs come from that are entered at the reader, if one is chosen.

    Args:
        options: the reader's options.
        pinentries: the pinentry programs in use.
        agent: has PINs entered at an agent; None where there can be none.
        where: where the options are from.

    Raises:
        UserError: There is no such program, the file holds no PIN, or both are given.
    """
    check_pin_source(options, where)
    if (program := options.get("pin-entry")) is not None:
        if program == AGENT and agent is not None:
            return agent
        with where.naming("pin-entry"):
            return (pinentries or Pinentries()).named(program)
    if (name := options.get("pin-file")) is not None:
        with where.naming("pin-file"):
            return CredentialPin(name)
    return None


def with_pin_entry(profile: ReaderProfile, pins: PinSource | None) -> ReaderProfile:
    """Gives the profile of a reader that says what its source of PINs can do."""
    if pins is None:
        return profile
    support = PinSupport.VERIFICATION
    if pins.can_modify:
        support |= PinSupport.MODIFICATION
    return replace(profile, pin_support=support)


def _slots(text: str | None, cards: int) -> int:
    if text is not None and not (text.isdecimal() and len(text) <= len(str(MAX_SLOTS))):
        raise UserError(f"{text} is no number")
    slots = cards if text is None else int(text)
    if not cards <= slots <= MAX_SLOTS:
        raise UserError(
            f"{slots} are not possible: a reader has at most {MAX_SLOTS}, and one for each card"
        )
    return slots


def _identity(options: Mapping[str, str], profile: ReaderProfile, where: Where) -> tuple[int, int]:
    """Gives idVendor and idProduct."""
    match options.get("profile"), options.get("usb-id"):
        case None, None:
            return profile.vendor_id, profile.product_id
        case str(name), None if name in IDENTITIES:
            return IDENTITIES[name].vendor_id, IDENTITIES[name].product_id
        case str(name), None:
            raise where.error(f"{name} is none of {', '.join(IDENTITIES)}", "profile")
        case None, str(text):
            match = _USB_ID.fullmatch(text)
            if match is None:
                raise where.error(f"{text} is not of the form VVVV:PPPP", "usb-id")
            return int(match[1], 16), int(match[2], 16)
        case _:
            raise where.error("profile and usb-id exclude each other")


def _longest_message(text: str | None, profile: ReaderProfile) -> int:
    if text is None:
        return profile.longest_message
    if profile.level is not Level.EXTENDED_APDU:
        raise UserError("this is for level=extended")
    number = int(text) if text.isdecimal() and len(text) <= len(str(MAX_MESSAGE)) else 0
    if not MIN_MESSAGE <= number <= MAX_MESSAGE:
        raise UserError(f"{text} is not within {MIN_MESSAGE} to {MAX_MESSAGE}")
    return number


def _level(text: str) -> Level:
    try:
        return Level(text)
    except ValueError as error:
        levels = ", ".join(level.value for level in Level)
        raise UserError(f"{text} is none of {levels}") from error


def _check_text(text: str) -> None:
    if not text.isascii() or not text.isprintable() or len(text) > _MAX_STRING:
        raise UserError(f"this is not printable ASCII of at most {_MAX_STRING} bytes")
