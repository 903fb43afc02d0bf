# SPDX-License-Identifier: Apache-2.0
"""TLS in both roles, against Python's own in the other."""

import contextlib
import hashlib
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.typing import EventDict

from authority import DAY, Authority, Issued
from ccidd.errors import UserError
from ccidd.transport.access import Rules
from ccidd.transport.endpoint import Connector, Listener, adopt, listen_at
from ccidd.transport.tcp import PromptStream
from ccidd.transport.tls import (
    HANDSHAKE_TIMEOUT,
    Encrypted,
    Role,
    TlsStream,
    X509Credentials,
    parse_subject,
    peer_of,
    subject_of,
)

Side = Literal["server", "client"]
OTHER: dict[Side, Side] = {"server": "client", "client": "server"}

AUTHORITY = Authority("authority")
STRANGER = Authority("another authority")
PEER = AUTHORITY.issue()
OURS = AUTHORITY.issue("ccidd")


@dataclass
class Case:
    """What the two ends have."""

    trusted: Authority = AUTHORITY
    peer: Issued | None = PEER
    peer_trusts: Authority = AUTHORITY
    peer_expects: str = "127.0.0.1"
    ours: Issued = OURS
    rules: Rules = field(default_factory=Rules)
    host: str = "127.0.0.1"
    latest: ssl.TLSVersion | None = None
    revoked: bytes | None = None


@dataclass
class Outcome:
    """What came of a connection."""

    name: str | None = None
    heard: bytes = b""
    failure: str | None = None


def credentials(directory: Path, side: Side, case: Case) -> X509Credentials:
    case.trusted.write(directory, side, case.ours)
    if case.revoked is not None:
        (directory / "ca-crl.pem").write_bytes(case.revoked)
    return X509Credentials(directory, Role(side))


def peer_context(directory: Path, side: Side, case: Case) -> ssl.SSLContext:
    protocol = ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT
    context = ssl.SSLContext(protocol)
    context.verify_mode = ssl.CERT_REQUIRED
    if case.peer is not None:
        case.peer_trusts.write(directory, side, case.peer)
        context.load_cert_chain(directory / f"{side}-cert.pem", directory / f"{side}-key.pem")
    context.load_verify_locations(cadata=case.peer_trusts.issued.pem.decode())
    if case.latest is not None:
        context.maximum_version = case.latest
    return context


async def talk(stream: trio.abc.Stream, outcome: Outcome) -> bool:
    outcome.name = peer_of(stream)
    await stream.send_all(b"hello")
    try:
        outcome.heard = bytes(await stream.receive_some(100))
    except trio.BrokenResourceError:
        return False
    return True


async def play_peer(stream: trio.SSLStream[trio.SocketStream], outcome: Outcome) -> None:
    """Says hello as soon as it can, as QEMU does, and ends without a word."""
    try:
        await stream.do_handshake()
        await stream.send_all(b"hi there")
        outcome.heard = bytes(await stream.receive_some(100))
    except trio.BrokenResourceError as error:
        outcome.failure = getattr(error.__cause__, "reason", None) or str(error.__cause__)
        # Other programs than trio's say why they go.
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.transport_stream.send_all(stream._outgoing.read())
    await trio.aclose_forcefully(stream)


