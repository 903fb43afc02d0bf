# SPDX-License-Identifier: Apache-2.0
"""The process that a PKCS#11 module (a Cryptoki library) runs in; `ccidd.keys.cryptoki` starts it.

Why a process: PyKCS11 keeps Python's interpreter lock while a token works, and initialises modules
for one thread alone; NSS's library serves one database a process; and a module that crashes or
hangs takes nothing else with it.

Each request on standard input is a line of JSON, `{"call": NAME, ...}`, and so is each answer on
standard output: `{"result": ...}`, or `{"error": CKR_NAME}`. Bytes are in hexadecimal. Whatever the
module itself prints is lost. The end of the input is the end of the process.

Source: PKCS #11 Cryptographic Token Interface Base Specification Version 2.40.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import PyKCS11

from ccidd.dumps import forbid_dumps

_MECHANISMS: Final = (
    "CKM_RSA_X_509",
    "CKM_RSA_PKCS",
    "CKM_ECDSA",
    "CKM_ECDH1_DERIVE",
    "CKM_EDDSA",
)

# What is read of an object, by its class (2.40, 4.6 to 4.9).
_ATTRIBUTES: Final = {
    "CKO_CERTIFICATE": ("CKA_LABEL", "CKA_ID", "CKA_CERTIFICATE_TYPE", "CKA_VALUE"),
    "CKO_PUBLIC_KEY": ("CKA_LABEL", "CKA_ID", "CKA_KEY_TYPE", "CKA_MODULUS", "CKA_EC_POINT"),
    "CKO_PRIVATE_KEY": (
        "CKA_LABEL",
        "CKA_ID",
        "CKA_KEY_TYPE",
        "CKA_MODULUS",
        "CKA_SIGN",
        "CKA_DECRYPT",
        "CKA_ALWAYS_AUTHENTICATE",
    ),
}
_BYTES: Final = ("CKA_ID", "CKA_VALUE", "CKA_MODULUS", "CKA_EC_POINT")


class _InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS (2.40, 3.7) with the string that NSS takes in the reserved member."""

    _fields_ = (
        ("mutex_functions", ctypes.c_void_p * 4),
        ("flags", ctypes.c_ulong),
        ("parameters", ctypes.c_char_p),
        ("reserved", ctypes.c_void_p),
    )


def _initialize(module: str, parameters: str) -> None:
    """Calls C_Initialize with parameters, which PyKCS11 cannot; it takes what it finds initialised.

    Raises:
        OSError: The library cannot be loaded.
        PyKCS11.PyKCS11Error: It does not take the parameters.
    """
    library = ctypes.CDLL(module)
    functions = ctypes.POINTER(ctypes.c_void_p)()
    _check(library.C_GetFunctionList(ctypes.byref(functions)))
    # CK_FUNCTION_LIST (2.40, 3.6): behind the version, with its padding, the first is C_Initialize.
    c_initialize = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)(functions[1])
    arguments = _InitializeArgs(flags=PyKCS11.CKF_OS_LOCKING_OK, parameters=parameters.encode())
    _check(c_initialize(ctypes.byref(arguments)))


def _check(rv: int) -> None:
    if rv != PyKCS11.CKR_OK:
        raise PyKCS11.PyKCS11Error(rv)


