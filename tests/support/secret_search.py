# SPDX-License-Identifier: Apache-2.0
"""Finds the secrets of the tests where nobody is to find them: in logs, traces, whatever is left.

Each test uses these PINs, keys and passwords, or takes others into this list. They are looked for
as they are, in hexadecimal with and without separators, and as lists of numbers. Those that ccidd
makes itself and shows once are looked for in the rest of what it has said.

What a test gives to a program is no output: small files with a secret in their first line, such as
those for `pin-file=`. Neither are captures that QEMU makes of what a guest sends, nor disks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SECRETS = {
    b"123456": "PIN",
    b"654321": "another PIN",
    b"135792": "PIN of a card that is both",
    b"482913": "PIN of a card from files",
    b"68459714": "wrong PIN",
    b"12345678": "PUK",
    b"87654321": "another PUK",
    b"975310": "PUK of a card that is both",
    b"518900": "PUK of a card from files",
    bytes.fromhex("5AB3C1F0427E9D8812C6EE30A1947F5D"): "administration key",
    bytes(range(1, 9)) * 3: "default administration key",
    bytes([0x0F]) * 24: "another administration key",
    b"it's a secret": "password",
}

_SHOWN_ONCE = re.compile(rb"^(?:PIN|PUK) +([0-9]{6,8})$|^admin ([0-9a-f]{32,64})$", re.MULTILINE)
"""How ccidd shows the secrets of a card that it has made."""

_PADDED = 8
"""Bytes of a PIN in a command."""

_AROUND = 40
"""Bytes around a secret that are shown, the secret itself left out."""

_MAX_GIVEN = 256
_MAX_SIZE = 16 * 1024 * 1024
_NO_OUTPUT = frozenset({".pcap", ".qcow2"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret where it is not to be.

    Attributes:
        place: the file, or what else it is in.
        name: which secret it is.
        around: what stands around it.
    """

    place: str
    name: str
    around: str

    def __str__(self) -> str:
        return f"{self.place}: the {self.name}: {self.around}"


def find_in(data: bytes, place: str) -> Iterator[Finding]:
    """Finds all secrets in some bytes."""
    lower = data.lower()
    for secret, name in SECRETS.items():
        for position, size in _occurrences(secret, lower):
            yield _finding(data, place, name, position, size)
    for shown in _SHOWN_ONCE.finditer(data):
        secret = shown[1] or bytes.fromhex(shown[2].decode())
        for position, size in _occurrences(secret, lower):
            if not shown.start() <= position < shown.end():
                yield _finding(data, place, "secret that was shown once", position, size)


def find_below(directory: Path, without: frozenset[Path] = frozenset()) -> Iterator[Finding]:
    """Finds all secrets in the files below a directory.

    Args:
        directory: where to look.
        without: directories that are left out.
    """
    for path in sorted(directory.iterdir()):
        if path.is_symlink() or path in without:
            continue
        if path.is_dir():
            yield from find_below(path, without)
        elif path.is_file() and path.suffix not in _NO_OUTPUT and path.stat().st_size <= _MAX_SIZE:
            data = path.read_bytes()
            if not _is_given(data):
                yield from find_in(data, str(path))


@cache
def _forms(secret: bytes) -> tuple[tuple[bytes, bool], ...]:
    """Gives all that gives a secret away, in lower case, and whether it may be part of a number."""
    pairs = [b"%02x" % byte for byte in secret]
    forms = [
        (secret.lower(), secret.isdigit()),
        *((separator.join(pairs), False) for separator in (b"", b" ", b":")),
        (b", ".join(b"%d" % byte for byte in secret), False),
    ]
    if len(secret) < _PADDED:
        # Commands have several of them, one directly after the other.
        forms.append((secret.ljust(_PADDED, b"\xff"), False))
    return tuple(forms)


def _occurrences(secret: bytes, lower: bytes) -> Iterator[tuple[int, int]]:
    """Gives where a secret begins in some bytes in lower case, and how long it is there."""
    for form, is_number in _forms(secret):
        position = lower.find(form)
        while position >= 0:
            end = position + len(form)
            if not (
                is_number and _goes_on(lower[max(0, position - 1) : position], lower[end : end + 1])
            ):
                yield position, len(form)
            position = lower.find(form, end)


def _goes_on(before: bytes, after: bytes) -> bool:
    """Whether digits are part of a longer number or name, by what stands beside them."""
    return before == b"." or before.isalnum() or after.isalnum()


def _finding(data: bytes, place: str, name: str, position: int, size: int) -> Finding:
    before = data[max(0, position - _AROUND) : position]
    after = data[position + size : position + size + _AROUND]
    return Finding(place, name, repr(f"{_text(before)}…{_text(after)}"))


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _is_given(data: bytes) -> bool:
    """Whether a file was made to give a secret to a program."""
    if len(data) > _MAX_GIVEN:
        return False
    first = data.strip().split(b"\n", 1)[0].strip().lower()
    return any(first.startswith(form) for secret in SECRETS for form, _is_number in _forms(secret))
