# SPDX-License-Identifier: Apache-2.0
"""ccidd as its users run it, in its sandbox, over a real socket."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ccid_protocol import tlv
from ccidd.keys.key import KeyAlgorithm
from control_client import CommandFailedError, ControlClient, connect
from credentials import credential, private_key
from programs import CCIDD, run_ccidd, started
from qemu_peer import QemuPeer
from tokens import PIN, SoftHsm, StoredKey, nss_database

P_256 = KeyAlgorithm.P_256
DIGEST = bytes(range(32))
SELECT_PIV = bytes.fromhex("00A4040009A0000003080000100000")
VERIFY = bytes.fromhex("0020008008") + PIN.ljust(8, b"\xff")
PARTS = "no-dumps,no-new-privileges,landlock,no-capabilities,seccomp"

# Starts a ccidd under a kernel that has no Landlock, as far as ccidd can see.
NO_LANDLOCK = """
import errno, os, sys
from ccidd.service.sandbox import seccomp
kernel = seccomp.Filter(seccomp.find_library(), 0x7FFF0000)
kernel.rule(0x00050000 | errno.ENOSYS, "landlock_create_ruleset")
kernel.load(logged=False)
os.execv(sys.executable, [sys.executable, "-m", "ccidd", *sys.argv[1:]])
"""


@dataclass
class Served:
    """A ccidd that runs."""

    directory: Path
    process: "subprocess.Popen[bytes]"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    async def until(self, event: str) -> str:
        with trio.fail_after(60):
            while f"event={event}" not in self.log:  # noqa: ASYNC110 (another process writes it)
                await trio.sleep(0.02)
        return self.log

    async def sign(self) -> None:
        """Signs as a guest does, and checks the signature."""
        async with (
            await trio.open_unix_socket(f"{self.directory}/socket") as stream,
            trio.open_nursery() as nursery,
        ):
            peer = QemuPeer(stream)
            nursery.start_soon(peer.run)
            with trio.fail_after(30):
                await peer.until(lambda: peer.atr)
                assert (await peer.transmit(SELECT_PIV))[-2:] == b"\x90\0"
                assert await peer.transmit(VERIFY) == b"\x90\0"
                template = tlv.encode(0x7C, tlv.encode(0x82, b"") + tlv.encode(0x81, DIGEST))
                command = bytes.fromhex("0087119A") + bytes([len(template)]) + template + b"\0"
                response = await peer.transmit(command)
            assert response[-2:] == b"\x90\0"
            signature = tlv.decode_to_dict(tlv.decode_to_dict(response[:-2])[0x7C])[0x82]
            key = credential(P_256).certificate.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(signature, DIGEST, ec.ECDSA(Prehashed(hashes.SHA256())))
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def served(directory: Path, *options: str) -> AsyncGenerator[Served]:
    """Serves over vscard in a sandbox; the log is beside the socket."""
    log = directory / "log"
    state = f"--state-dir={directory}/state"
    command = [*CCIDD, "--transport=vscard", "--log-level=debug", state, *options]
    with started([*command, f"--socket-path={directory}/socket"], log=log) as process:
        ccidd = Served(directory, process)
        await ccidd.until("ready")
        yield ccidd
        process.terminate()
        assert process.wait(10) == 0


def status_of(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def assert_confined(process: int) -> None:
    """By what the kernel says of it."""
    status = status_of(process)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0


def children_of(process: int) -> list[int]:
    """Those of all its threads."""
    files = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def key_file(directory: Path) -> str:
    """Gives the options of a card with a key from a file."""
    directory.mkdir()
    key = private_key(P_256, 0).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "key.pem").write_bytes(
        key + credential(P_256).certificate.public_bytes(Encoding.PEM)
    )
    (directory / "pin").write_bytes(PIN + b"\n")
    for file in directory.iterdir():
        file.chmod(0o600)
    return f"keys={directory}/key.pem,pin-file={directory}/pin"


async def test_a_key_from_a_file_signs(tmp_path: Path) -> None:
    options = key_file(tmp_path / "keys")
    async with served(tmp_path, "--sandbox=on", f"--card=piv,{options}") as ccidd:
        assert f"event=confined by={PARTS}" in ccidd.log
        assert_confined(ccidd.process.pid)
        await ccidd.sign()
        assert children_of(ccidd.process.pid) == []


async def test_a_key_in_an_nss_database_signs(tmp_path: Path) -> None:
    nss_database(tmp_path / "nss", {"alice": (P_256, 0)}, PIN.decode())
    card = f"--card=piv,nss=sql:{tmp_path}/nss"
    async with served(tmp_path, "--sandbox=on", card) as ccidd:
        await ccidd.sign()
        children = children_of(ccidd.process.pid)
        assert children
        for child in children:
            assert_confined(child)
            # One that hangs is killed in the end, though it has a sandbox of its own.
            os.kill(child, signal.SIGSTOP)


@pytest.mark.parametrize("option", ["pkcs11", "token"])
async def test_a_key_on_a_token_signs(tmp_path: Path, softhsm: SoftHsm, option: str) -> None:
    uri = softhsm.add("token", [StoredKey(P_256, b"\1", "key")])
    async with served(tmp_path, "--sandbox=on", f"--card=piv,{option}={uri}") as ccidd:
        await ccidd.sign()
        children = children_of(ccidd.process.pid)
        assert children
        for child in children:
            assert_confined(child)


async def test_a_person_is_asked_through_a_program(tmp_path: Path) -> None:
    pinentry = tmp_path / "bin/pinentry"
    pinentry.parent.mkdir()
    pinentry.write_text(
        '#!/bin/sh\necho OK\nwhile read line; do echo OK; test "$line" = BYE && exit; done\n'
        "exit 0\n"
    )
    pinentry.chmod(0o755)
    options = key_file(tmp_path / "keys")
    card = f"--card=piv,{options},confirm=sign,confirm-with={pinentry}"
    async with served(tmp_path, "--sandbox=on", card) as ccidd:
        await ccidd.sign()


# Where it does not work, and where it is not wanted.


def without_landlock(directory: Path, *options: str) -> Sequence[str]:
    state, socket = f"--state-dir={directory}/state", f"--socket-path={directory}/socket"
    return [sys.executable, "-c", NO_LANDLOCK, state, socket, *options]


def test_it_does_not_start_without_what_was_asked_for(tmp_path: Path) -> None:
    result = subprocess.run(
        without_landlock(tmp_path, "--sandbox=on"), capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ccidd: --sandbox=on: there is no landlock: Function not implemented; --sandbox=auto does"
        " without"
    )
    assert not (tmp_path / "socket").exists()


async def test_it_starts_and_says_loudly_what_is_missing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started(without_landlock(tmp_path), log=log) as process:
        await Served(tmp_path, process).until("ready")
        assert_confined(process.pid)
    assert (
        "level=warning event=confined_in_part"
        " in_force=no-dumps,no-new-privileges,no-capabilities,seccomp"
        ' landlock="Function not implemented"'
    ) in log.read_text()


@pytest.mark.parametrize("is_in_file", [False, True])
async def test_it_can_do_without_and_says_so(tmp_path: Path, *, is_in_file: bool) -> None:
    log = tmp_path / "log"
    command = [*CCIDD, f"--socket-path={tmp_path}/socket", f"--state-dir={tmp_path}/state"]
    if is_in_file:
        (tmp_path / "ccidd.toml").write_text(
            f'sandbox = "off"\nstate-dir = "{tmp_path}/state"\n'
            f'[readers.alice]\nsocket-path = "{tmp_path}/socket"\n'
        )
        command = [*CCIDD, f"--config={tmp_path}/ccidd.toml"]
    else:
        command.append("--sandbox=off")
    with started(command, log=log) as process:
        await Served(tmp_path, process).until("ready")
        assert status_of(process.pid)["NoNewPrivs"] == "0"
    assert 'level=warning event=not_confined reason="--sandbox=off"' in log.read_text()


# What comes later.


async def test_a_reload_stays_within_the_sandbox(tmp_path: Path) -> None:
    file = tmp_path / "etc/ccidd.toml"
    file.parent.mkdir()
    inside, outside = key_file(tmp_path / "inside"), key_file(tmp_path / "outside")

    def write(*options: str) -> None:
        cards = ", ".join(
            "{type = 'piv', " + text.replace("=", " = '").replace(",", "', ") + "'}"
            for text in options
        )
        new = file.with_suffix(".new")
        new.write_text(
            f'state-dir = "{tmp_path}/state"\n[readers.alice]\ntransport = "vscard"\n'
            f'socket-path = "{tmp_path}/socket"\ncards = [{cards}]\n'
        )
        new.replace(file)

    write(inside)
    with started([*CCIDD, f"--config={file}"], log=tmp_path / "log") as process:
        ccidd = Served(tmp_path, process)
        await ccidd.until("ready")
        write(outside)
        process.send_signal(signal.SIGHUP)
        log = await ccidd.until("reload_failed")
        assert (
            f'reason="{file}: readers.alice.cards[0]: {tmp_path}/outside is outside of the sandbox'
            ' that ccidd made when it started; restart ccidd"'
        ) in log
        await ccidd.sign()
        # A key that is renewed is another file of the same name.
        (tmp_path / "outside/key.pem").replace(tmp_path / "inside/key.pem")
        (tmp_path / "outside/pin").rename(tmp_path / "inside/another-pin")
        write(inside.replace("inside/pin", "inside/another-pin"))
        process.send_signal(signal.SIGHUP)
        await ccidd.until("reloaded")
        await ccidd.sign()


async def test_what_is_named_is_within_the_sandbox(tmp_path: Path) -> None:
    file = tmp_path / "etc/ccidd.toml"
    file.parent.mkdir()
    text = (
        f'state-dir = "{tmp_path}/state"\nsandbox-path = ["{tmp_path}/later"]\n'
        f'[readers.alice]\ntransport = "vscard"\nsocket-path = "{tmp_path}/socket"\n'
    )
    (tmp_path / "later").mkdir()
    file.write_text(text)
    with started([*CCIDD, f"--config={file}"], log=tmp_path / "log") as process:
        ccidd = Served(tmp_path, process)
        await ccidd.until("ready")
        file.write_text(f'{text}trace = "{tmp_path}/later/trace.pcapng"\n')
        process.send_signal(signal.SIGHUP)
        await ccidd.until("reloaded")
    assert (tmp_path / "later/trace.pcapng").exists()


async def test_the_control_socket_tells_of_the_sandbox_and_does_not_lead_out_of_it(
    tmp_path: Path, softhsm: SoftHsm
) -> None:
    token = softhsm.add("token", [StoredKey(P_256, b"\1", "key")])
    keys = key_file(tmp_path / "keys")
    control = tmp_path / "run/control.sock"
    control.parent.mkdir()
    card = f"--card=piv,{keys}"
    async with (
        served(tmp_path, "--sandbox=on", f"--control={control}", card) as _,
        await connect(control) as stream,
    ):
        client = ControlClient(stream)
        await client.begin()
        status = await client.execute("query-status")
        assert isinstance(status, dict)
        assert status["confinement"] == {
            "mode": "on",
            "in-force": PARTS.split(","),
            "missing": [],
        }
        await client.execute("card-remove", slot=0)
        with pytest.raises(CommandFailedError, match=r"a program .* is outside of the sandbox"):
            await client.execute("card-insert", card=f"piv,token={token}")
        with pytest.raises(CommandFailedError, match="/elsewhere is outside of the sandbox"):
            await client.execute("trace-start", file="/elsewhere/trace.pcapng")
        trace = tmp_path / "state/trace.pcapng"
        await client.execute("trace-start", file=str(trace))
        await client.execute("trace-stop")
        assert trace.exists()


def test_a_wrong_value_is_refused(tmp_path: Path) -> None:
    result = run_ccidd(f"--socket-path={tmp_path}/s", "--sandbox=yes")
    assert result.returncode == 2
    assert "argument --sandbox: invalid choice: 'yes'" in result.stderr
