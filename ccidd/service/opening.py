# SPDX-License-Identifier: Apache-2.0
"""Opens what a configuration names: cards, sources of PINs, traces; but no sockets yet."""

import sys
from functools import partial

import structlog

from ccidd.card.guard.guest import Guest
from ccidd.errors import UserError
from ccidd.reader.usb_reader import UsbReader
from ccidd.service import embedded
from ccidd.service.cards import open_stored_card, open_supply
from ccidd.service.cardview import card_view, describe
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.guards import protector
from ccidd.service.log import is_journal
from ccidd.service.readers import Pinentries, pin_source, with_pin_entry
from ccidd.service.served import LineReader, ServedReader, SocketReader
from ccidd.service.state import State
from ccidd.service.supply import CardSupply, FixedCard, fill
from ccidd.service.trace import open_trace
from ccidd.transport.endpoint import Connector, Endpoint, Handler, adopt, listen
from ccidd.transport.serial import PseudoTerminal, serve_serial
from ccidd.transport.usbredir import UsbredirPort
from ccidd.transport.vscard import serve_vscard

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def open_readers(configuration: Configuration, state: State) -> list[ServedReader]:
    """Opens all readers of a configuration.

    Raises:
        UserError: Something cannot be used; where there are several readers, the message says of
            which.
    """
    readers = []
    pinentries = Pinentries()
    for each in configuration.readers:
        try:
            readers.append(open_reader(each, state, pinentries))
        except UserError as error:
            if each.name is None:
                raise
            raise UserError(f"the reader {each.name}: {error}") from error
    return readers


def open_reader(
    configuration: ReaderConfiguration, state: State, pinentries: Pinentries
) -> ServedReader:
    """Opens a reader.

    Args:
        configuration: what it is like.
        state: what its cards remember.
        pinentries: through which people are asked.

    Raises:
        UserError: Something cannot be used.
    """
    name = configuration.name
    profile = configuration.profile(state.directory)
    guest = Guest()
    supplies = _open_supplies(configuration, state, guest, pinentries)
    pins = pin_source(configuration.options, pinentries)
    slots, fillings = fill(supplies, profile.slots)
    profile = with_pin_entry(profile, pins)
    trace = None
    if configuration.trace is not None:
        trace = open_trace(
            configuration.trace,
            configuration.transport,
            profile,
            with_secrets=configuration.trace_has_secrets,
        )
    background = [filling.run for filling in fillings]
    if configuration.transport == "serial":
        assert configuration.socket_path is not None
        guest.name = "this host"
        line = PseudoTerminal(configuration.socket_path)
        on_line = partial(serve_serial, line, slots, profile, pins, trace)
        return LineReader(slots, line, on_line, background=background, name=name)
    handler: Handler = partial(serve_vscard, slot=slots[0], witness=trace)
    if configuration.transport == "usbredir":
        port = UsbredirPort(UsbReader(slots, profile, pins, trace), slots)
        handler = port.serve
        background = [port.run, *background]
    return SocketReader(
        slots,
        partial(_open_endpoint, configuration),
        handler,
        background=background,
        name=name,
        guest=guest,
    )


def _open_supplies(
    configuration: ReaderConfiguration, state: State, guest: Guest, pinentries: Pinentries
) -> list[CardSupply]:
    if configuration.cards:
        return [
            open_supply(options, state, protector(options, guest, pinentries))
            for options in configuration.cards
        ]
    record, secrets = embedded.load_or_make(state, configuration.name or embedded.NAME)
    if secrets is not None and not is_journal(sys.stdout.fileno()):
        print(describe(card_view(state, record), secrets), flush=True)  # noqa: T201 (not for the log)
    elif secrets is not None:
        log.info("card_made", hint="`ccidd card reset-pin` gives it a PIN and shows it")
    return [FixedCard(open_stored_card(record, state))]


def _open_endpoint(configuration: ReaderConfiguration) -> Endpoint:
    if configuration.connect is not None:
        return Connector(configuration.connect)
    if configuration.socket_path is not None:
        return listen(configuration.socket_path)
    assert configuration.fd is not None
    return adopt(configuration.fd)
