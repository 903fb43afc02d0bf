# SPDX-License-Identifier: Apache-2.0
"""Finds the secrets of the tests where nobody is to find them: in logs, traces, whatever is left.

Each test uses these PINs, keys and passwords, or takes others into this list. They are looked for
as they are, in hexadecimal with and without separators, and as lists of numbers. Those that ccidd
makes itself and shows once are looked for in the rest of what it has said.

What a test gives to a program is no output: small files with a secret in their first line, such as
those for `pin-file=`, and scripts. Neither are captures that QEMU makes of what a guest sends, nor
disks.
"""

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SECRETS = {
    b"123456": "PIN",
    b"654321": "another PIN",
    b"135792": "PIN of a card that is both",
    b"482913": "PIN of a card from files",
    b"77777777": "PIN of a CAC",
    b"246810": "PIN of a provisioned card",
    b"135791": "changed PIN",
    b"11112222": "global PIN",
    b"68459714": "wrong PIN",
    b"88888888": "another wrong PIN",
    b"12345678": "PUK",
    b"87654321": "another PUK",
    b"975310": "PUK of a card that is both",
    b"518900": "PUK of a card from files",
    b"86420975": "PUK of a provisioned card",
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
    shown = list(_SHOWN_ONCE.finditer(data))
    secrets = dict.fromkeys(
        (each[1] or bytes.fromhex(each[2].decode()) for each in shown), "secret that was shown once"
    )
    for secret, name in {**secrets, **SECRETS}.items():
        for position, size in _occurrences(secret, lower):
            if not any(each.start() <= position < each.end() for each in shown):
                yield _finding(data, place, name, position, size)


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
            if not path.stat().st_mode & stat.S_IXUSR and not _is_given(data):
                yield from find_in(data, str(path))


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to tell a secret.

    Attributes:
        text: what it looks like, in lower case.
        is_word: whether it is part of another number or name where letters or digits stand beside.
        before: what stands before it where somebody counts, as tests do for data of any length.
        after: what stands behind it there.
    """

    text: bytes
    is_word: bool = False
    before: bytes = b"\0none"
    after: bytes = b"\0none"

    def is_told(self, data: bytes, position: int) -> bool:
        """Whether it is told where it was found."""
        end = position + len(self.text)
        if self.is_word:
            before, after = data[max(0, position - 1) : position], data[end : end + 1]
            return not (before == b"." or before.isalnum() or after.isalnum())
        return not data.startswith(self.after, end) and not data.endswith(self.before, 0, position)


@cache
def _forms(secret: bytes) -> tuple[_Form, ...]:
    """Gives all that gives a secret away."""
    forms = [_Form(secret.lower(), is_word=secret.isdigit())]
    step = secret[1] - secret[0]
    for number, separator in (("%02x", ""), ("%02x", " "), ("%02x", ":"), ("%d", ", ")):
        before, *numbers, after = (
            (number % (byte % 256)).encode()
            for byte in (secret[0] - step, *secret, secret[-1] + step)
        )
        gap = separator.encode()
        forms.append(_Form(gap.join(numbers), before=before + gap, after=gap + after))
    if len(secret) < _PADDED:
        # Commands have several of them, one directly after the other.
        forms.append(_Form(secret.ljust(_PADDED, b"\xff")))
    return tuple(forms)


def _occurrences(secret: bytes, lower: bytes) -> Iterator[tuple[int, int]]:
    """Gives where a secret begins in some bytes in lower case, and how long it is there."""
    for form in _forms(secret):
        position = lower.find(form.text)
        while position >= 0:
            if form.is_told(lower, position):
                yield position, len(form.text)
            position = lower.find(form.text, position + len(form.text))


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
    return any(first.startswith(form.text) for secret in SECRETS for form in _forms(secret))
