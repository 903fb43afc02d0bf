# SPDX-License-Identifier: Apache-2.0
"""The program as its users run it, beside an emulated QEMU that listens."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ccid_protocol import vscard
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.vscclient.cli import main
from credentials import credential
from passthrough import bench, new_piv_card
from piv import PIN as CARD_PIN
from piv import SELECT as SELECT_PIV
from piv import new_memory
from programs import run_ccidd
from qemu_peer import QemuPeer
from terminal import new_terminal
from tokens import PIN as TOKEN_PIN
from tokens import SOFTHSM, SoftHsm, StoredKey, nss_database, register_module

VSCCLIENT = str(Path(sys.executable).with_name("ccidd-vscclient"))
PASSWORD = "654321"
SELECT_PKI = (
    bytes.fromhex("00A4040007A0000000790100"),
    bytes.fromhex("00A4040007A0000000790101"),
)
VERIFY = CommandAPDU(0, 0x20, 0, 0, PASSWORD.encode()).encode()
WRONG_VERIFY = CommandAPDU(0, 0x20, 0, 0, b"000000").encode()
GET_PROPERTIES = bytes.fromhex("8056010000")
# What QEMU's T=0 reader is told; the historical bytes are libcacard's.
CAC_ATR = bytes.fromhex("3B0A73667465206364313434")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rsa = KeyAlgorithm.RSA_2048
    keys = {"id-cert": (rsa, 0), "signing-cert": (rsa, 1), "encryption-cert": (rsa, 2)}
    return nss_database(tmp_path_factory.mktemp("nss") / "database", keys, PASSWORD)


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory of the test's own, in its usual place."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """A token that says it is removable, and so passes for hardware."""
    softhsm = SoftHsm(tmp_path / "softhsm", monkeypatch)
    softhsm.configure("slots.removable = true")
    softhsm.add("my token", [StoredKey(KeyAlgorithm.RSA_2048, b"\1", "a key")])
    return softhsm


@pytest.fixture
def with_module(tmp_path: Path, softhsm: SoftHsm, database: Path) -> Path:
    """The database, with SoftHSM in its list of modules."""
    directory = Path(shutil.copytree(database, tmp_path / "database"))
    register_module(directory, "SoftHSM", SOFTHSM)
    return directory


def soft(*nicknames: str, name: str = "Test") -> str:
    return f"soft=(,{name},CAC,,{','.join(nicknames)})"


def emul_args(database: Path, *readers: str) -> str:
    return " ".join([f'db="sql:{database}" use_hw=no', *readers])


class Qemu:
    """A QEMU that listens, for one client after the other."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self.address = listener.socket.getsockname()[:2]

    @property
    def arguments(self) -> list[str]:
        host, port = self.address
        return [host, str(port)]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[QemuPeer]:
        """Takes one client; in the end the connection is cut."""
        stream = await self._listener.accept()
        peer = QemuPeer(stream)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            yield peer
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def listening(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Qemu]:
    (listener,) = await trio.open_tcp_listeners(port, host=host)
    async with listener:
        yield Qemu(listener)


class Client:
    """A running ccidd-vscclient, and the person who types its commands."""

    def __init__(self, process: trio.Process, log: Path) -> None:
        self.process = process
        self._log = log
        self._output = b""

    async def sees(self, text: str) -> str:
        """Waits for a text; returns all that was printed up to its end since the last."""
        assert self.process.stdout is not None
        wanted = text.encode()
        while wanted not in self._output:
            data = await self.process.stdout.receive_some()
            assert data, self.log
            self._output += data
        seen, _, self._output = self._output.partition(wanted)
        return (seen + wanted).decode()

    async def types(self, text: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def does(self, command: str) -> str:
        """Types a command; returns the answer to it."""
        await self.types(command + "\n")
        return (await self.sees("> ")).removesuffix("> ")

    @property
    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def running(
    *arguments: str, tmp_path: Path, stdin: int = subprocess.PIPE
) -> AsyncIterator[Client]:
    with (log := tmp_path / "log").open("ab") as stderr, trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [VSCCLIENT, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=stderr
        )
        try:
            yield Client(process, log)
        finally:
            process.kill()
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()
            if process.stdin is not None:
                await process.stdin.aclose()


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VSCCLIENT, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


# What a guest gets.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_the_documents_command_gives_a_guest_its_cac(
    host: str, database: Path, tmp_path: Path, environ: None
) -> None:
    arguments = ["-e", emul_args(database, soft("id-cert", "signing-cert", "encryption-cert"))]
    async with listening(host) as qemu:
        arguments += [host, qemu.arguments[1]]
        async with running(*arguments, tmp_path=tmp_path) as client, qemu.client() as peer:
            await peer.until(lambda: peer.atr)
            assert peer.atr == CAC_ATR
            for select in SELECT_PKI:
                assert (await peer.transmit(select))[0] == 0x61
            assert await peer.transmit(WRONG_VERIFY) != b"\x90\x00"
            assert await peer.transmit(VERIFY) == b"\x90\x00"
            await client.sees("> ")
            await client.types("exit\n")
            await peer.until(lambda: peer.closed)
            assert await client.process.wait() == 0
            assert peer.seen[-2:] == [vscard.CardRemove(0), vscard.ReaderRemove(0)]