async def meet(tmp_path: Path, side: Side, case: Case) -> tuple[Outcome, Outcome]:
    """Has ccidd, in a role, meet a peer; gives what came of it at both ends.

    Time stands still (`mock_clock`), so that ccidd does not connect again.
    """
    ours, theirs = Outcome(), Outcome()
    mine = credentials(tmp_path / "ours", side, case)
    context = peer_context(tmp_path / "theirs", OTHER[side], case)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def handle(stream: trio.abc.Stream) -> bool:
                return await talk(stream, ours)

            if side == "server":
                listener = listen_at("127.0.0.1", 0, Encrypted(mine, case.rules))
                port = listener._listeners[0].socket.getsockname()[1]
                await nursery.start(listener.run, handle)
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await play_peer(
                    trio.SSLStream(
                        stream, context, server_hostname=case.peer_expects, https_compatible=True
                    ),
                    theirs,
                )
            else:
                (other,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                target = f"127.0.0.1:{other.socket.getsockname()[1]}"
                admission = Encrypted(mine, case.rules, case.host)
                await nursery.start(Connector(target, admission=admission).run, handle)
                stream = await other.accept()
                await other.aclose()
                await play_peer(
                    trio.SSLStream(stream, context, server_side=True, https_compatible=True),
                    theirs,
                )
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
    return ours, theirs


# Who is served.


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(rules=Rules(subjects=frozenset({"CN=peer,O=Tests\\, Inc."}))),
        Case(
            rules=Rules(
                subjects=frozenset({"CN=another"}),
                fingerprints=frozenset(
                    {hashlib.sha256(PEER.certificate.public_bytes(Encoding.DER)).digest()}
                ),
            )
        ),
        Case(revoked=AUTHORITY.revocations(OURS)),
        Case(host="localhost", peer_expects="localhost"),
        # As GnuTLS takes them: a certificate for no host may have it in its common name.
        Case(peer=AUTHORITY.issue("localhost", hosts=()), host="localhost"),
    ],
)
async def test_a_peer_with_a_certificate_is_served(
    tmp_path: Path,
    side: Side,
    case: Case,
    logs: list[EventDict],
    mock_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = await meet(tmp_path, side, case)
    assert case.peer is not None
    assert (theirs.heard, theirs.failure) == (b"hello", None)
    assert ours.heard == b"hi there"
    assert ours.name is not None
    assert ours.name.startswith(("peer (127.0.0.1:", "localhost (127.0.0.1:"))
    assert [entry for entry in logs if entry["log_level"] == "warning"] == []


# Who is not.

EXPIRED = AUTHORITY.issue(begins=-2 * DAY, ends=-DAY)
NOT_YET = AUTHORITY.issue(begins=DAY, ends=2 * DAY)
REFUSALS = [
    (Case(peer=STRANGER.issue()), "unable to get local issuer certificate", "UNKNOWN_CA"),
    (Case(peer=EXPIRED), "certificate has expired", "CERTIFICATE_EXPIRED"),
    (Case(peer=NOT_YET), "certificate is not yet valid", "BAD_CERTIFICATE"),
    (
        Case(revoked=AUTHORITY.revocations(PEER)),
        "its certificate is not accepted: certificate revoked",
        "CERTIFICATE_REVOKED",
    ),
    (Case(revoked=AUTHORITY.revocations(ends=-DAY)), "CRL has expired", "CERTIFICATE_EXPIRED"),
    (Case(revoked=STRANGER.revocations()), "unable to get certificate CRL", "UNKNOWN_CA"),
]


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_peer_without_a_good_certificate_is_told_so(
    tmp_path: Path,
    side: Side,
    refusal: tuple[Case, str, str],
    logs: list[EventDict],
    mock_clock: trio.testing.MockClock,
) -> None:
    case, reason, alert = refusal
    ours, theirs = await meet(tmp_path, side, case)
    assert ours == Outcome()
    assert theirs.failure is not None
    assert alert in theirs.failure
    (line,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert line["event"] == ("connection_refused" if side == "server" else "connect_failed")
    assert reason in line["reason"]


@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_peer_that_knows_no_tls_1_3_is_refused(
    tmp_path: Path, side: Side, logs: list[EventDict], mock_clock: trio.testing.MockClock
) -> None:
    ours, theirs = await meet(tmp_path, side, Case(latest=ssl.TLSVersion.TLSv1_2))
    assert ours == Outcome()
    assert theirs.failure is not None
    (line,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert line["reason"] == "it does not speak TLS 1.3"


async def test_a_client_without_a_certificate_is_refused(
    tmp_path: Path, logs: list[EventDict], mock_clock: trio.testing.MockClock
) -> None:
    ours, theirs = await meet(tmp_path, "server", Case(peer=None))
    assert ours == Outcome()
    assert theirs.failure == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert logs[-1]["reason"] == "it has shown no certificate"
    assert logs[-1]["peer"].startswith("127.0.0.1:")


@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_certificate_for_the_other_purpose_is_refused(
    tmp_path: Path, side: Side, logs: list[EventDict], mock_clock: trio.testing.MockClock
) -> None:
    purpose = {
        "server": ExtendedKeyUsageOID.SERVER_AUTH,
        "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    }[side]
    ours, _theirs = await meet(tmp_path, side, Case(peer=AUTHORITY.issue(purposes=[purpose])))
    assert ours == Outcome()
    assert "certificate purpose" in logs[-1]["reason"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "fe80::1%eth0"])
async def test_a_server_of_another_name_is_refused(
    tmp_path: Path, host: str, logs: list[EventDict], mock_clock: trio.testing.MockClock
) -> None:
    case = Case(peer=AUTHORITY.issue("peer", hosts=["127.0.0.1", "elsewhere"]), host=host)
    ours, _theirs = await meet(tmp_path, "client", case)
    assert ours == Outcome()
    assert "is not valid for" in logs[-1]["reason"]


@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_certificate_that_is_not_allowed_is_refused_and_shown(
    tmp_path: Path, side: Side, logs: list[EventDict], mock_clock: trio.testing.MockClock
) -> None:
    case = Case(rules=Rules(subjects=frozenset({"CN=peer"})))
    ours, _theirs = await meet(tmp_path, side, case)
    assert ours == Outcome()
    (line,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert line["reason"] == "its certificate is not allowed"
    if side == "server":
        fingerprint = hashlib.sha256(PEER.certificate.public_bytes(Encoding.DER)).hexdigest()
        assert (line["subject"], line["sha256"]) == ("CN=peer,O=Tests\\, Inc.", fingerprint)


@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_peer_that_does_not_accept_us_is_believed(
    tmp_path: Path, side: Side, logs: list[EventDict], mock_clock: trio.testing.MockClock
) -> None:
    case = Case(ours=STRANGER.issue())
    ours, theirs = await meet(tmp_path, side, case)
    assert ours.heard == b""
    assert theirs.failure == "CERTIFICATE_VERIFY_FAILED"
    # A server says only after the handshake that it has refused a client's certificate.
    event = "connection_refused" if side == "server" else "tls_failed"
    (line,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert (line["event"], line["reason"]) == (event, "it says: unknown ca")


async def test_both_ends_are_told_why_a_client_is_refused(
    tmp_path: Path, logs: list[EventDict]
) -> None:
    server = credentials(tmp_path / "server", "server", Case())
    listener = listen_at("127.0.0.1", 0, Encrypted(server))
    port = listener._listeners[0].socket.getsockname()[1]
    STRANGER.write(tmp_path / "client", "client", STRANGER.issue())
    (tmp_path / "client/ca-cert.pem").write_bytes(AUTHORITY.issued.pem)
    client = X509Credentials(tmp_path / "client", Role.CLIENT)
    outcome, ended = Outcome(), trio.Event()

    async def handle(stream: trio.abc.Stream) -> bool:
        try:
            return await talk(stream, outcome)
        finally:
            ended.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.run, handle)
            admission = Encrypted(client, None, "127.0.0.1")
            await nursery.start(Connector(f"127.0.0.1:{port}", admission=admission).run, handle)
            await ended.wait()
            nursery.cancel_scope.cancel()
    told = {entry["event"]: entry["reason"] for entry in logs if "reason" in entry}
    assert told["connection_refused"].endswith("unable to get local issuer certificate")
    assert told["tls_failed"] == "it says: unknown ca"


# Who does not even try.


def server(tmp_path: Path) -> tuple[Listener, tuple[str, int]]:
    listener = listen_at(
        "127.0.0.1", 0, Encrypted(credentials(tmp_path / "server", "server", Case()))
    )
    return listener, listener._listeners[0].socket.getsockname()


async def no_handler(stream: trio.abc.Stream) -> bool:
    raise AssertionError


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\0\0\0\0\x44\0\0\0\0\0\0\0QEMU usb-redir guest 7.2.0".ljust(80, b"\0"),
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(100),
        os.urandom(64),
    ],
)
async def test_a_peer_that_speaks_something_else_is_refused(
    tmp_path: Path, words: bytes, logs: list[EventDict], nursery: trio.Nursery
) -> None:
    listener, address = server(tmp_path)
    await nursery.start(listener.run, no_handler)
    with trio.fail_after(30):
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(words)
            await stream.send_eof()
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        await trio.testing.wait_all_tasks_blocked(0.05)
    (line,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert line["event"] == "connection_refused"
    assert "\n" not in line["reason"]
    nursery.cancel_scope.cancel()


async def test_two_hundred_silent_peers_keep_nobody_waiting(
    tmp_path: Path, logs: list[EventDict], nursery: trio.Nursery
) -> None:
    listener, address = server(tmp_path)
    outcome = Outcome()

    async def handle(stream: trio.abc.Stream) -> bool:
        return await talk(stream, outcome)

    await nursery.start(listener.run, handle)
    silent = [await trio.open_tcp_stream(*address) for _ in range(200)]
    context = peer_context(tmp_path / "peer", "client", Case())
    theirs = Outcome()
    with trio.fail_after(20):
        stream = await trio.open_tcp_stream(*address)
        await play_peer(
            trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True),
            theirs,
        )
    assert theirs.heard == b"hello"
    for each in silent:
        await each.aclose()
    nursery.cancel_scope.cancel()


async def test_a_silent_peer_is_given_up(
    tmp_path: Path,
    logs: list[EventDict],
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    listener, address = server(tmp_path)
    await nursery.start(listener.run, no_handler)

    async def drip(stream: trio.abc.Stream) -> None:
        """Sends a byte of a ClientHello now and then, which does not help."""
        for byte in b"\x16\x03\x01\x02\x00" + bytes(512):
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.7)

    async with await trio.open_tcp_stream(*address) as stream:
        with trio.fail_after(HANDSHAKE_TIMEOUT + 3), pytest.raises(trio.BrokenResourceError):
            await drip(stream)
    assert logs[-1]["reason"] == "it took more than 10 s for the TLS handshake"
    nursery.cancel_scope.cancel()


async def test_a_server_that_says_nothing_is_given_up(
    tmp_path: Path,
    logs: list[EventDict],
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        admission = Encrypted(credentials(tmp_path, "client", Case()), None, "127.0.0.1")
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        await nursery.start(Connector(target, admission=admission).run, no_handler)
        await trio.sleep(HANDSHAKE_TIMEOUT + 1)
    assert logs[-1]["event"] == "connect_failed"
    assert logs[-1]["reason"] == "it took more than 10 s for the TLS handshake"
    nursery.cancel_scope.cancel()


# The connection.


async def test_an_inherited_connection_is_taken_for_an_accepted_one(tmp_path: Path) -> None:
    context = peer_context(tmp_path / "peer", "client", Case())
    theirs, ours = Outcome(), Outcome()

    async def handle(stream: trio.abc.Stream) -> bool:
        assert isinstance(stream, TlsStream)
        below = stream._stream.transport_stream
        assert isinstance(below, PromptStream)
        for level, option in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            (socket.IPPROTO_TCP, socket.TCP_QUICKACK),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        ):
            assert below.socket.getsockopt(level, option)
        await stream.wait_send_all_might_not_block()
        return await talk(stream, ours)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _address = listening.accept()
    endpoint = adopt(
        accepted.detach(), Encrypted(credentials(tmp_path / "server", "server", Case()))
    )
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.run, handle)
            await play_peer(
                trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True),
                theirs,
            )
    assert (theirs.heard, ours.heard) == (b"hello", b"hi there")