class _Worker:
    """One module, and at most one session with one of its tokens.

    Args:
        requests: the descriptor that requests come from.
    """

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._library = PyKCS11.PyKCS11Lib()
        self._slot = 0
        self._session: Any = None
        self._handles: dict[int, Any] = {}

    def probe(self, module: str) -> None:
        """Loads a library, and looks whether it is a PKCS#11 module."""
        if not hasattr(ctypes.CDLL(module), "C_GetFunctionList"):
            raise OSError(f"{module}: it is no PKCS#11 module")

    def load(self, module: str, parameters: str | None) -> dict[str, object]:
        """Loads and initialises the module."""
        if parameters is None:
            # PyKCS11 does not tell why a library cannot be loaded.
            ctypes.CDLL(module)
        else:
            _initialize(module, parameters)
        self._library.load(module)
        info = self._library.getInfo()
        return {
            "manufacturer": info.manufacturerID,
            "description": info.libraryDescription,
            "version": info.libraryVersion,
        }

    def tokens(self) -> list[dict[str, object]]:
        """Tells of all tokens that are there."""
        found = []
        for slot in self._library.getSlotList(tokenPresent=True):
            try:
                found.append(self.token(slot))
            except PyKCS11.PyKCS11Error:
                # It has just gone, or cannot be read: others may be what is looked for.
                continue
        return found

    def wait(self) -> None:
        """Waits until a token comes or goes; the end of the requests ends the process meanwhile."""
        with _ended_by(self._requests):
            self._library.waitForSlotEvent()

    def refresh(self) -> None:
        """Has the module look for tokens anew, if it may do so at its initialisation alone.

        Modules of real readers look each time they are asked, and would read all cards again.
        """
        slots = self._library.getSlotList()
        if any(self._library.getSlotInfo(s).flags & PyKCS11.CKF_HW_SLOT for s in slots):
            return
        _check(self._library.lib.C_Finalize())
        _check(self._library.lib.C_Initialize())

    def token(self, slot: int) -> dict[str, object]:
        """Tells of the token in a slot."""
        slot_info = self._library.getSlotInfo(slot)
        info = self._library.getTokenInfo(slot)
        return {
            "slot": slot,
            "slot_description": slot_info.slotDescription,
            "slot_manufacturer": slot_info.manufacturerID,
            "slot_flags": slot_info.flags,
            "label": info.label,
            "manufacturer": info.manufacturerID,
            "model": info.model,
            "serial": info.serialNumber,
            "flags": info.flags,
            "max_sessions": info.ulMaxSessionCount,
        }

    def open(self, slot: int) -> None:
        """Opens the session."""
        self._slot = slot
        self._session = self._library.openSession(slot)

    def check(self) -> None:
        """Finds out whether the session is still there."""
        self._session.getSessionInfo()

    def mechanisms(self, slot: int) -> list[str]:
        """Tells which of the mechanisms that keys here need the token has."""
        there = self._library.getMechanismList(slot)
        return [mechanism for mechanism in _MECHANISMS if mechanism in there]

    def objects(self, object_class: str) -> list[dict[str, object]]:
        """Reads what is of interest of all objects of a class that are visible now."""
        template = [(PyKCS11.CKA_CLASS, PyKCS11.CKO[object_class])]
        names = _ATTRIBUTES[object_class]
        return [self._read(handle, names) for handle in self._session.findObjects(template)]

    def _read(self, handle: Any, names: Sequence[str]) -> dict[str, object]:
        self._handles[handle.value()] = handle
        types = [PyKCS11.CKA[name] for name in names]
        values = self._session.getAttributeValue(handle, types, allAsBinary=True)
        attributes: dict[str, object] = {"handle": handle.value()}
        for name, value in zip(names, values, strict=True):
            content = bytes(value) if value is not None else b""
            if name == "CKA_LABEL":
                attributes[name] = content.decode(errors="replace")
            elif name in _BYTES:
                attributes[name] = content.hex()
            else:
                attributes[name] = int.from_bytes(content, sys.byteorder)
        return attributes

    def login(self, pin: str) -> None:
        """Logs in as the user, after logging out, as a token that is logged in checks no PIN."""
        self.logout()
        self._login(PyKCS11.CKU_USER, pin)

    def _login(self, user: int, pin: str) -> None:
        self._session.login(bytes.fromhex(pin), user)

    def logout(self) -> None:
        """Logs out, if logged in."""
        self._handles.clear()
        try:
            self._session.logout()
        except PyKCS11.PyKCS11Error as error:
            if error.value != PyKCS11.CKR_USER_NOT_LOGGED_IN:
                raise

    def set_pin(self, old: str, new: str) -> None:
        """Changes the user's PIN, in a session of its own, as there may be no room for another."""
        self._handles.clear()
        self._session.closeSession()
        self._session = self._library.openSession(
            self._slot, PyKCS11.CKF_SERIAL_SESSION | PyKCS11.CKF_RW_SESSION
        )
        # NSS has this done by who is logged in.
        self._login(PyKCS11.CKU_USER, old)
        self._session.setPin(bytes.fromhex(old), bytes.fromhex(new))

    def sign(self, handle: int, mechanism: str, data: str, size: int, pin: str | None) -> str:
        """Signs; with a PIN, the key wants it for each operation (CKA_ALWAYS_AUTHENTICATE)."""
        self._begin(self._library.lib.C_SignInit, handle, mechanism, pin)
        return self._finish(self._library.lib.C_Sign, data, size)

    def decrypt(self, handle: int, mechanism: str, data: str, size: int, pin: str | None) -> str:
        """Decrypts; for the PIN see `sign`."""
        self._begin(self._library.lib.C_DecryptInit, handle, mechanism, pin)
        return self._finish(self._library.lib.C_Decrypt, data, size)

    # PyKCS11's own sign() and decrypt() do both steps at once, so that no PIN can come between
    # them, and ask for the length of the result first.

    def _begin(
        self, function: Callable[[Any, Any, Any], int], handle: int, mechanism: str, pin: str | None
    ) -> None:
        if mechanism == "CKM_EDDSA":
            native = PyKCS11.EDDSA_Mechanism().to_native()
        else:
            native = PyKCS11.Mechanism(PyKCS11.CKM[mechanism]).to_native()
        _check(function(self._session.session, native, self._handles[handle]))
        if pin is not None:
            self._login(PyKCS11.CKU_CONTEXT_SPECIFIC, pin)

    def _finish(self, function: Callable[[Any, Any, Any], int], data: str, size: int) -> str:
        result = PyKCS11.ckbytelist(bytes(size))
        content = PyKCS11.ckbytelist(bytes.fromhex(data))
        _check(function(self._session.session, content, result))
        return bytes(result).hex()

    def derive(self, handle: int, public: str, size: int) -> str:
        """Agrees on a secret with ECDH, and reads it."""
        template = [
            (PyKCS11.CKA_CLASS, PyKCS11.CKO_SECRET_KEY),
            (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_GENERIC_SECRET),
            (PyKCS11.CKA_TOKEN, PyKCS11.CK_FALSE),
            (PyKCS11.CKA_SENSITIVE, PyKCS11.CK_FALSE),
            (PyKCS11.CKA_EXTRACTABLE, PyKCS11.CK_TRUE),
            (PyKCS11.CKA_VALUE_LEN, size),
        ]
        mechanism = PyKCS11.ECDH1_DERIVE_Mechanism(bytes.fromhex(public))
        secret = self._session.deriveKey(self._handles[handle], template, mechanism)
        try:
            (value,) = self._session.getAttributeValue(secret, [PyKCS11.CKA_VALUE], True)
            return bytes(value or b"").hex()
        finally:
            self._session.destroyObject(secret)