async def test_certificates_of_the_option_c_are_one_more_reader(
    database: Path, tmp_path: Path, environ: None
) -> None:
    options = [
        "-e",
        emul_args(database, soft("signing-cert")),
        "-c",
        "id-cert",
        "-cencryption-cert",
    ]
    async with (
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path) as client,
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        await client.sees("> ")
        assert await client.does("list") == (
            "Active Readers:\n"
            "  0 CARD_PRESENT Test\n"
            "Inactive Readers:\n"
            "  1 CARD_PRESENT Virtual Reader\n"
        )
        assert await peer.transmit(SELECT_PKI[1]) == b"\x6a\x82"
        await client.does("select 1")
        await peer.until(lambda: peer.atr is None)
        await peer.until(lambda: peer.atr)
        assert (await peer.transmit(SELECT_PKI[1]))[0] == 0x61


async def test_certificates_may_be_on_a_token_of_a_module(
    with_module: Path, tmp_path: Path, environ: None
) -> None:
    reader = "soft=(my token,Test,CAC,,my token:a key)"
    async with (
        listening() as qemu,
        running("-e", emul_args(with_module, reader), *qemu.arguments, tmp_path=tmp_path),
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        assert (await peer.transmit(SELECT_PKI[0]))[0] == 0x61
        verify = CommandAPDU(0, 0x20, 0, 0, TOKEN_PIN).encode()
        assert await peer.transmit(verify) == b"\x90\x00"
    other = emul_args(with_module, reader.replace("a key", "nobody"))
    result = ended("-e", other, "127.0.0.1", "1")
    assert result.returncode == 1
    assert "module 'SoftHSM': " in result.stderr


async def test_a_guest_cannot_block_the_card(database: Path, tmp_path: Path, environ: None) -> None:
    options = ["-e", emul_args(database, soft("id-cert"))]
    async with (
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path),
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        await peer.transmit(SELECT_PKI[0])
        answers = [(await peer.transmit(WRONG_VERIFY)).hex() for _ in range(3)]
        assert answers == ["63c1", "63c0", "6983"]
        assert (await peer.transmit(VERIFY)).hex() == "6983"
        (card,) = json.loads(run_ccidd("card", "list", "--json").stdout)
        assert card["pins"][0]["tries_left"] == 1
        assert run_ccidd("card", "unblock", card["guid"]).returncode == 0
        assert (await peer.transmit(VERIFY)).hex() == "9000"


async def test_two_may_have_the_same_database(
    database: Path, tmp_path: Path, environ: None
) -> None:
    options = ["-e", emul_args(database, soft("id-cert"))]
    async with (
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path),
        qemu.client() as one,
        running(*options, *qemu.arguments, tmp_path=tmp_path),
        qemu.client() as other,
    ):
        for peer in (one, other):
            await peer.until(lambda peer=peer: peer.atr)  # type: ignore[misc] # mypy: lambda
            assert (await peer.transmit(SELECT_PKI[0]))[0] == 0x61
            assert await peer.transmit(VERIFY) == b"\x90\x00"


# Hardware.


