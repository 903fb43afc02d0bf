# SPDX-License-Identifier: Apache-2.0
"""The command line of `ccidd-vscclient`: that of libcacard's vscclient.

Source: libcacard 2.8, vscclient ("vscclient [-c <certname> .. -e <emul_args> -d <level>] <host>
<port>"); `-p` is of the vscclient that QEMU had before.
"""

import argparse
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NoReturn

import trio

from ccidd import __version__
from ccidd.card.guard.guest import Guest
from ccidd.errors import UserError
from ccidd.reader.slot import Slot
from ccidd.service.daemon import serve
from ccidd.service.log import configure_log, set_log_level
from ccidd.service.parser import (
    OneLineParser,
    add_state_options,
    open_standard_streams,
    open_state,
    told_in_one_line,
)
from ccidd.service.served import SocketReader
from ccidd.service.service import Service
from ccidd.service.supply import fill
from ccidd.service.vscclient.commands import Commands
from ccidd.service.vscclient.emulation import (
    CardType,
    Emulation,
    Hardware,
    SoftReader,
    parse_emulation,
)
from ccidd.service.vscclient.readers import Reader, Readers
from ccidd.service.vscclient.supplies import Sources
from ccidd.transport.endpoint import Connector, Reconnect
from ccidd.transport.vscard import serve_vscard

EXIT_USAGE: Final = 4
EXIT_CONNECTION: Final = 5

MAX_CERTIFICATES: Final = 100

_MAX_PORT: Final = 65535
_PORT_DIGITS: Final = 5

_VERBOSE: Final = 10
"""Above this level, all is logged."""

_EPILOG: Final = """\
what -e is made of, separated by blanks, newlines or commas:

  db="NSS_DATABASE"     where certificates and keys are, and the modules of hardware tokens
                        (default: sql:/etc/pki/nssdb)
  soft=(SLOT,READER,CAC,,CERT1,CERT2,...)
                        a reader with a card that has these certificates, by their nicknames; SLOT
                        may be empty; clients take the first for identification, the second for
                        signatures, the third for encryption. May be repeated.
  use_hw=yes|no|removable|any
                        serve the tokens of the database's modules: those that are removable and
                        hardware (yes, the default), removable, or any. Without db=, and where there
                        is no /etc/pki/nssdb, all tokens that p11-kit knows are served.
  hw_type=CAC|PASSTHRU  what the guest sees of them: a CAC with the token's certificates, or the
                        card itself, over PC/SC
  hw_params=PARAMS      of no effect
  nssemul               use_hw=yes hw_type=CAC
  passthru              use_hw=yes hw_type=PASSTHRU

The PIN of a card is the password of the database, or the PIN of the token.

commands on standard input:

  insert [ID]   put a card back that was taken out by command
  remove [ID]   take a card out
  select ID     show this reader to the guest, which sees one at a time; without it, the guest sees
                the first with a card in it
  list          print the readers: the one that the guest sees, and the others
  debug [LEVEL] set what is logged, as -d does
  exit          take card and reader away from the guest, and end

exit status: 0 at its end; 4 for a wrong command line; 5 without a connection; 1 for anything else

  ccidd-vscclient -e 'db="sql:DIR" use_hw=no soft=(,Test,CAC,,id-cert,signing-cert)' HOST 2001
  qemu-system-x86_64 ... -chardev socket,server=on,host=0.0.0.0,port=2001,id=ccid,wait=off \\
      -usb -device usb-ccid -device ccid-card-passthru,chardev=ccid
"""


def main() -> None:
    """The program `ccidd-vscclient`."""
    open_standard_streams()
    with told_in_one_line("ccidd-vscclient"):
        _run(sys.argv[1:])


class _Parser(OneLineParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> OneLineParser:
    parser = _Parser(
        prog="ccidd-vscclient",
        description="Connects cards to the ccid-card-passthru of a QEMU that listens.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ccidd {__version__}")
    parser.add_argument(
        "-e", metavar="EMUL_ARGS", dest="emulation", help="what to emulate; see below"
    )
    parser.add_argument(
        "-c",
        metavar="CERTNAME",
        dest="certificates",
        action="append",
        default=[],
        help="a certificate of the database for the card in one more reader; may be repeated",
    )
    parser.add_argument(
        "-d",
        metavar="LEVEL",
        dest="debug",
        type=int,
        default=0,
        help="what to log: 0 what is wrong (the default), from 1 what happens, from 11 all; what is"
        " in an APDU never",
    )
    parser.add_argument(
        "-p", dest="passthru", action="store_true", help="the same as the emul arg passthru"
    )
    parser.add_argument(
        "--reconnect",
        choices=[each.value for each in Reconnect],
        default=Reconnect.LOST.value,
        help="when to connect again: when a connection was lost (the default), always (even if"
        " QEMU is not there yet), never",
    )
    add_state_options(parser)
    parser.add_argument("host", metavar="HOST", help="where QEMU listens: a name or an address")
    parser.add_argument("port", metavar="PORT", help="the port, or its name")
    return parser


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        emulation = _emulation(options)
        connector = _connector(options)
    except UserError as error:
        parser.error(str(error))
    configure_log(_log_level(options.debug))
    with open_state(options) as state:
        guest = Guest()
        sources = Sources(emulation, state, guest).open()
        names = [name for source in sources for name in source.names]
        slots, fillings = fill([source.supply for source in sources], len(names))
        seen = Slot()
        readers = Readers([Reader(*each) for each in zip(names, slots, strict=True)], seen)
        commands = Commands(readers, options.debug, lambda level: set_log_level(_log_level(level)))

        async def take_commands() -> None:
            await connector.reached.wait()
            await commands.run()

        reader = SocketReader(
            [seen],
            lambda: connector,
            partial(serve_vscard, slot=seen),
            background=[*(each.run for each in fillings), readers.run, take_commands],
            guest=guest,
        )
        service = Service()
        service.put(reader)
        served = trio.run(serve, service)
    if not served:
        print(f"ccidd-vscclient: {connector.failure}", file=sys.stderr)  # noqa: T201 (its last word)
        sys.exit(EXIT_CONNECTION)


def _emulation(options: argparse.Namespace) -> Emulation:
    emulation = parse_emulation(options.emulation or "")
    if options.passthru:
        emulation = replace(emulation, hardware=Hardware.YES, card_type=CardType.PASSTHRU)
    if len(options.certificates) > MAX_CERTIFICATES:
        raise UserError(f"-c: too many certificates (max = {MAX_CERTIFICATES})")
    if options.certificates:
        soft = SoftReader("", "Virtual Reader", tuple(options.certificates))
        emulation = replace(emulation, soft=(*emulation.soft, soft))
    return emulation


def _connector(options: argparse.Namespace) -> Connector:
    port = options.port
    if not (port.isascii() and port.isdecimal()):
        try:
            port = socket.getservbyname(port, "tcp")
        except OSError as error:
            raise UserError(f"PORT {port} is neither a number nor the name of a port") from error
    elif len(port) > _PORT_DIGITS or not 1 <= int(port) <= _MAX_PORT:
        raise UserError(f"PORT {port} is none of 1 to {_MAX_PORT}")
    host = f"[{options.host}]" if ":" in options.host else options.host
    return Connector(f"{host}:{port}", Reconnect(options.reconnect), "HOST PORT ")


def _log_level(debug_level: int) -> str:
    if debug_level <= 0:
        return "warning"
    return "debug" if debug_level > _VERBOSE else "info"