async def test_sessions_are_not_resumed(tmp_path: Path, nursery: trio.Nursery) -> None:
    listener, address = server(tmp_path)
    await nursery.start(listener.run, lambda stream: talk(stream, Outcome()))
    context = peer_context(tmp_path / "peer", "client", Case())
    session = None
    for _ in range(2):
        stream = await trio.open_tcp_stream(*address)
        encrypted = trio.SSLStream(
            stream, context, server_hostname="localhost", https_compatible=True
        )
        if session is not None:
            encrypted.session = session
        await encrypted.send_all(b"hi")
        assert await encrypted.receive_some(100) == b"hello"
        assert not encrypted.session_reused
        assert encrypted.version() == "TLSv1.3"
        session = encrypted.session
        assert session is None or not session.has_ticket
        await trio.aclose_forcefully(encrypted)
    nursery.cancel_scope.cancel()


# The files.


def test_files_that_are_replaced_are_read_again(tmp_path: Path, logs: list[EventDict]) -> None:
    mine = credentials(tmp_path, "server", Case())
    before = mine.context()
    assert mine.context() is before
    (tmp_path / "ca-crl.pem").write_bytes(AUTHORITY.revocations())
    revoking = mine.context()
    assert revoking is not before
    assert revoking.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    (tmp_path / "server-key.pem").write_text("half of a key")
    assert mine.context() is revoking
    assert mine.context() is revoking
    AUTHORITY.write(tmp_path, "server", AUTHORITY.issue())
    assert mine.context() is not revoking
    assert [entry["event"] for entry in logs] == [
        "tls_credentials_reloaded",
        "tls_credentials_unchanged",
        "tls_credentials_reloaded",
    ]
    assert logs[1]["reason"].endswith("server-key.pem holds no private key in the form PEM")


