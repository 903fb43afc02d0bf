# SPDX-License-Identifier: Apache-2.0
"""libcacard's own CAC, of the library that this machine has, with keys from an NSS database.

    python libcacard.py DATABASE NICKNAME...

Each line on standard input is a command APDU in hexadecimal, and each on standard output the
response to it. The first line there is the ATR. A line "reset" resets the card. The card is in a
process of its own because some commands end it.
"""

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

_LIBRARY = "libcacard.so.0"
_OK = 0
_MAX_RESPONSE = 65538


class LibcacardProcess:
    """Runs the card of a database.

    Args:
        directory: the database.
        nicknames: the certificates, in the order of their applets.
    """

    def __init__(self, directory: Path, nicknames: Sequence[str]) -> None:
        self._arguments = [sys.executable, "-P", __file__, str(directory), *nicknames]
        self._log = directory / "libcacard.log"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        log = self._stack.enter_context(self._log.open("wb"))
        self._process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
        )
        self._stack.enter_context(self._process)
        self._stack.callback(self._process.kill)
        self.atr = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reset(self) -> None:
        """Resets the card."""
        self._write("reset")
        assert self._read() == self.atr

    def transmit(self, command: bytes) -> bytes:
        """Has the card carry out a command."""
        self._write(command.hex())
        return self._read()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"libcacard has ended:\n{self._log.read_text()}"
        return bytes.fromhex(line)


class _SoftReader(ctypes.Structure):
    """What the library makes of a soft=; it has no public name for this."""

    _fields_ = (
        ("slot", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("card_type", ctypes.c_int),
        ("params", ctypes.c_char_p),
        ("certificates", ctypes.POINTER(ctypes.c_char_p)),
        ("certificate_count", ctypes.c_int),
    )


class _Options(ctypes.Structure):
    """What it makes of its "emul args", likewise."""

    _fields_ = (
        ("database", ctypes.c_char_p),
        ("soft", ctypes.POINTER(_SoftReader)),
        ("soft_count", ctypes.c_int),
        ("card_type", ctypes.c_int),
        ("hw_params", ctypes.c_char_p),
        ("hardware", ctypes.c_int),
    )


def libcacard_options(text: str) -> tuple[object, ...] | None:
    """What the library reads in "emul args"; None if they are none.

    Returns:
        The database, the use of hardware (no, yes, removable: 0, 1, 2), its card type (CAC,
        PASSTHRU: 1, 2), its parameters, and the readers: slot, name, certificates.
    """
    parse = ctypes.CDLL(_LIBRARY).vcard_emul_options
    parse.restype, parse.argtypes = ctypes.POINTER(_Options), [ctypes.c_char_p]
    pointer = parse(text.encode())
    if not pointer:
        return None
    options = pointer.contents
    readers = [options.soft[i] for i in range(options.soft_count)]
    soft = [
        (
            each.slot.decode(),
            each.name.decode(),
            *(
                name
                for i in range(each.certificate_count)
                if (name := each.certificates[i].decode())
            ),
        )
        for each in readers
    ]
    database, params = (
        None if value is None else value.decode() for value in (options.database, options.hw_params)
    )
    return database, options.hardware, options.card_type, params, soft


class _Library:
    """The few functions that are needed."""

    def __init__(self) -> None:
        library = ctypes.CDLL(_LIBRARY)
        pointer, number = ctypes.c_void_p, ctypes.c_int
        out = ctypes.POINTER(number)
        signatures = {
            "vcard_emul_options": (pointer, [ctypes.c_char_p]),
            "vcard_emul_init": (number, [pointer]),
            "vreader_get_reader_list": (pointer, []),
            "vreader_list_get_first": (pointer, [pointer]),
            "vreader_list_get_reader": (pointer, [pointer]),
            "vreader_power_on": (number, [pointer, ctypes.c_char_p, out]),
            "vreader_xfr_bytes": (number, [pointer, ctypes.c_char_p, number, ctypes.c_char_p, out]),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._library = library

    def open_reader(self, database: str, nicknames: Sequence[str]) -> None:
        """Puts a card with these certificates into a reader."""
        library = self._library
        card = f"soft=(,Virtual Reader,CAC,,{','.join(nicknames)})"
        options = library.vcard_emul_options(f'db="sql:{database}" use_hw=no {card}'.encode())
        assert options
        assert library.vcard_emul_init(options) == _OK
        first = library.vreader_list_get_first(library.vreader_get_reader_list())
        self._reader = library.vreader_list_get_reader(first)

    def power_on(self) -> bytes:
        """Resets the card; returns its ATR."""
        buffer, size = ctypes.create_string_buffer(64), ctypes.c_int(64)
        status = self._library.vreader_power_on(self._reader, buffer, ctypes.byref(size))
        assert status == _OK
        return buffer.raw[: size.value]

    def transmit(self, command: bytes) -> bytes:
        """Has the card carry out a command."""
        buffer = ctypes.create_string_buffer(_MAX_RESPONSE)
        size = ctypes.c_int(_MAX_RESPONSE)
        status = self._library.vreader_xfr_bytes(
            self._reader, command, len(command), buffer, ctypes.byref(size)
        )
        assert status == _OK
        return buffer.raw[: size.value]


def main() -> None:
    library = _Library()
    database, *nicknames = sys.argv[1:]
    library.open_reader(database, nicknames)
    sys.stdout.write(f"{library.power_on().hex()}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        text = line.strip()
        answer = library.power_on() if text == "reset" else library.transmit(bytes.fromhex(text))
        sys.stdout.write(f"{answer.hex()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
