# SPDX-License-Identifier: Apache-2.0
"""What there is to tell of a card: for programs (JSON) and for people."""

from collections.abc import Iterator, Sequence
from typing import TypedDict

from cryptography.hazmat.primitives import hashes

from ccidd.card.piv.references import PinReference
from ccidd.service.cardkeys import StoredKey, keys_in
from ccidd.service.cardtypes import CARD_TYPES, PUK
from ccidd.service.embedded import Secrets
from ccidd.service.state import CardRecord, State


class PinView(TypedDict):
    """A PIN: its key reference (hexadecimal), what it is, and its tries."""

    reference: str
    name: str
    tries_left: int
    max_tries: int


class KeyView(TypedDict):
    """A key: its reference (hexadecimal) and algorithm, and what is in its certificate.

    Times are in the format of ISO 8601; the fingerprint is the SHA-256 of the certificate.
    """

    reference: str
    algorithm: str
    subject: str | None
    issuer: str | None
    not_before: str | None
    not_after: str | None
    fingerprint: str | None


class CardView(TypedDict):
    """A card. `name` is null if its keys are not kept here, `served_by` if no process serves it."""

    name: str | None
    guid: str
    type: str
    created: str
    served_by: int | None
    pins: list[PinView]
    keys: list[KeyView]


def card_view(state: State, record: CardRecord) -> CardView:
    """Gathers what there is to tell of a card.

    Raises:
        UserError: What is stored is damaged.
    """
    return CardView(
        name=record.name,
        guid=record.guid,
        type=record.type,
        created=record.created.isoformat(),
        served_by=state.served_by(record.guid),
        pins=list(_pins(state, record)),
        keys=[_key(key) for key in keys_in(state.contents(record.guid))],
    )


def _pins(state: State, record: CardRecord) -> Iterator[PinView]:
    names = {PUK: "PUK", int(PinReference.GLOBAL_PIN): "global PIN"}
    if record.type in CARD_TYPES:
        names[CARD_TYPES[record.type].pin] = "PIN"
    for reference in state.pins(record.guid):
        pin = state.pin(record.guid, reference)
        if pin is not None:
            yield PinView(
                reference=f"{reference:02X}",
                name=names.get(reference, f"PIN {reference:02X}"),
                tries_left=pin.tries_left,
                max_tries=pin.max_tries,
            )


def _key(key: StoredKey) -> KeyView:
    certificate = key.certificate
    return KeyView(
        reference=f"{key.reference:02X}",
        algorithm=key.algorithm.value,
        subject=None if certificate is None else certificate.subject.rfc4514_string(),
        issuer=None if certificate is None else certificate.issuer.rfc4514_string(),
        not_before=None if certificate is None else certificate.not_valid_before_utc.isoformat(),
        not_after=None if certificate is None else certificate.not_valid_after_utc.isoformat(),
        fingerprint=None if certificate is None else certificate.fingerprint(hashes.SHA256()).hex(),
    )


def describe(card: CardView, secrets: Secrets | None = None) -> str:
    """Describes a card for people, with the PIN and the PUK of a new one."""
    lines = [f"card  {card['name'] or '-'} ({card['type']}), GUID {card['guid']}"]
    if card["served_by"] is not None:
        lines.append(f"by    process {card['served_by']}")
    for pin in card["pins"]:
        shown = {"PIN": secrets.pin, "PUK": secrets.puk}.get(pin["name"]) if secrets else None
        lines.append(
            f"{pin['name']:<5} {shown or ''}"
            if shown
            else f"{pin['name']:<5} {pin['tries_left']} of {pin['max_tries']} tries left"
        )
    if secrets is not None and secrets.management_key is not None:
        lines.append(f"admin {secrets.management_key.key.hex()}")
    for key in card["keys"]:
        until = key["not_after"]
        suffix = " (no certificate)" if until is None else f" (until {until[:10]})"
        subject = key["subject"] or ""
        lines.append(f"key   {key['reference']} {key['algorithm']:8} {subject}{suffix}")
    if secrets is not None:
        lines.append("PIN, PUK and administration key are shown this once")
    return "\n".join(lines)


def table(cards: Sequence[CardView]) -> str:
    """Lists cards for people."""
    rows = [("NAME", "TYPE", "PIN", "KEYS", "SERVED BY", "GUID")]
    rows += [
        (
            card["name"] or "-",
            card["type"],
            _tries(card),
            _references(card),
            "-" if card["served_by"] is None else f"process {card['served_by']}",
            card["guid"],
        )
        for card in cards
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _tries(card: CardView) -> str:
    for pin in card["pins"]:
        if pin["name"] == "PIN":
            return f"{pin['tries_left']}/{pin['max_tries']}"
    return "-"


def _references(card: CardView) -> str:
    if card["name"] is None:
        return "elsewhere"
    return " ".join(key["reference"] for key in card["keys"]) or "-"