@contextlib.contextmanager
def _ended_by(requests: int) -> Iterator[None]:
    """Has the kernel end the process (by SIGIO) as soon as its input has anything, or ends.

    A module that waits never comes back to look. Nor does the usual time limit end it.
    """
    signal.setitimer(signal.ITIMER_REAL, 0)
    flags = fcntl.fcntl(requests, fcntl.F_GETFL)
    fcntl.fcntl(requests, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(requests, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        if select.select([requests], [], [], 0)[0]:
            sys.exit()
        yield
    finally:
        fcntl.fcntl(requests, fcntl.F_SETFL, flags)


def _answer(worker: _Worker, line: str) -> dict[str, object]:
    request = json.loads(line)
    try:
        return {"result": getattr(worker, request.pop("call"))(**request)}
    except PyKCS11.PyKCS11Error as error:
        # Such as "CKR_PIN_INCORRECT (0x000000A0)".
        return {"error": str(error).split(" (")[0]}
    except OSError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 (told to the one who asked)
        return {"error": f"{type(error).__name__} in the worker"}


def _take_away(descriptor: int) -> int:
    """Gives a copy of a standard stream, and the module the null device in its place."""
    copy = os.dup(descriptor)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)
    return copy


def main() -> None:
    """Answers requests until there are no more; the argument is the seconds that one may take."""
    # What a terminal or systemd sends to all processes of a service is for ccidd; it ends this one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # PINs pass through here.
    forbid_dumps()
    time_limit = float(sys.argv[1])
    with os.fdopen(_take_away(0)) as requests, os.fdopen(_take_away(1), "w") as answers:
        worker = _Worker(requests.fileno())
        for line in requests:
            # SIGALRM ends the process even if a module never comes back.
            signal.setitimer(signal.ITIMER_REAL, time_limit)
            answers.write(json.dumps(_answer(worker, line)) + "\n")
            answers.flush()
            signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
