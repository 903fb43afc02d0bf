# SPDX-License-Identifier: Apache-2.0
"""`ccidd card`: the cards that ccidd keeps in its state directory."""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from ccidd.card.piv.management_key import ManagementAlgorithm, ManagementKey
from ccidd.card.piv.records import MANAGEMENT_KEY
from ccidd.errors import UserError
from ccidd.keys.key import KeyAlgorithm
from ccidd.service import embedded
from ccidd.service.cardfiles import (
    change_contents,
    import_files,
    request_for,
    write_pem,
    write_requests,
)
from ccidd.service.cardkeys import keys_in
from ccidd.service.cardpins import change_pin, reset_pin, unblock
from ccidd.service.cardtypes import CARD_TYPES, key_reference
from ccidd.service.cardview import card_view, describe, table
from ccidd.service.certificates import authority, parse_subject
from ccidd.service.log import configure_log
from ccidd.service.newcard import Blank, IssuedBy, make_card
from ccidd.service.parser import OneLineParser, add_state_options, open_state, path, state_directory
from ccidd.service.pincodes import (
    MANAGEMENT_ALGORITHMS,
    parse_management_key,
    random_pin,
    random_puk,
)
from ccidd.service.secretinput import add_secret_options, confirm, given_secret, is_given
from ccidd.service.state import State
from ccidd.service.state.memory import destroy

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_EPILOG: Final = """\
A secret is asked for on the terminal, or taken from a file or a descriptor; never from an argument.
While ccidd serves a card, its PINs can be changed and all can be shown; what is on it cannot be
changed from here.
"""

_Command = Callable[[State, argparse.Namespace], None]


def run(arguments: Sequence[str]) -> None:
    """Runs `ccidd card …`.

    Raises:
        UserError: It cannot be done.
    """
    options = _parser().parse_args(arguments)
    configure_log("info")
    directory = state_directory(options.state_dir)
    if not State.exists(directory) and not options.makes_state:
        raise UserError(
            f"there is no card in {directory} yet; make one with `ccidd card create`,"
            " or serve without --card"
        )
    with open_state(options) as state:
        options.run(state, options)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="ccidd card",
        description="The cards that ccidd keeps in its state directory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    _add_create(commands)
    _add_import(commands)
    _add(commands, "show", _show, "show a card: its PINs' tries, keys and certificates")
    _add(commands, "list", _list, "list all cards", named=False)
    _add_pin_commands(commands)
    _add_management_key_command(commands)
    _add_export(commands)
    gone = _add(commands, "destroy", _destroy, "destroy a card, with its keys", default=False)
    gone.add_argument("--yes", action="store_true", help="do not ask whether it is meant")
    return parser


def _add(  # noqa: PLR0913 (what a command consists of)
    commands: "argparse._SubParsersAction[OneLineParser]",
    name: str,
    run_command: _Command,
    help_text: str,
    *,
    named: bool = True,
    default: bool = True,
    makes_state: bool = False,
) -> OneLineParser:
    command = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
    if named and default:
        command.add_argument(
            "name",
            metavar="NAME",
            nargs="?",
            default=embedded.NAME,
            help=f"its name or GUID (default: {embedded.NAME}, the embedded card)",
        )
    elif named:
        command.add_argument("name", metavar="NAME", help="its name or GUID")
    add_state_options(command)
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=run_command, makes_state=makes_state)
    return command


def _add_create(commands: "argparse._SubParsersAction[OneLineParser]") -> None:
    create = _add(
        commands,
        "create",
        _create,
        "make a card with new keys; its PIN and PUK are shown once",
        default=False,
        makes_state=True,
    )
    create.add_argument("--type", choices=CARD_TYPES, default="piv", help="default: piv")
    create.add_argument(
        "--key",
        metavar="XX=ALGORITHM",
        action="append",
        default=[],
        help="a key by its reference, such as 9A=P-384; default: those of the embedded card",
    )
    create.add_argument("--empty", action="store_true", help="without any key, for `import`")
    create.add_argument(
        "--subject", metavar="NAME", help="who the certificates are for, such as CN=Some One,O=Us"
    )
    create.add_argument(
        "--issuer",
        choices=[each.value for each in IssuedBy],
        default=IssuedBy.SELF.value,
        help="who signs the certificates: each key its own (self; the default), or a test"
        " authority of this state directory's (ca)",
    )
    create.add_argument(
        "--csr",
        metavar="DIR",
        type=path,
        help="write certificate requests there (NAME-XX.csr), to be signed elsewhere",
    )
    add_secret_options(create, "pin", "the PIN, instead of a random one,")
    add_secret_options(create, "puk", "the PUK, instead of a random one,")
    _add_management_key_options(create, "the administration key of a PIV card")


