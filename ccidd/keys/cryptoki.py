# SPDX-License-Identifier: Apache-2.0
"""A PKCS#11 module (a Cryptoki library), used through a process of its own.

`ccidd.keys.cryptoki_worker` tells why. Everything here blocks, and is called from worker threads,
or before anything else runs.

Source: PKCS #11 Cryptographic Token Interface Base Specification Version 2.40.
"""

import contextlib
import enum
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from ccidd.keys.uri import Version

_END_TIMEOUT: Final = 2
"""Seconds that a module has to close a token before its process is killed."""

PROCESS_ENDED: Final = "the PKCS#11 module's process has ended"

_GRACE: Final = 5
"""Seconds after which a process ends its call itself, in case that ccidd is no more."""

Mechanism = Literal["CKM_RSA_X_509", "CKM_RSA_PKCS", "CKM_ECDSA", "CKM_ECDH1_DERIVE", "CKM_EDDSA"]
ObjectClass = Literal["CKO_CERTIFICATE", "CKO_PUBLIC_KEY", "CKO_PRIVATE_KEY"]


class CryptokiError(Exception):
    """A module refuses, or its process does not answer.

    Args:
        reason: the name of the return value, such as CKR_PIN_INCORRECT, or a text for people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason: Final = reason


class TokenFlags(enum.IntFlag):
    """What a token says of itself (2.40, 3.2, CK_TOKEN_INFO), as far as it matters here."""

    LOGIN_REQUIRED = 0x00000004
    USER_PIN_INITIALIZED = 0x00000008
    PROTECTED_AUTHENTICATION_PATH = 0x00000100
    TOKEN_INITIALIZED = 0x00000400
    USER_PIN_COUNT_LOW = 0x00010000
    USER_PIN_FINAL_TRY = 0x00020000
    USER_PIN_LOCKED = 0x00040000


class SlotFlags(enum.IntFlag):
    """What a slot says of itself (2.40, 3.2, CK_SLOT_INFO), as far as it matters here."""

    REMOVABLE_DEVICE = 0x2
    HW_SLOT = 0x4


@dataclass(frozen=True, slots=True)
class LibraryInfo:
    """What a module says of itself (CK_INFO), less the padding."""

    manufacturer: str
    description: str
    version: Version


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token that is there, and its slot (CK_TOKEN_INFO, CK_SLOT_INFO), less the padding."""

    slot: int
    slot_description: str
    slot_manufacturer: str
    label: str
    manufacturer: str
    model: str
    serial: str
    flags: TokenFlags
    max_sessions: int
    """Sessions that one program may have at a time; 0 or less means that it is not limited."""
    slot_flags: SlotFlags

    def is_same_token(self, other: "TokenInfo") -> bool:
        """Tells whether this is the other token, perhaps in another slot."""
        return (self.label, self.manufacturer, self.model, self.serial) == (
            other.label,
            other.manufacturer,
            other.model,
            other.serial,
        )


@dataclass(frozen=True, slots=True)
class TokenObject:
    """An object on a token; attributes that it does not have are empty or false."""

    handle: int
    label: str
    id: bytes
    type: int
    """CKA_CERTIFICATE_TYPE or CKA_KEY_TYPE."""
    value: bytes = field(repr=False)
    """A certificate in DER."""
    modulus: int
    ec_point: bytes
    may_sign: bool
    may_decrypt: bool
    always_authenticate: bool


@dataclass(frozen=True, slots=True)
class Operation:
    """What a private key is to do."""

    handle: int
    mechanism: Mechanism
    data: bytes = field(repr=False)
    size: int
    """Bytes that the result has at most."""
    pin: bytes | None = field(default=None, repr=False)
    """For a key that wants it for each operation (CKA_ALWAYS_AUTHENTICATE)."""


