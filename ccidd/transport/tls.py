# SPDX-License-Identifier: Apache-2.0
"""TLS 1.3 with certificates on both sides, as QEMU's chardevs have it.

The files are those of QEMU's tls-creds-x509, and so are the roles: who listens is the server. A
peer's certificate must be valid, of an authority of ours and not revoked, and that of a server must
be for the host that was connected to.

Source: QEMU, docs/system/tls.rst (the files); RFC 8446 (TLS 1.3), section 6 (alerts); RFC 4514
(subjects as strings).
"""

import hashlib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Final

import structlog
import trio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from ccidd.errors import UserError
from ccidd.keys.files import read_file, read_key_file
from ccidd.transport.access import Admission, RefusedError, Rules
from ccidd.transport.sockets import peer_name
from ccidd.transport.tcp import PromptStream

log: structlog.stdlib.BoundLogger = structlog.get_logger()

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds that a peer has for its part of the handshake."""

_ALERT_TIMEOUT: Final = 1.0
"""Seconds that a peer has to be told why it is refused."""

_CA_CERTIFICATES: Final = "ca-cert.pem"
_CA_REVOCATIONS: Final = "ca-crl.pem"

# What GnuTLS, and so QEMU, calls attributes for which RFC 4514 has no name.
_ATTRIBUTE_NAMES: Final = {NameOID.EMAIL_ADDRESS: "EMAIL"}
_ATTRIBUTES: Final = {name: oid for oid, name in _ATTRIBUTE_NAMES.items()}

# OpenSSL's names for what a peer may do wrong, in words.
_NO_TLS: Final = "it does not speak TLS"
_NO_TLS_1_3: Final = "it does not speak TLS 1.3"
_NO_CERTIFICATE: Final = "it has shown no certificate"
_REASONS: Final = {
    "HTTP_REQUEST": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_TLS_1_3,
    "UNSUPPORTED_PROTOCOL": _NO_TLS_1_3,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": _NO_CERTIFICATE,
}


class Role(Enum):
    """Which end of a TLS connection; the value is what the names of its files begin with."""

    SERVER = "server"
    CLIENT = "client"


class X509Credentials:
    """A directory as QEMU's tls-creds-x509 has it, with the files for one role.

    ca-cert.pem holds the authorities for the peers' certificates, ca-crl.pem, if it is there, what
    they have revoked, server-cert.pem or client-cert.pem our certificate with those between it and
    an authority of the peer's, and server-key.pem or client-key.pem its private key.

    Args:
        directory: the directory.
        role: which role.

    Raises:
        UserError: A file is missing or wrong.
    """

    def __init__(self, directory: Path, role: Role) -> None:
        self._directory = directory
        self.role: Final = role
        self._seen = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Gives what connections are made with.

        Files that were replaced are read again, so that certificates can be renewed, and revoked,
        while ccidd runs. As long as they are wrong, those before are used.
        """
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = self._load()
            except UserError as error:
                log.warning("tls_credentials_unchanged", reason=str(error))
            else:
                log.info("tls_credentials_reloaded", directory=str(self._directory))
        return self._context

    @property
    def key_file(self) -> Path:
        """The file with our private key."""
        return self._file("key")

    def certificates(self) -> Sequence[x509.Certificate]:
        """Gives our own certificate, and those of authorities.

        Raises:
            UserError: They cannot be read.
        """
        own = _certificates(self._file("cert"))[:1]
        return [*own, *_certificates(self._directory / _CA_CERTIFICATES)]

    def _file(self, name: str) -> Path:
        return self._directory / f"{self.role.value}-{name}.pem"

    def _look(self) -> Sequence[tuple[int, int, int] | None]:
        """Tells one state of the files from another."""
        states: list[tuple[int, int, int] | None] = []
        for path in (
            self._directory / _CA_CERTIFICATES,
            self._directory / _CA_REVOCATIONS,
            self._file("cert"),
            self._file("key"),
        ):
            try:
                status = path.stat()
            except OSError:
                states.append(None)
            else:
                states.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return states

    def _load(self) -> ssl.SSLContext:
        authorities = self._directory / _CA_CERTIFICATES
        revocations = self._directory / _CA_REVOCATIONS
        certificate, key = self._file("cert"), self._file("key")
        _certificates(authorities)
        _check_own(certificate, key)
        is_server = self.role is Role.SERVER
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        if is_server:
            # A session that is resumed is not held against revocations.
            context.num_tickets = 0
        path = authorities
        try:
            context.load_verify_locations(authorities)
            if revocations.exists():
                path = revocations
                context.load_verify_locations(revocations)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
            path = certificate
            # Without a password of ours, OpenSSL would ask for one at the terminal.
            context.load_cert_chain(certificate, key, password=b"")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(f"cannot use {path}: {_in_words(str(reason))}") from error
        return context


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(read_file(path))
    except ValueError as error:
        raise UserError(f"{path} holds no certificate in the form PEM") from error


def _check_own(path: Path, key_path: Path) -> None:
    """Holds our own certificate and its key against each other, and against the clock.

    Raises:
        UserError: They cannot be used.
    """
    certificate = _certificates(path)[0]
    try:
        key = load_pem_private_key(read_key_file(key_path), None)
    except TypeError as error:
        raise UserError(f"{key_path} is encrypted; it is to be a key without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{key_path} holds no private key in the form PEM") from error
    if key.public_key() != certificate.public_key():
        raise UserError(f"the key in {key_path} is not that of the certificate in {path}")
    now = datetime.now(tz=UTC)
    if now > certificate.not_valid_after_utc:
        raise UserError(f"{path} has expired: it was valid until {certificate.not_valid_after_utc}")
    if now < certificate.not_valid_before_utc:
        raise UserError(f"{path} is not yet valid: {certificate.not_valid_before_utc} is to come")


