# SPDX-License-Identifier: Apache-2.0
"""Signatures a second, by cards in one or more slots of a reader that are all busy.

The baseline is `openssl speed` with a process for each processor.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ccid_protocol import ccid, tlv, usbredir
from ccid_protocol.apdu import CommandAPDU, Instruction
from ccidd.keys.generated import generate_key, key_usage, self_signed_certificate
from ccidd.keys.key import KeyAlgorithm
from harness.bench.doors import SELECT_PIV, SUCCESS, UsbredirHost
from harness.bench.figures import Figure, Report, in_turn
from harness.ccidd import running_ccidd
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PIN: Final = b"314159"
SLOTS: Final = (1, 2, 16)
SECONDS: Final = 2.0

_AUTHENTICATION: Final = 0x9A


@dataclass(frozen=True)
class Kind:
    """A kind of key.

    Attributes:
        algorithm: The key's.
        identifier: That of PIV (SP 800-78-4, table 6-2).
        block: What is signed.
        openssl: What `openssl speed` calls it.
    """

    algorithm: KeyAlgorithm
    identifier: int
    block: bytes
    openssl: str

    @property
    def command(self) -> bytes:
        """GENERAL AUTHENTICATE."""
        template = tlv.encode(0x7C, tlv.encode(0x82, b""), tlv.encode(0x81, self.block))
        command = CommandAPDU(
            0,
            Instruction.GENERAL_AUTHENTICATE,
            self.identifier,
            _AUTHENTICATION,
            template,
            65536,
            extended=True,
        )
        return command.encode()


KINDS: Final = (
    Kind(KeyAlgorithm.RSA_2048, 0x07, b"\0\1".ljust(255, b"\xff") + b"\0", "rsa2048"),
    Kind(KeyAlgorithm.RSA_4096, 0x16, b"\0\1".ljust(511, b"\xff") + b"\0", "rsa4096"),
    Kind(KeyAlgorithm.P_256, 0x11, bytes(range(32)), "ecdsap256"),
)


async def measure(report: Report, workdir: Path) -> None:
    """Measure all kinds of keys, in one slot and in many."""
    for kind in KINDS:
        cards = await trio.to_thread.run_sync(_cards, kind, workdir)
        for slots in SLOTS:
            path = workdir / f"{kind.openssl}-{slots}.socket"
            options = [f"--socket-path={path}", "--log-level=error", *cards[:slots]]
            directory = workdir / f"{kind.openssl}-{slots}"
            directory.mkdir()
            async with running_ccidd(*options, workdir=directory, wait=False):
                with trio.fail_after(60):
                    while not path.exists():  # noqa: ASYNC110 (nobody tells)
                        await trio.sleep(0.05)
                pairs = await in_turn(partial(_ours, path, kind, slots), partial(_openssl, kind))
            word = "slot" if slots == 1 else "slots"
            title = f"{kind.algorithm.value} signatures, {slots} {word}"
            report.add(Figure.of_pairs(title, "/s", "openssl speed -multi", pairs))


def _cards(kind: Kind, workdir: Path) -> Sequence[str]:
    """Make the options of cards with a key each."""
    pin = workdir / "pin"
    pin.write_bytes(PIN)
    pin.chmod(0o600)
    options = []
    for number in range(max(SLOTS)):
        key = generate_key(kind.algorithm)
        usage = key_usage(digital_signature=True)
        certificate = self_signed_certificate(key, f"{kind.openssl} {number}", usage)
        file = workdir / f"{kind.openssl}-{number}.pem"
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
        file.chmod(0o600)
        options.append(f"--card=piv,key9A={file},pin-file={pin}")
    return options


async def _ours(path: Path, kind: Kind, slots: int) -> float:
    return await trio.to_thread.run_sync(_signatures_a_second, path, kind, slots)


def _signatures_a_second(path: Path, kind: Kind, slots: int) -> float:
    """Have each slot sign all the time, and count."""
    host = UsbredirHost(path)
    try:
        verify = CommandAPDU(0, Instruction.VERIFY, 0, 0x80, PIN.ljust(8, b"\xff")).encode()
        for slot in range(slots):
            host.power_on(slot)
            for command in (SELECT_PIV, verify):
                if not host.transmit(command, slot).endswith(SUCCESS):
                    raise HarnessError(f"a card refused {command[:2].hex()}")
        return _Load(host, kind, slots).run()
    finally:
        host.close()


class _Load:
    """One command at work in each slot, at any time."""

    def __init__(self, host: UsbredirHost, kind: Kind, slots: int) -> None:
        self._host = host
        self._kind = kind
        self._slots = slots

    def run(self) -> float:
        """Return the signatures that were made a second."""
        host = self._host
        for slot in range(self._slots):
            host.send(host.write(slot, 0, self._kind.command))
            host.send(host.read())
        begin = time.perf_counter()
        made = 0
        while (now := time.perf_counter()) < begin + SECONDS:
            response = self._next_response()
            if response.command_status is ccid.CommandStatus.TIME_EXTENSION:
                host.send(host.read())
                continue
            if not isinstance(response, ccid.DataBlock) or not response.data.endswith(SUCCESS):
                raise HarnessError(f"a card did not sign: {response}")
            made += 1
            host.send(host.write(response.slot, 0, self._kind.command))
            host.send(host.read())
        return made / (now - begin)

    def _next_response(self) -> ccid.Response:
        while True:
            packet = self._host.next_packet()
            if isinstance(packet, usbredir.BulkPacket) and packet.data:
                return ccid.decode_response(packet.data)


async def _openssl(kind: Kind) -> float:
    program = shutil.which("openssl")
    if program is None:
        raise HarnessError("openssl is missing: install it")
    arguments = ["speed", "-seconds", "2", "-multi", str(os.cpu_count() or 1), kind.openssl]
    done = await trio.run_process([program, *arguments], capture_stdout=True, capture_stderr=True)
    text = done.stdout.decode()
    match = re.search(r"^ *(?:rsa|[0-9]+ bits ecdsa).* ([0-9.]+) +[0-9.]+$", text, re.MULTILINE)
    if match is None:
        raise HarnessError(f"openssl speed said\n{text}")
    return float(match[1])
