# SPDX-License-Identifier: Apache-2.0
"""`ccidd card`: the cards that ccidd keeps in its state directory."""

from collections.abc import Sequence
from pathlib import Path

from ccidd.card.piv.objects import guid_of
from ccidd.card.piv.references import PinReference
from ccidd.errors import UserError
from ccidd.service import embedded
from ccidd.service.cards import stored_credentials
from ccidd.service.parser import OneLineParser, add_state_option, state_directory
from ccidd.service.state import State, StoredCard


def run(arguments: Sequence[str]) -> None:
    """Runs `ccidd card …`.

    Raises:
        UserError: There is no card yet.
    """
    parser = OneLineParser(
        prog="ccidd card",
        description="The embedded card, which ccidd serves when no --card is given.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    show = commands.add_parser("show", help="show its PIN, PUK, keys and certificates")
    unblock = commands.add_parser("unblock", help="give a card's PIN all tries back")
    unblock.add_argument(
        "guid", metavar="GUID", nargs="?", help="another card, as the log names it (card_opened)"
    )
    for command in (show, unblock):
        add_state_option(command)
    options = parser.parse_args(arguments)
    directory = state_directory(options)
    if not State.exists(directory):
        raise _no_card(directory)
    with State(directory) as state:
        if options.command == "unblock":
            _unblock(state, options.guid, directory)
        else:
            _show(state, directory)


def _show(state: State, directory: Path) -> None:
    stored = _embedded_card(state, directory)
    tries = state.tries_left(guid(stored), PinReference.APPLICATION_PIN)
    print(describe(stored))  # noqa: T201 (this is what it is for)
    print(f"tries {tries}")  # noqa: T201


def _unblock(state: State, chosen: str | None, directory: Path) -> None:
    card = guid(_embedded_card(state, directory)) if chosen is None else chosen.lower()
    state.restore_tries(card, PinReference.APPLICATION_PIN)
    tries = state.tries_left(card, PinReference.APPLICATION_PIN)
    print(f"card  {card}\ntries {tries}")  # noqa: T201


def _embedded_card(state: State, directory: Path) -> StoredCard:
    stored = state.load_card(embedded.NAME)
    if stored is None:
        raise _no_card(directory)
    return stored


def _no_card(directory: Path) -> UserError:
    return UserError(
        f"there is no embedded card in {directory} yet;"
        " it is made when ccidd first serves without --card"
    )


def guid(stored: StoredCard) -> str:
    """Gives a stored card's GUID, under which its tries are counted."""
    return str(guid_of(stored_credentials(stored).values()))


def describe(stored: StoredCard) -> str:
    """Describes a card for its owner, PIN and PUK included."""
    lines = [
        f"card  {stored.name} (PIV), GUID {guid(stored)}",
        f"PIN   {stored.pin}",
        f"PUK   {stored.puk}",
    ]
    for reference, credential in stored_credentials(stored).items():
        subject = credential.certificate.subject.rfc4514_string()
        lines.append(f"key   {reference:02X} {credential.key.algorithm.value:8} {subject}")
    return "\n".join(lines)