def _add_import(commands: "argparse._SubParsersAction[OneLineParser]") -> None:
    importing = _add(
        commands,
        "import",
        _import,
        "put keys, certificates and PIV data objects from files on a card",
        default=False,
    )
    importing.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        type=path,
        help="PKCS#12 or PEM: private keys with their certificates, or certificates alone for"
        " keys that are on the card. TAG=FILE, such as 5FC102=chuid: a PIV data object, with or"
        " without the 53 around it, or a certificate as one",
    )
    importing.add_argument(
        "--key",
        metavar="XX",
        action="append",
        default=[],
        help="the key reference for the next private key; default: the next that is free",
    )
    importing.add_argument(
        "--replace", action="store_true", help="take the place of keys that are there"
    )
    add_secret_options(importing, "password", "the password of encrypted files")


def _add_pin_commands(commands: "argparse._SubParsersAction[OneLineParser]") -> None:
    changing = _add(commands, "change-pin", change_pin, "change the PIN or the PUK")
    add_secret_options(changing, "pin", "what it is now")
    add_secret_options(changing, "new-pin", "what it is to be")
    unblocking = _add(
        commands, "unblock", unblock, "give the PIN all its tries back, as the operator or by PUK"
    )
    unblocking.add_argument(
        "--with-puk", action="store_true", help="show the PUK, as a guest would, and set a new PIN"
    )
    add_secret_options(unblocking, "puk", "the PUK (with --with-puk)")
    add_secret_options(unblocking, "new-pin", "the new PIN (with --with-puk)")
    resetting = _add(
        commands, "reset-pin", reset_pin, "set a new PIN, as the operator; a random one is shown"
    )
    add_secret_options(resetting, "new-pin", "what it is to be, instead of a random one,")
    for command in (changing, unblocking, resetting):
        command.add_argument(
            "--which",
            choices=("pin", "puk", "global"),
            default="pin",
            help="the PIN (the default), the PUK, or the global PIN of a PIV card",
        )


def _add_management_key_command(
    commands: "argparse._SubParsersAction[OneLineParser]",
) -> None:
    resetting = _add(
        commands,
        "reset-management-key",
        _reset_management_key,
        "set a new administration key; a random one is shown",
    )
    _add_management_key_options(resetting, "the key")


def _add_management_key_options(command: OneLineParser, what: str) -> None:
    add_secret_options(command, "management-key", f"{what}, instead of a random one,")
    command.add_argument(
        "--management-key-algorithm",
        choices=MANAGEMENT_ALGORITHMS,
        help="what it is for; older provisioning tools know 3DES alone (default: that of the key"
        " that it replaces, else AES-192)",
    )


def _add_export(commands: "argparse._SubParsersAction[OneLineParser]") -> None:
    exporting = _add(commands, "export", _export, "print certificates, in PEM")
    exporting.add_argument("--key", metavar="XX", help="that of one key alone")
    exporting.add_argument("--output", metavar="FILE", type=path, help="write them there")
    what = exporting.add_mutually_exclusive_group()
    what.add_argument("--csr", action="store_true", help="certificate requests instead")
    what.add_argument(
        "--ca", action="store_true", help="instead, the certificate of the test authority"
    )
    exporting.add_argument("--subject", metavar="NAME", help="the name in the requests")


def _create(state: State, options: argparse.Namespace) -> None:
    name: str = options.name
    if not _NAME.fullmatch(name):
        raise UserError(f"{name} is no name for a card: letters, digits, ., _ and - are, up to 64")
    if state.find_card(name) is not None:
        raise UserError(f"there is a card {name} already")
    if options.empty and options.key:
        raise UserError("--empty and --key exclude each other")
    secrets = embedded.Secrets(
        _chosen(options, "pin") or random_pin(),
        _chosen(options, "puk") or random_puk(),
        _management_key(options) if CARD_TYPES[options.type].has_piv else None,
    )
    blank = Blank(
        name,
        options.type,
        secrets.pin,
        secrets.puk,
        label=name,
        keys={} if options.empty else _keys(options.key, options.type),
        subject=None if options.subject is None else parse_subject(options.subject),
        issued_by=IssuedBy(options.issuer),
        management_key=secrets.management_key,
    )
    card, keys = make_card(state, blank)
    if not state.add_card(card):
        raise UserError(f"there is a card {name} already")
    if options.csr is not None:
        write_requests(keys, blank, options.csr)
    view = card_view(state, state.card(name))
    if options.json:
        key = secrets.management_key
        _print_json(
            {
                **view,
                "pin": secrets.pin,
                "puk": secrets.puk,
                "management_key": None if key is None else key.key.hex(),
            }
        )
    else:
        print(describe(view, secrets))  # noqa: T201


