# SPDX-License-Identifier: Apache-2.0
"""How ccidd-vscclient is run: its command line, its commands and its connection."""

import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from ccidd.keys.key import KeyAlgorithm
from ccidd.service.vscclient.cli import main
from running_vscclient import SELECT_PKI, VSCCLIENT, emul_args, ended, listening, running, soft
from terminal import new_terminal
from tokens import nss_database

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
