# SPDX-License-Identifier: Apache-2.0
"""`ccidd card`: the cards that ccidd keeps in its state directory."""

from collections.abc import Sequence

from ccidd.card.piv.objects import guid_of
from ccidd.card.piv.references import PinReference
from ccidd.errors import UserError
from ccidd.service import embedded
from ccidd.service.cards import stored_credentials
from ccidd.service.parser import OneLineParser, add_state_option
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
    for name, help_text in (
        ("show", "show its PIN, PUK, keys and certificates"),
        ("unblock", "give its PIN all tries back"),
    ):
        command = commands.add_parser(name, help=help_text, allow_abbrev=False)
        add_state_option(command)
    options = parser.parse_args(arguments)
    with State(options.state_dir) as state:
        stored = state.load_card(embedded.NAME)
        if stored is None:
            raise UserError(
                f"there is no embedded card in {options.state_dir} yet;"
                " it is made when ccidd first serves without --card"
            )
        if options.command == "unblock":
            state.restore_tries(guid(stored), PinReference.APPLICATION_PIN)
        tries = state.tries_left(guid(stored), PinReference.APPLICATION_PIN)
    print(describe(stored))  # noqa: T201 (this is what it is for)
    print(f"tries {tries}")  # noqa: T201


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
