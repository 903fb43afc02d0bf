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
from ccidd.service.supply import Protect, unprotected

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
    where = f"--card={options.type}"
    policy, floor = options.one("policy"), options.one("retry-floor")
    confirm = options.one("confirm")
    if options.one("confirm-with") and not confirm:
        raise UserError(f"{where}: confirm-with=PROGRAM needs confirm=sign,decrypt")
    default_policy = "use" if options.is_shared else "manage"
    default_floor = 1 if options.is_shared else 0
    try:
        return Rules(
            parse_policy(policy or default_policy),
            default_floor if floor is None else _floor(floor),
            NOTHING if confirm is None else _confirm(confirm),
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _floor(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) <= len(str(_MAX_FLOOR)) else -1
    if not 0 <= number <= _MAX_FLOOR:
        raise UserError(f"retry-floor={text} is not within 0 to {_MAX_FLOOR}")
    return number


def _confirm(text: str) -> frozenset[Operation]:
    names = text.replace(",", "+").split("+")
    if not set(names) <= CONFIRMABLE:
        raise UserError(f"confirm={text} has something else than sign and decrypt")
    return frozenset(map(Operation, names))


def protector(
    options: CardOptions, guest: Guest, pinentries: Pinentries, agent: Consent | None = None
) -> Protect:
    """Makes what puts the guard before the cards of a `--card`.

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
        return unprotected
    consent: Consent | None = None
    if rules.confirm:
        program = options.one("confirm-with") or _DEFAULT_PROGRAM
        if program == AGENT and agent is not None:
            consent = agent
        else:
            consent = PinentryConsent(pinentries.named(program))
    # A card that is taken out and put in again is the same card.
    ledger = dict[bytes, Counts]()

    def protect(card: Card) -> Card:
        return Guard(card, rules, guest, consent, ledger)

    return protect
