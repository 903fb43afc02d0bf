# SPDX-License-Identifier: Apache-2.0
"""Makes the cards that the command line asks for."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from ccidd.card.card import Card
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.objects import guid_of
from ccidd.card.piv.references import KeyReference, PinReference
from ccidd.errors import UserError
from ccidd.keys.files import load_credentials, parse_pem, read_secret
from ccidd.keys.key import Credential
from ccidd.service.options import CardOptions
from ccidd.service.state import State, StoredCard, StoredPin

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_PIN: Final = re.compile(rb"[0-9]{6,8}")
_PIN_SIZE: Final = 8


def card_from_options(options: CardOptions, state: State) -> Card:
    """Makes the card that a `--card` describes.

    Raises:
        UserError: One of its files cannot be used.
    """
    password_file = options.one("password-file")
    password = read_secret(Path(password_file)) if password_file else None
    credentials = [
        credential
        for file in options.values["keys"]
        for credential in load_credentials(Path(file), password)
    ]
    if len(credentials) > len(KeyReference):
        raise UserError(
            f"--card={options.type}: {len(credentials)} keys, but a card has {len(KeyReference)}"
        )
    if len({credential.key.subject_public_key_info() for credential in credentials}) < len(
        credentials
    ):
        raise UserError(f"--card={options.type}: the same key is there twice")
    pin_file = options.values["pin-file"][0]
    pin = read_secret(Path(pin_file))
    if not _PIN.fullmatch(pin):
        raise UserError(f"{pin_file}: a PIN has 6 to 8 digits and nothing else")
    return _piv_card(dict(zip(KeyReference, credentials, strict=False)), pin, state)


def card_from_state(stored: StoredCard, state: State) -> Card:
    """Makes a card that is kept in the state directory."""
    return _piv_card(stored_credentials(stored), stored.pin.encode(), state)


def stored_credentials(stored: StoredCard) -> dict[KeyReference, Credential]:
    """Gives the keys of a stored card by their references."""
    return {
        KeyReference(key.reference): parse_pem(key.private_key + key.certificate, None)[0]
        for key in stored.keys
    }


def _piv_card(credentials: Mapping[KeyReference, Credential], pin: bytes, state: State) -> Card:
    guid = str(guid_of(credentials.values()))
    log.info("card_opened", guid=guid)
    # SP 800-73-4, part 2, 2.4.3: a PIN on the wire is filled up with FF.
    padded = pin.ljust(_PIN_SIZE, b"\xff")
    return piv_card(credentials, StoredPin(state, guid, PinReference.APPLICATION_PIN, padded))
