# SPDX-License-Identifier: Apache-2.0
"""Opens what a configuration names: cards, sources of PINs, traces; but no sockets yet."""

import contextlib
import stat
import sys
from functools import partial

import structlog

from ccidd.card.guard.guest import Guest
from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import ReaderProfile
from ccidd.reader.usb_reader import UsbReader
from ccidd.service import embedded
from ccidd.service.allow import group_number, parse_allow, parse_mode
from ccidd.service.cards import open_supply
from ccidd.service.cardview import card_view, describe
from ccidd.service.configuration import ReaderConfiguration
from ccidd.service.guards import protector
from ccidd.service.keptsockets import KeptSockets
from ccidd.service.log import is_journal
from ccidd.service.options import CardOptions
from ccidd.service.readers import Pinentries, pin_source, with_pin_entry
from ccidd.service.requests import AgentConsent, AgentPins, Requests
from ccidd.service.sandbox.sandbox import Sandbox
from ccidd.service.served import Background, LineReader, OpenEndpoint, ServedReader, SocketReader
from ccidd.service.slotcards import SlotCards, placed
from ccidd.service.state import State
from ccidd.service.supply import CardSupply
from ccidd.service.trace import Tracer
from ccidd.transport.access import Admission, Rules, Unencrypted
from ccidd.transport.endpoint import (
    Connector,
    Endpoint,
    Handler,
    adopt,
    host_and_port,
    listen,
    listen_at,
    tcp_address,
)
from ccidd.transport.listening import OWNER_ONLY
from ccidd.transport.serial import PseudoTerminal, serve_serial
from ccidd.transport.tls import Encrypted, Role, X509Credentials
from ccidd.transport.usbredir import UsbredirPort
from ccidd.transport.vscard import serve_vscard

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ReaderOpener:
    """Opens readers.

    Args:
        state: what cards remember.
        requests: where questions to agents go.
        sandbox: what they are to stay within, if anything is.
        sockets: what keeps their sockets over a restart, if anything does.
    """

    def __init__(
        self,
        state: State,
        requests: Requests,
        sandbox: Sandbox | None = None,
        sockets: KeptSockets | None = None,
    ) -> None:
        self._state = state
        self._requests = requests
        self._sandbox = sandbox
        self._sockets = sockets
        self._pinentries = Pinentries()

    def open(self, configuration: ReaderConfiguration) -> ServedReader:
        """Opens a reader with its cards; it may block.

        Args:
            configuration: what it is like.

        Raises:
            UserError: Something cannot be used.
        """
        if self._sandbox is not None:
            self._sandbox.check(configuration)
        with contextlib.ExitStack() as failing:
            guest = Guest()
            profile = configuration.profile(self._state.directory)
            where = configuration.where.within("reader")
            agent = AgentPins(self._requests, configuration.key, guest)
            pins = pin_source(configuration.options, self._pinentries, agent, where)
            open_card = partial(self._open_supply, configuration.key, guest)
            cards = SlotCards(profile.slots, open_card, self._state)
            failing.callback(cards.close)
            for index, options in placed(configuration.cards or [self._embedded(configuration)]):
                cards.put(index, options)
            profile = with_pin_entry(profile, pins)
            reader = _reader(configuration, profile, pins, cards, guest, sockets=self._sockets)
            failing.pop_all()
        return reader

    def _open_supply(
        self, reader: str, guest: Guest, options: CardOptions, state: State
    ) -> CardSupply:
        if self._sandbox is not None:
            self._sandbox.check_card(options)
        agent = AgentConsent(self._requests, reader)
        protect = protector(options, guest, self._pinentries, agent)
        return open_supply(options, state, protect)

    def _embedded(self, configuration: ReaderConfiguration) -> CardOptions:
        """Gives the card of a reader that is told of none; a new one is told of once."""
        name = configuration.name or embedded.NAME
        record, secrets = embedded.load_or_make(self._state, name)
        if secrets is not None and not is_journal(sys.stdout.fileno()):
            print(describe(card_view(self._state, record), secrets), flush=True)  # noqa: T201 (not for the log)
        elif secrets is not None:
            log.info("card_made", hint="`ccidd card reset-pin` gives it a PIN and shows it")
        return CardOptions(record.type, {"card": (name,)}, configuration.where)


