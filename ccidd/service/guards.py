# SPDX-License-Identifier: Apache-2.0
"""The guard before each card, as the options of `--card` want it."""

from typing import Final

from ccidd.card.card import Card
from ccidd.card.guard.consent import Consent
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.operations import CONFIRMABLE, MANAGE, NOTHING, Operation, parse_policy
from ccidd.card.guard.retries import Counts
from ccidd.errors import UserError
from ccidd.reader.pinentry.consent import PinentryConsent
from ccidd.service.options import CardOptions
from ccidd.service.readers import Pinentries
from ccidd.service.requests import AGENT
from ccidd.service.supply import UNPROTECTED, Protection

_MAX_FLOOR: Final = 14
"""A counter of 63CX goes to 15, of which the guest needs one."""

_OPEN: Final = Rules(MANAGE, 0, NOTHING)
"""Those of a card that ccidd keeps itself."""

_DEFAULT_PROGRAM: Final = "pinentry"


def guard_rules(options: CardOptions) -> Rules:
    """Reads the options of the guard.

    Returns:
        What they say, and what holds where they do not: for hardware and what other programs use
        as well, `use` with one try kept, else everything.

    Raises:
        UserError: One is wrong.
    """
    where = options.where
    policy, floor = options.one("policy"), options.one("retry-floor")
    confirm = options.one("confirm")
    if options.one("confirm-with") and not confirm:
        raise where.error("this needs confirm=sign,decrypt", "confirm-with")
    with where.naming("policy"):
        operations = parse_policy(policy or ("use" if options.is_shared else "manage"))
    with where.naming("retry-floor"):
        tries = _floor(floor or ("1" if options.is_shared else "0"))
    with where.naming("confirm"):
        asked = NOTHING if confirm is None else _confirm(confirm)
    return Rules(operations, tries, asked)


def _floor(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) <= len(str(_MAX_FLOOR)) else -1
    if not 0 <= number <= _MAX_FLOOR:
        raise UserError(f"{text} is not within 0 to {_MAX_FLOOR}")
    return number


def _confirm(text: str) -> frozenset[Operation]:
    names = text.replace(",", "+").split("+")
    if not set(names) <= CONFIRMABLE:
        raise UserError(f"{text} has something else than sign and decrypt")
    return frozenset(map(Operation, names))


class GuardProtection(Protection):
    """The guard before the cards of a `--card`; one that is taken out and put in again is the same.

    Args:
        rules: what holds.
        guest: the guest that is connected.
        consent: how a person is asked.
    """

    def __init__(self, rules: Rules, guest: Guest, consent: Consent | None) -> None:
        self.rules: Final = rules
        self.retry_floor = rules.retry_floor
        self._guest = guest
        self._consent = consent
        self._ledger = dict[bytes, Counts]()

    def protect(self, card: Card) -> Card:
        """See `Protection.protect`."""
        return Guard(card, self.rules, self._guest, self._consent, self._ledger)


def protector(
    options: CardOptions, guest: Guest, pinentries: Pinentries, agent: Consent | None = None
) -> Protection:
    """Makes what protects the cards of a `--card`.

    Args:
        options: the parsed `--card`.
        guest: the guest that is connected.
        pinentries: through which a person is asked.
        agent: asks through an agent; None where there can be none.

    Raises:
        UserError: An option is wrong, or there is no such program.
    """
    rules = guard_rules(options)
    if rules == _OPEN:
        return UNPROTECTED
    consent: Consent | None = None
    if rules.confirm:
        program = options.one("confirm-with") or _DEFAULT_PROGRAM
        if program == AGENT and agent is not None:
            consent = agent
        else:
            with options.where.naming("confirm-with"):
                consent = PinentryConsent(pinentries.named(program))
    return GuardProtection(rules, guest, consent)