class Encrypted(Admission):
    """Connections over TLS, with certificates on both sides.

    Args:
        credentials: our own files.
        rules: which certificates are let in, of those that are valid.
        host: in the role of the client, the name that the server's certificate must have.

    Raises:
        UserError: That is no name of a host.
    """

    def __init__(
        self, credentials: X509Credentials, rules: Rules | None = None, host: str | None = None
    ) -> None:
        assert (host is not None) == (credentials.role is Role.CLIENT)
        self._credentials = credentials
        self._rules: Final = rules or Rules()
        # An address may name an interface of ours, which is in no certificate.
        self._host = host and host.partition("%")[0]
        if host is not None:
            try:
                credentials.context().wrap_bio(
                    ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=self._host
                )
            except ValueError as error:
                raise UserError(f"{host!r} is no name that a certificate can have") from error

    async def admit(self, stream: trio.SocketStream) -> trio.abc.Stream:
        """See `Admission.admit`."""
        peer = {"peer": peer_name(stream.socket)}
        encrypted = trio.SSLStream(
            PromptStream(stream),
            self._credentials.context(),
            server_hostname=self._host,
            server_side=self._host is None,
            # QEMU closes connections without a word. Our messages have lengths of their own.
            https_compatible=True,
        )
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                await encrypted.do_handshake()
        except trio.TooSlowError as error:
            reason = f"it took more than {HANDSHAKE_TIMEOUT:.0f} s for the TLS handshake"
            raise RefusedError(reason, peer) from error
        except trio.BrokenResourceError as error:
            await _send_alert(encrypted)
            raise RefusedError(_reason(error), peer) from error
        data = encrypted.getpeercert(binary_form=True)
        try:
            certificate = x509.load_der_x509_certificate(data)
            subject = subject_of(certificate)
        except ValueError as error:
            raise RefusedError(f"its certificate cannot be read: {error}", peer) from error
        fingerprint = hashlib.sha256(data).digest()
        peer |= {"subject": subject, "sha256": fingerprint.hex()}
        if not self._rules.admit_certificate(subject, fingerprint):
            raise RefusedError("its certificate is not allowed", peer)
        log.info("tls_begun", **peer)
        return TlsStream(encrypted, certificate)


class TlsStream(trio.abc.Stream):
    """A connection over TLS after its handshake.

    Args:
        stream: the connection; it is closed with this.
        certificate: the peer's certificate.
    """

    def __init__(self, stream: trio.SSLStream[PromptStream], certificate: x509.Certificate) -> None:
        self._stream = stream
        self._certificate = certificate

    @property
    def peer(self) -> str:
        """Names the peer, for people, as its certificate does."""
        names = self._certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(names[0].value) if names else subject_of(self._certificate)
        address = peer_name(self._stream.transport_stream.socket)
        return f"{name} ({address})" if name.isprintable() else address

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream.send_all`."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream.wait_send_all_might_not_block`."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream.receive_some`.

        A server says only now that it has refused a client's certificate.
        """
        try:
            return await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                log.warning("tls_failed", reason=_reason(error))
            raise

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource.aclose`."""
        await self._stream.aclose()


def peer_of(stream: trio.abc.Stream) -> str | None:
    """Names who is at the other end of a connection, for people; None if nobody can tell."""
    match stream:
        case TlsStream():
            return stream.peer
        case trio.SocketStream() | PromptStream():
            return peer_name(stream.socket)
    return None


def parse_subject(text: str) -> str:
    """Gives a subject in the one form that `subject_of` has.

    Raises:
        ValueError: It is none.
    """
    name = x509.Name.from_rfc4514_string(text, _ATTRIBUTES)
    return name.rfc4514_string(_ATTRIBUTE_NAMES)


def subject_of(certificate: x509.Certificate) -> str:
    """Gives the subject of a certificate as a string (RFC 4514).

    QEMU's `tls-authz` has the same parts, but in the order of the certificate.
    """
    return certificate.subject.rfc4514_string(_ATTRIBUTE_NAMES)


async def _send_alert(encrypted: trio.SSLStream[PromptStream]) -> None:
    """Tells a peer why it is refused.

    trio does not send what OpenSSL has to say when a handshake has failed, and the peer could not
    tell an expired certificate of its own from a connection that broke.
    """
    alert = encrypted._outgoing.read()  # noqa: SLF001 (there is no public way to it)
    with trio.move_on_after(_ALERT_TIMEOUT):
        try:
            await encrypted.transport_stream.send_all(alert)
        except trio.BrokenResourceError:
            return


def _reason(error: trio.BrokenResourceError) -> str:
    """Says why TLS has failed."""
    match error.__cause__:
        case ssl.SSLCertVerificationError(verify_message=message):
            return f"its certificate is not accepted: {message.rstrip('.')}"
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():
            return "it closed the connection amid the TLS handshake"
        case ssl.SSLError(reason=str(reason)):
            if reason in _REASONS:
                return _REASONS[reason]
            _kind, is_alert, alert = reason.partition("_ALERT_")
            return f"it says: {_in_words(alert)}" if is_alert else f"TLS: {_in_words(reason)}"
    return "the connection broke amid the TLS handshake"


def _in_words(name: str) -> str:
    return name.lower().replace("_", " ") if name.isupper() else name