def _reader(  # noqa: PLR0913 (each is another side of it)
    configuration: ReaderConfiguration,
    profile: ReaderProfile,
    pins: PinSource | None,
    cards: SlotCards,
    guest: Guest,
    *,
    sockets: KeptSockets | None,
) -> ServedReader:
    """Puts a front door before slots."""
    slots = cards.slots
    open_endpoint = front_door(configuration, sockets)
    tracer = Tracer(configuration.transport, profile)
    if configuration.trace is not None:
        with configuration.where.naming("trace"):
            tracer.open(configuration.trace, with_secrets=configuration.trace_has_secrets)
    if configuration.transport == "serial":
        assert configuration.socket_path is not None
        guest.name = "this host"
        with configuration.where.naming("socket-path"):
            line = PseudoTerminal(configuration.socket_path)
        on_line = partial(serve_serial, line, slots, profile, pins, tracer)
        reader: ServedReader = LineReader(
            slots,
            line,
            on_line,
            configuration=configuration,
            cards=cards,
            guest=guest,
            tracer=tracer,
        )
    else:
        handler: Handler = partial(serve_vscard, slot=slots[0], witness=tracer)
        background: list[Background] = []
        if configuration.transport == "usbredir":
            port = UsbredirPort(UsbReader(slots, profile, pins, tracer), slots)
            handler = port.serve
            background = [port.run]
        reader = SocketReader(
            slots,
            open_endpoint,
            handler,
            background,
            configuration=configuration,
            cards=cards,
            guest=guest,
            tracer=tracer,
        )
    return reader


def front_door(
    configuration: ReaderConfiguration, sockets: KeptSockets | None = None
) -> OpenEndpoint:
    """Reads what stands at a front door, such as certificates.

    Args:
        configuration: the reader that it leads to.
        sockets: what keeps its socket over a restart, if anything does.

    Returns:
        What opens it.

    Raises:
        UserError: Something there cannot be used.
    """
    rules = parse_allow(configuration.allow)
    admission = _admission(configuration, rules)
    if configuration.listen is not None:
        address = host_and_port(configuration.listen)
        return partial(_opened, configuration, "listen", partial(listen_at, *address, admission))
    if configuration.connect is not None:
        return partial(Connector, configuration.connect, admission=admission)
    if configuration.socket_path is not None:
        text, group = configuration.socket_mode, configuration.socket_group
        mode = OWNER_ONLY if text is None else parse_mode(text)
        if mode & stat.S_IWOTH and not rules.are_for_processes:
            log.warning("socket_open_to_all", path=str(configuration.socket_path), advice="--allow")
        number = None if group is None else group_number(group)
        on_path = listen if sockets is None else sockets.listen
        opener = partial(on_path, configuration.socket_path, mode, number, admission)
        return partial(_opened, configuration, "socket-path", opener)
    assert configuration.fd is not None
    return partial(_opened, configuration, "fd", partial(adopt, configuration.fd, admission))


def _opened(configuration: ReaderConfiguration, option: str, opener: OpenEndpoint) -> Endpoint:
    with configuration.where.naming(option):
        return opener()


def _admission(configuration: ReaderConfiguration, rules: Rules) -> Admission:
    if configuration.insecure_tcp:
        log.warning("tcp_without_tls", advice="--tls-creds")
    if configuration.tls_creds is None:
        return Unencrypted(rules)
    with configuration.where.naming("tls-creds"):
        credentials = X509Credentials(configuration.tls_creds, tls_role(configuration))
        if configuration.connect is None:
            return Encrypted(credentials, rules)
        host = configuration.tls_hostname
        if host is None:
            address = tcp_address(configuration.connect)
            assert address is not None
            host, _port = address
        return Encrypted(credentials, rules, host)


def tls_role(configuration: ReaderConfiguration) -> Role:
    """Tells which end of a TLS connection a reader is."""
    # A connection that was inherited is taken for one that was accepted.
    return Role.SERVER if configuration.connect is None else Role.CLIENT
