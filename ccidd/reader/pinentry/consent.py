# SPDX-License-Identifier: Apache-2.0
"""Asks the person through a pinentry whether a guest may use a key (its command CONFIRM)."""

from typing import Final

from ccidd.card.guard.consent import Consent, ConsentRequest
from ccidd.card.guard.operations import Operation
from ccidd.reader.pinentry.program import Pinentry

_MAX_NAME: Final = 60
"""Characters of the guest's name that are shown, so that the rest still fits the text."""

_VERBS: Final = {
    frozenset({Operation.SIGN}): "sign",
    frozenset({Operation.DECRYPT}): "decrypt",
}


class PinentryConsent(Consent):
    """Asks through a pinentry.

    Args:
        pinentry: the pinentry.
    """

    def __init__(self, pinentry: Pinentry) -> None:
        self._pinentry = pinentry

    async def ask(self, request: ConsentRequest) -> bool:
        """See `Consent.ask`."""
        return await self._pinentry.confirm(describe(request), request.timeout)


def describe(request: ConsentRequest) -> str:
    """Says in some lines, for people, who asks for what."""
    verb = _VERBS.get(request.operations, "sign or decrypt")
    guest = " ".join(request.guest.split())[:_MAX_NAME]
    return f"{guest} asks to {verb}\nwith {_key(request)}\nof the {request.card}."


def _key(request: ConsentRequest) -> str:
    match request.reference, request.key:
        case None, None:
            return "a key"
        case str(reference), None:
            return f"the key {reference}"
        case None, str(name):
            return f"the {name} key"
        case reference, name:
            return f"the {name} key ({reference})"