class Cryptoki:
    """A module in a process of its own, with at most one session. One call at a time is made.

    Args:
        timeout: seconds that a call may take.
    """

    # -P: never a module of that name from the working directory.
    program: ClassVar[Sequence[str]] = (sys.executable, "-P", "-m", "ccidd.keys.cryptoki_worker")
    """What the process runs; another program may see to something first."""

    preamble: ClassVar[bytes] = b""
    """What that other program is told first, on its standard input."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._process = subprocess.Popen(  # noqa: S603 (the command is ours)
            [*self.program, str(timeout + _GRACE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(self.preamble)
        os.set_blocking(self._process.stdin.fileno(), False)

    def probe(self, module: str) -> None:
        """Loads a library, and looks whether it is a PKCS#11 module; it is not initialised.

        Args:
            module: its path.
        """
        self._call("probe", module=module)

    def load(self, module: str, parameters: str | None = None) -> LibraryInfo:
        """Loads and initialises the module.

        Args:
            module: the library's path.
            parameters: what NSS's library takes at its initialisation; others take None.
        """
        info = self._call("load", module=module, parameters=parameters)
        major, minor = info["version"]
        return LibraryInfo(
            _unpadded(info["manufacturer"]), _unpadded(info["description"]), Version(major, minor)
        )

    def tokens(self) -> list[TokenInfo]:
        """Tells of all tokens that are there."""
        return [_token_info(info) for info in self._call("tokens")]

    def wait(self, seconds: float) -> None:
        """Waits until a token comes or goes (C_WaitForSlotEvent).

        Args:
            seconds: how long; after that the process is killed, as nothing else ends such a call.
        """
        self._call("wait", _timeout=seconds)

    def refresh(self) -> None:
        """Has `tokens` find what came and went, with modules that look at their start alone."""
        self._call("refresh")

    def token(self, slot: int) -> TokenInfo:
        """Tells of the token in a slot."""
        return _token_info(self._call("token", slot=slot))

    def mechanisms(self, slot: int) -> frozenset[str]:
        """Tells which of `Mechanism` the token in a slot has."""
        return frozenset(self._call("mechanisms", slot=slot))

    def open(self, slot: int) -> None:
        """Opens the session."""
        self._call("open", slot=slot)

    def check(self) -> None:
        """Finds out whether the session is still there."""
        self._call("check")

    def login(self, pin: bytes) -> None:
        """Logs in as the user, after logging out, so that the PIN is checked in any case."""
        self._call("login", pin=pin.hex())

    def logout(self) -> None:
        """Logs out, if logged in. Handles of objects are then worth nothing."""
        self._call("logout")

    def set_pin(self, old: bytes, new: bytes) -> None:
        """Changes the user's PIN. The session is then another one."""
        self._call("set_pin", old=old.hex(), new=new.hex())

    def objects(self, object_class: ObjectClass) -> list[TokenObject]:
        """Reads all objects of a class that are visible; most private keys are after a login."""
        return [_token_object(o) for o in self._call("objects", object_class=object_class)]

    def sign(self, operation: Operation) -> bytes:
        """Signs."""
        return self._operate("sign", operation)

    def decrypt(self, operation: Operation) -> bytes:
        """Decrypts."""
        return self._operate("decrypt", operation)

    def _operate(self, call: str, operation: Operation) -> bytes:
        result = self._call(
            call,
            handle=operation.handle,
            mechanism=operation.mechanism,
            data=operation.data.hex(),
            size=operation.size,
            pin=None if operation.pin is None else operation.pin.hex(),
        )
        return bytes.fromhex(result)

    def derive(self, handle: int, public: bytes, size: int) -> bytes:
        """Agrees on a secret with CKM_ECDH1_DERIVE.

        Args:
            handle: the private key.
            public: the other party's public key, as the curve has it.
            size: bytes of the secret.
        """
        return bytes.fromhex(self._call("derive", handle=handle, public=public.hex(), size=size))

    def end(self) -> None:
        """Tells the process to end; `close` waits until it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self) -> None:
        """Has the process end, if it does so within seconds, and kills it otherwise."""
        self.end()
        assert self._process.stdout is not None
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._process.stdout.close()

    def kill(self) -> None:
        """Kills the process, whatever it is doing; a call in another thread fails."""
        self._process.kill()

    def _call(self, call: str, *, _timeout: float | None = None, **arguments: object) -> Any:
        timeout = self._timeout if _timeout is None else _timeout
        request = json.dumps({"call": call, **arguments}).encode() + b"\n"
        line = self._exchange(request, time.monotonic() + timeout)
        if line is None:
            self.kill()
            raise CryptokiError(f"no answer to {call} within {timeout:g} s")
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            raise CryptokiError(answer["error"])
        return answer["result"]

    def _exchange(self, request: bytes, deadline: float) -> bytes | None:
        """Sends a line, and gives the one that comes back; None if it does not come in time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        requests, answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        try:
            while request:
                if not _wait_for(requests, select.POLLOUT, deadline):
                    return None
                request = request[os.write(requests, request) :]
        except OSError as error:
            raise CryptokiError(PROCESS_ENDED) from error
        answer = b""
        while not answer.endswith(b"\n"):
            if not _wait_for(answers, select.POLLIN, deadline):
                return None
            received = os.read(answers, 1 << 16)
            if not received:
                raise CryptokiError(PROCESS_ENDED)
            answer += received
        return answer


def _wait_for(descriptor: int, events: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(max(0, deadline - time.monotonic()) * 1000))


def _unpadded(text: str) -> str:
    # Blanks fill these texts up (2.40, 3.2); some modules use NULs.
    return text.rstrip(" \0")


def _token_info(info: Mapping[str, Any]) -> TokenInfo:
    return TokenInfo(
        info["slot"],
        _unpadded(info["slot_description"]),
        _unpadded(info["slot_manufacturer"]),
        _unpadded(info["label"]),
        _unpadded(info["manufacturer"]),
        _unpadded(info["model"]),
        _unpadded(info["serial"]),
        TokenFlags(info["flags"]),
        info["max_sessions"],
        SlotFlags(info["slot_flags"]),
    )


def _token_object(attributes: Mapping[str, Any]) -> TokenObject:
    return TokenObject(
        handle=attributes["handle"],
        label=attributes["CKA_LABEL"],
        id=bytes.fromhex(attributes["CKA_ID"]),
        type=attributes.get("CKA_KEY_TYPE", attributes.get("CKA_CERTIFICATE_TYPE", 0)),
        value=bytes.fromhex(attributes.get("CKA_VALUE", "")),
        modulus=int.from_bytes(bytes.fromhex(attributes.get("CKA_MODULUS", ""))),
        ec_point=bytes.fromhex(attributes.get("CKA_EC_POINT", "")),
        may_sign=bool(attributes.get("CKA_SIGN")),
        may_decrypt=bool(attributes.get("CKA_DECRYPT")),
        always_authenticate=bool(attributes.get("CKA_ALWAYS_AUTHENTICATE")),
    )
