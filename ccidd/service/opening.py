# SPDX-License-Identifier: Apache-2.0
"""Opens what a configuration names: cards, sources of PINs, traces; but no sockets yet."""

import contextlib
import os
import sys
from functools import partial

import structlog

from ccidd.card.guard.guest import Guest
from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import ReaderProfile
from ccidd.reader.usb_reader import UsbReader
from ccidd.service import embedded
from ccidd.service.cards import open_supply
from ccidd.service.cardview import card_view, describe
from ccidd.service.configuration import ReaderConfiguration
from ccidd.service.guards import protector
from ccidd.service.options import CardOptions
from ccidd.service.readers import Pinentries, pin_source, with_pin_entry
from ccidd.service.sandbox.sandbox import Sandbox
from ccidd.service.served import Background, LineReader, ServedReader, SocketReader
from ccidd.service.slotcards import SlotCards, placed
from ccidd.service.state import State
from ccidd.service.supply import CardSupply
from ccidd.service.trace import open_trace
from ccidd.transport.endpoint import Connector, Endpoint, Handler, adopt, listen
from ccidd.transport.serial import PseudoTerminal, serve_serial
from ccidd.transport.usbredir import UsbredirPort
from ccidd.transport.vscard import serve_vscard

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ReaderOpener:
    """Opens readers.

    Args:
        state: what cards remember.
        sandbox: what they are to stay within.
    """

    def __init__(self, state: State, sandbox: Sandbox) -> None:
        self._state = state
        self._sandbox = sandbox
        self._pinentries = Pinentries()

    def open(self, configuration: ReaderConfiguration) -> ServedReader:
        """Opens a reader with its cards; it may block.

        Args:
            configuration: what it is like.

        Raises:
            UserError: Something cannot be used.
        """
        self._sandbox.check(configuration)
        with contextlib.ExitStack() as failing:
            guest = Guest()
            profile = configuration.profile(self._state.directory)
            pins = pin_source(configuration.options, self._pinentries)
            cards = SlotCards(profile.slots, partial(self._open_supply, guest), self._state)
            failing.callback(cards.close)
            for index, options in placed(configuration.cards or [self._embedded(configuration)]):
                cards.put(index, options)
            reader = _reader(configuration, with_pin_entry(profile, pins), pins, cards, guest)
            failing.pop_all()
        return reader

    def _open_supply(self, guest: Guest, options: CardOptions, state: State) -> CardSupply:
        self._sandbox.check_card(options)
        return open_supply(options, state, protector(options, guest, self._pinentries))

    def _embedded(self, configuration: ReaderConfiguration) -> CardOptions:
        """Gives the card of a reader that is told of none; a new one is told of once."""
        name = configuration.name or embedded.NAME
        record, secrets = embedded.load_or_make(self._state, name)
        if secrets is not None and not _stdout_is_journal():
            print(describe(card_view(self._state, record), secrets), flush=True)  # noqa: T201 (not for the log)
        elif secrets is not None:
            log.info("card_made", hint="`ccidd card reset-pin` gives it a PIN and shows it")
        return CardOptions(record.type, {"card": (name,)})


def _reader(
    configuration: ReaderConfiguration,
    profile: ReaderProfile,
    pins: PinSource | None,
    cards: SlotCards,
    guest: Guest,
) -> ServedReader:
    """Puts a front door before slots."""
    slots = cards.slots
    trace = None
    if configuration.trace is not None:
        trace = open_trace(
            configuration.trace,
            configuration.transport,
            profile,
            with_secrets=configuration.trace_has_secrets,
        )
    if configuration.transport == "serial":
        assert configuration.socket_path is not None
        guest.name = "this host"
        line = PseudoTerminal(configuration.socket_path)
        on_line = partial(serve_serial, line, slots, profile, pins, trace)
        reader: ServedReader = LineReader(
            slots, line, on_line, configuration=configuration, cards=cards, guest=guest
        )
    else:
        handler: Handler = partial(serve_vscard, slot=slots[0], witness=trace)
        background: list[Background] = []
        if configuration.transport == "usbredir":
            port = UsbredirPort(UsbReader(slots, profile, pins, trace), slots)
            handler = port.serve
            background = [port.run]
        reader = SocketReader(
            slots,
            partial(_open_endpoint, configuration),
            handler,
            background,
            configuration=configuration,
            cards=cards,
            guest=guest,
        )
    if trace is not None:
        reader.resources.callback(trace.close)
    return reader


def _stdout_is_journal() -> bool:
    """Whether what is printed would stay in the journal, for others to read (systemd.exec(5))."""
    status = os.fstat(sys.stdout.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _open_endpoint(configuration: ReaderConfiguration) -> Endpoint:
    if configuration.connect is not None:
        return Connector(configuration.connect)
    if configuration.socket_path is not None:
        return listen(configuration.socket_path)
    assert configuration.fd is not None
    return adopt(configuration.fd)