async def test_tokens_of_the_databases_modules_come_and_go(
    with_module: Path, softhsm: SoftHsm, tmp_path: Path, environ: None
) -> None:
    options = ["-e", f'db="sql:{with_module}" use_hw=removable']
    async with (
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path) as client,
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        assert (await peer.transmit(SELECT_PKI[0]))[0] == 0x61
        verify = CommandAPDU(0, 0x20, 0, 0, TOKEN_PIN).encode()
        assert await peer.transmit(verify) == b"\x90\x00"
        await client.sees("> ")
        listed = await client.does("list")
        assert listed.startswith("Active Readers:\n  0 CARD_PRESENT my token\nInactive Readers:\n")
        assert "  1              (hardware)\n" in listed
        assert await client.does("remove") == "remove my token, returned 0\n"
        await peer.until(lambda: peer.atr is None)
        assert await client.does("insert") == "insert my token, returned 0\n"
        await peer.until(lambda: peer.atr)
        softhsm.remove()
        await peer.until(lambda: peer.atr is None)
        assert await client.does("insert") == "insert (hardware), returned 1\n"
        softhsm.bring_back()
        await peer.until(lambda: peer.atr)


async def test_the_documents_command_gives_a_guest_the_hosts_card(
    tmp_path: Path, environ: None
) -> None:
    """A card in a reader of this host's, which OpenSC has made a token of."""
    card = piv_card({KeyReference.AUTHENTICATION: credential(KeyAlgorithm.RSA_2048)}, new_memory())
    async with (
        bench(tmp_path, card),
        listening() as qemu,
        running(*qemu.arguments, tmp_path=tmp_path),
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        assert b"sfte cd144" in (peer.atr or b"")
        assert (await peer.transmit(SELECT_PKI[0]))[0] == 0x61
        verify = CommandAPDU(0, 0x20, 0, 0, CARD_PIN.rstrip(b"\xff")).encode()
        assert await peer.transmit(verify) == b"\x90\x00"
        block = CommandAPDU(0x80, 0x42, 0x80, 0, b"\0\1" + bytes(238)).encode()
        assert await peer.transmit(block) == b"\x90\x00"
        rest = CommandAPDU(0x80, 0x42, 0, 0, bytes(16)).encode()
        assert (await peer.transmit(rest))[0] == 0x61


@pytest.mark.parametrize("use", ["any", "yes", "no"])
async def test_what_is_no_hardware_is_served_if_that_is_asked_for(
    use: str, with_module: Path, softhsm: SoftHsm, tmp_path: Path, environ: None
) -> None:
    softhsm.configure()
    emulation = f'db="sql:{with_module}" use_hw={use} {soft("id-cert")}'
    async with (
        listening() as qemu,
        running("-e", emulation, *qemu.arguments, tmp_path=tmp_path) as client,
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        await client.sees("> ")
        listed = await client.does("list")
        while use == "any" and "  1 CARD_PRESENT my token\n" not in listed:
            listed = await client.does("list")
        while use == "yes" and "event=token_left_out" not in client.log:
            listed = await client.does("list")
        assert listed.count("(hardware)") == {"any": 3, "yes": 4, "no": 0}[use]
        assert ("event=token_left_out" in client.log) == (use == "yes")


@pytest.mark.parametrize("options", [["-p"], ["-e", "passthru"], ["-e", "hw_type=PASSTHRU"]])
async def test_a_card_of_a_host_s_reader_is_passed_through(
    options: list[str], tmp_path: Path, environ: None
) -> None:
    async with (
        bench(tmp_path, new_piv_card()) as host,
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path) as client,
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        assert (await peer.transmit(bytes.fromhex(SELECT_PIV)))[-2:] == b"\x90\x00"
        await client.sees("> ")
        assert (await client.does("list")).startswith("Active Readers:\n  0 CARD_PRESENT PC/SC\n")
        host.reader.remove()
        await peer.until(lambda: peer.atr is None)
        host.reader.insert(new_piv_card())
        await peer.until(lambda: peer.atr)


def test_a_database_without_modules_has_no_hardware(database: Path, environ: None) -> None:
    result = ended("-e", f'db="sql:{database}"', "127.0.0.1", "1")
    assert result.returncode == 1
    assert f"sql:{database} lists no modules (modutil -add)" in result.stderr


# Commands.


async def test_commands_take_cards_out_and_put_them_back(
    database: Path, tmp_path: Path, environ: None
) -> None:
    readers = soft("id-cert", name="One"), soft("signing-cert", name="Two")
    async with (
        listening() as qemu,
        running("-e", emul_args(database, *readers), *qemu.arguments, tmp_path=tmp_path) as client,
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        assert await client.sees("> ") == "> "
        assert await client.does("remove") == "remove One, returned 0\n"
        await peer.until(lambda: peer.atr is None)
        assert await client.does("remove 0") == "remove One, returned 1\n"
        assert await client.does("list") == (
            "Active Readers:\n  0              One\nInactive Readers:\n  1 CARD_PRESENT Two\n"
        )
        assert await client.does("select 1") == "Selecting reader 1, Two\n"
        await peer.until(lambda: peer.atr)
        assert await client.does("insert 0") == "insert One, returned 0\n"
        assert await client.does("insert") == "insert Two, returned 1\n"
        assert await client.does("select 2") == "Reader with id 2 not found\n"
        assert await client.does("insert 7") == "no reader by id 7 found\n"
        assert await client.does("debug") == "debug level = 0\n"
        assert "event=connection_opened" not in client.log
        assert await client.does("debug 1") == "debug level = 1\n"
        await client.does("remove")
        await peer.until(lambda: peer.atr is None)
        await client.does("insert")
        await peer.until(lambda: peer.atr)
        assert "event=card_removed" in client.log
        assert (await client.does("help")).startswith("valid commands:\ninsert [reader_id]\n")
        assert not await client.does("")


async def test_a_terminal_shows_the_prompt_and_its_end_is_the_end(
    database: Path, tmp_path: Path, environ: None
) -> None:
    arguments = [VSCCLIENT, "-e", emul_args(database, soft("id-cert"))]
    with trio.fail_after(60):
        async with listening() as qemu, new_terminal() as terminal:
            # A session of its own, whose terminal it is.
            shell = ["setsid", "--ctty", "--wait", *arguments, *qemu.arguments]
            fd = os.open(terminal.name, os.O_RDWR | os.O_NOCTTY)
            process = await trio.lowlevel.open_process(shell, stdin=fd, stdout=fd, stderr=fd)
            os.close(fd)
            async with qemu.client() as peer:
                await peer.until(lambda: peer.atr)
                await terminal.sees("> ")
                await terminal.types("list\r")
                await terminal.sees("  0 CARD_PRESENT Test\r\n")
                await terminal.sees("> ")
                await terminal.types("\x04")
                await peer.until(lambda: peer.closed)
                assert await process.wait() == 0


@pytest.mark.parametrize("commands", ["", "remove\ninsert\ndebug"])
async def test_it_serves_on_where_nobody_gives_commands(
    commands: str, database: Path, tmp_path: Path, environ: None
) -> None:
    file = tmp_path / "commands"
    file.write_text(commands)
    with file.open() as stdin:
        async with (
            listening() as qemu,
            running(
                *("-e", emul_args(database, soft("id-cert"))),
                *qemu.arguments,
                tmp_path=tmp_path,
                stdin=stdin.fileno(),
            ) as client,
            qemu.client() as peer,
        ):
            if commands:
                await client.sees("debug level = 0\n")
            await peer.until(lambda: peer.atr)
            assert (await peer.transmit(SELECT_PKI[0]))[0] == 0x61
            client.process.send_signal(signal.SIGTERM)
            await peer.until(lambda: peer.closed)
            assert await client.process.wait() == 0


# Connections.


async def test_it_comes_back_when_qemu_was_started_again(
    database: Path, tmp_path: Path, environ: None
) -> None:
    options = ["-e", emul_args(database, soft("id-cert"))]
    async with listening() as qemu, running(*options, *qemu.arguments, tmp_path=tmp_path) as client:
        async with qemu.client() as peer:
            await peer.until(lambda: peer.atr)
        async with qemu.client() as peer:
            await peer.until(lambda: peer.atr)
            await client.does("remove")
            await peer.until(lambda: peer.atr is None)


@pytest.mark.parametrize(("policy", "status"), [("lost", 5), ("never", 5)])
def test_a_qemu_that_is_not_there_is_named(
    policy: str, status: int, database: Path, environ: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    options = ["-e", emul_args(database, soft("id-cert")), f"--reconnect={policy}"]
    result = ended(*options, "127.0.0.1", str(port))
    assert result.returncode == status
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == (
        f"ccidd-vscclient: cannot connect to 127.0.0.1:{port}: Connection refused"
    )


async def test_it_waits_for_qemu_if_told_so(database: Path, tmp_path: Path, environ: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    options = ["-e", emul_args(database, soft("id-cert")), "--reconnect=always"]
    async with running(*options, "127.0.0.1", str(port), tmp_path=tmp_path) as client:
        # Commands are taken meanwhile.
        await client.sees("> ")
        assert (await client.does("list")).startswith("Active Readers:\n  0 CARD_PRESENT")
        async with listening(port=port) as qemu, qemu.client() as peer:
            await peer.until(lambda: peer.atr)


async def test_its_only_connection_may_be_its_end(
    database: Path, tmp_path: Path, environ: None
) -> None:
    options = ["-e", emul_args(database, soft("id-cert")), "--reconnect=never"]
    async with listening() as qemu, running(*options, *qemu.arguments, tmp_path=tmp_path) as client:
        async with qemu.client() as peer:
            await peer.until(lambda: peer.atr)
        assert await client.process.wait() == 0


async def test_a_peer_that_is_no_qemu_is_told_apart(
    database: Path, tmp_path: Path, environ: None
) -> None:
    options = ["-e", emul_args(database, soft("id-cert"))]
    async with listening() as qemu, running(*options, *qemu.arguments, tmp_path=tmp_path) as client:
        async with await qemu._listener.accept() as stream:
            await stream.send_all(b"RFB 003.008\n" * 3)
            assert await client.process.wait() == 5
        assert f"127.0.0.1:{qemu.address[1]} does not speak as was expected" in client.log


# Errors.


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: HOST, PORT"),
        (["localhost"], "the following arguments are required: PORT"),
        (["localhost", "2001", "x"], "unrecognized arguments: x"),
        (["-x", "localhost", "2001"], "unrecognized arguments: -x"),
        (["localhost", "0"], "PORT 0 is none of 1 to 65535"),
        (["localhost", "65536"], "PORT 65536 is none of 1 to 65535"),
        (["localhost", "9" * 5000], "PORT 999"),
        (["localhost", "no-such-port"], "PORT no-such-port is neither a number nor"),
        (["-d", "loud", "localhost", "2001"], "argument -d: invalid int value"),
        (["-e", "db=x", "localhost", "2001"], "-e: the path behind db= is to be in quotes"),
        ([*["-ca"] * 101, "localhost", "2001"], "-c: too many certificates (max = 100)"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: Sequence[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["ccidd-vscclient", *arguments])
    with pytest.raises(SystemExit, match="4"):
        main()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"ccidd-vscclient: {complaint}")
    assert printed.err.endswith("; see ccidd-vscclient --help\n")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("emulation", "complaint"),
    [
        ('db="{db}" use_hw=no', "there is nothing to serve: use_hw=no, and no soft= or -c"),
        ('db="/nowhere" use_hw=no soft=(,T,CAC,,a)', "cannot read the NSS database /nowhere/"),
        ('db="{db}" use_hw=no soft=(,T,CAC,,)', "soft=(,T,…): it names no certificate"),
        ('db="{db}" use_hw=no soft=(,T,CAC,,nobody)', "nobody"),
        ('db="{db}" use_hw=no soft=(Other,T,CAC,,id-cert)', "lists no module that could have it"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    emulation: str, complaint: str, database: Path, environ: None
) -> None:
    result = ended("-e", emulation.format(db=database), "127.0.0.1", "1")
    assert result.returncode == 1
    *_log, last_line = result.stderr.splitlines()
    assert last_line.startswith("ccidd-vscclient: ")
    assert complaint in last_line
    assert "--card" not in last_line


def test_a_database_without_a_password_has_no_pin(tmp_path: Path, environ: None) -> None:
    open_to_all = nss_database(tmp_path / "open", {"id-cert": (KeyAlgorithm.RSA_2048, 0)}, "")
    result = ended("-e", emul_args(open_to_all, soft("id-cert")), "127.0.0.1", "1")
    assert result.returncode == 1
    assert "has no PIN" in result.stderr
    assert "certutil -W" in result.stderr


def test_the_help_tells_of_all_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ccidd-vscclient", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr().out
    for word in ("-e", "-c", "-d", "-p", "HOST PORT", "db=", "soft=(", "use_hw=", "hw_type="):
        assert word in printed
    for command in ("insert", "remove", "select", "list", "debug", "exit"):
        assert f"\n  {command}" in printed