def remove(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(content)


def issue(begins: timedelta, ends: timedelta) -> Callable[[Path], object]:
    return lambda directory: AUTHORITY.write(
        directory, "server", AUTHORITY.issue(begins=begins, ends=ends)
    )


ENCRYPTED_KEY = OURS.key.private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("ca-cert.pem"), r"cannot read .*/ca-cert\.pem: No such file"),
        (remove("server-cert.pem"), r"cannot read .*/server-cert\.pem: No such file"),
        (remove("server-key.pem"), r"cannot read .*/server-key\.pem: No such file"),
        (write("ca-cert.pem", b""), r"/ca-cert\.pem holds no certificate in the form PEM"),
        (write("server-cert.pem", b"x"), r"/server-cert\.pem holds no certificate in the form"),
        (write("server-key.pem", PEER.pem), r"/server-key\.pem holds no private key in the form"),
        (write("server-key.pem", PEER.key_pem), r"server-key\.pem is not that of the certificate"),
        (write("server-key.pem", ENCRYPTED_KEY), r"server-key\.pem is encrypted; it is to be"),
        (write("ca-crl.pem", b"x"), r"cannot use .*/ca-crl\.pem: no certificate or crl found"),
        (issue(-2 * DAY, -DAY), r"/server-cert\.pem has expired: it was valid until 20"),
        (issue(DAY, 2 * DAY), r"/server-cert\.pem is not yet valid: 20.* is to come"),
    ],
)
def test_files_that_are_missing_or_wrong_are_named(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    directory = AUTHORITY.write(tmp_path / "creds", "server", OURS)
    change(directory)
    with pytest.raises(UserError, match=message) as refused:
        X509Credentials(directory, Role.SERVER)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("host", ["", "a..b", ".a", "x" * 64 + ".org", "%eth0"])
def test_a_name_that_no_host_can_have_is_refused_at_once(tmp_path: Path, host: str) -> None:
    with pytest.raises(UserError, match="is no name that a certificate can have"):
        Encrypted(credentials(tmp_path, "client", Case()), None, host)


def test_a_key_that_others_can_read_gives_a_warning(tmp_path: Path, logs: list[EventDict]) -> None:
    directory = AUTHORITY.write(tmp_path, "server", OURS)
    (directory / "server-key.pem").chmod(0o644)
    X509Credentials(directory, Role.SERVER)
    (line,) = logs
    assert line["event"] == "key_file_open_to_others"
    assert line["file"].endswith("/server-key.pem")


def test_subjects_have_one_form() -> None:
    subject = "CN=peer,O=Tests\\, Inc."
    assert subject_of(PEER.certificate) == parse_subject(subject) == subject
    assert parse_subject("CN=a,EMAIL=a@b") == "CN=a,EMAIL=a@b"


async def test_each_address_of_a_host_is_listened_at(
    logs: list[EventDict], nursery: trio.Nursery, tmp_path: Path
) -> None:
    admission = Encrypted(credentials(tmp_path, "server", Case()))
    listener = listen_at("localhost", 0, admission)
    addresses = [each.socket.getsockname() for each in listener._listeners]
    assert "127.0.0.1" in {address[0] for address in addresses}
    assert {entry["address"] for entry in logs} == {
        "{}:{}".format(*address) for address in addresses
    }
    with pytest.raises(UserError, match=r"cannot listen on .*: Address already in use"):
        listen_at(addresses[0][0], addresses[0][1], admission)
    listener.close()
    with pytest.raises(UserError, match=r"cannot listen on no\.such\.host\.invalid:1: "):
        listen_at("no.such.host.invalid", 1, admission)