def _management_key(
    options: argparse.Namespace, default: ManagementAlgorithm = ManagementAlgorithm.AES_192
) -> ManagementKey:
    chosen = options.management_key_algorithm
    algorithm = default if chosen is None else MANAGEMENT_ALGORITHMS[chosen]
    given = given_secret(options, "management-key")
    if given is None:
        return ManagementKey.generate(algorithm)
    return parse_management_key(given, algorithm)


def _reset_management_key(state: State, options: argparse.Namespace) -> None:
    record = state.card(options.name)
    if not CARD_TYPES[record.type].has_piv:
        raise UserError(
            f"the card {options.name} is {record.type}, which has no administration key"
        )
    present = state.contents(record.guid).get(MANAGEMENT_KEY)
    if present is None:
        key = _management_key(options)
    else:
        key = _management_key(options, ManagementKey.decode(present).algorithm)
    change_contents(state, record, {MANAGEMENT_KEY: key.encode()})
    shown = {} if is_given(options, "management-key") else {"management_key": key.key.hex()}
    if options.json:
        _print_json({"guid": record.guid, **shown})
    else:
        print(f"card  {options.name}, GUID {record.guid}")  # noqa: T201
        for value in shown.values():
            print(f"admin {value}\nIt is shown this once.")  # noqa: T201


def _chosen(options: argparse.Namespace, name: str) -> str | None:
    chosen = given_secret(options, name)
    return None if chosen is None else chosen.decode(errors="replace")


def _keys(assignments: Sequence[str], kind: str) -> Mapping[int, KeyAlgorithm]:
    if not assignments:
        return CARD_TYPES[kind].default_keys
    keys: dict[int, KeyAlgorithm] = {}
    for assignment in assignments:
        reference, _, algorithm = assignment.partition("=")
        try:
            keys[key_reference(reference, kind)] = KeyAlgorithm(algorithm)
        except ValueError as error:
            known = ", ".join(each.value for each in KeyAlgorithm)
            raise UserError(f"--key={assignment}: {algorithm!r} is none of {known}") from error
    return keys


def _import(state: State, options: argparse.Namespace) -> None:
    record = state.card(options.name)
    references = [key_reference(text, record.type) for text in options.key]
    import_files(state, record, options.files, references, options)
    _show(state, options)


def _export(state: State, options: argparse.Namespace) -> None:
    if options.ca:
        certificate, _issuer = authority(state)
        write_pem([certificate.public_bytes(Encoding.PEM)], options.output)
        return
    record = state.card(options.name)
    chosen = None if options.key is None else key_reference(options.key, record.type)
    keys = [key for key in keys_in(state.contents(record.guid)) if chosen in {None, key.reference}]
    subject = None if options.subject is None else parse_subject(options.subject)
    if options.csr:
        pem = [request_for(key, record, subject) for key in keys]
    else:
        certificates = (key.certificate for key in keys)
        pem = [each.public_bytes(Encoding.PEM) for each in certificates if each is not None]
    if not pem:
        what = "key" if options.csr else "certificate"
        raise UserError(f"the card {options.name} has no {what} to export; see `ccidd card show`")
    write_pem(pem, options.output)


def _destroy(state: State, options: argparse.Namespace) -> None:
    record = state.card(options.name)
    if not options.yes:
        confirm(
            f"Destroy the card {options.name} and its keys, for ever? Type its name to do it: ",
            options.name,
        )
    destroy(state, record)


def _show(state: State, options: argparse.Namespace) -> None:
    view = card_view(state, state.card(options.name))
    if options.json:
        _print_json(view)
    else:
        print(describe(view))  # noqa: T201


def _list(state: State, options: argparse.Namespace) -> None:
    views = [card_view(state, record) for record in state.cards()]
    if options.json:
        _print_json(views)
    else:
        print(table(views))  # noqa: T201


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))  # noqa: T201
