# SPDX-License-Identifier: Apache-2.0
"""One ccidd with several readers, from a configuration file."""

import re
import socket
from pathlib import Path

import pytest
import trio

from ccid_protocol import vscard
from programs import CCIDD, connect_when_ready, run_ccidd, started
from qemu_peer import QemuPeer

SELECT_PIV = bytes.fromhex("00A4040009A0000003080000100000")
GET_CHUID = bytes.fromhex("00CB3FFF055C035FC10200")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "ccidd.toml"
    file.write_text(
        f"""
        state-dir = "{tmp_path / "state"}"
        [readers.alice]
        transport = "vscard"
        socket-path = "{tmp_path / "alice.sock"}"
        [readers.bob]
        transport = "vscard"
        socket-path = "{tmp_path / "bob.sock"}"
        """
    )
    return file


async def chuid(peer: QemuPeer) -> bytes:
    await peer.until(lambda: peer.atr)
    assert (await peer.transmit(SELECT_PIV))[-2:] == b"\x90\0"
    answer = await peer.transmit(GET_CHUID)
    assert answer[-2:] == b"\x61\0"
    return answer


async def test_each_guest_has_a_card_of_its_own_and_none_disturbs_another(
    config: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with started([*CCIDD, f"--config={config}"], log=log) as process, trio.fail_after(60):
        alice = await connect_when_ready(tmp_path / "alice.sock")
        bob = await connect_when_ready(tmp_path / "bob.sock")
        async with bob, trio.open_nursery() as nursery:
            first, second = QemuPeer(alice), QemuPeer(bob)
            nursery.start_soon(second.run)
            async with alice, trio.open_nursery() as inner:
                inner.start_soon(first.run)
                assert await chuid(first) != await chuid(second)
                inner.cancel_scope.cancel()
            assert (await second.transmit(SELECT_PIV))[-2:] == b"\x90\0"
            process.terminate()
        assert second.seen[-2:] == [vscard.CardRemove(0), vscard.ReaderRemove(0)]
        assert process.wait(5) == 0
    text = log.read_text()
    assert re.search("event=connection_opened.* reader=alice", text)
    assert re.search("event=connection_opened.* reader=bob", text)
    assert not (tmp_path / "alice.sock").exists()


async def test_systemd_passes_the_sockets_by_name(tmp_path: Path) -> None:
    file = tmp_path / "ccidd.toml"
    file.write_text(
        f'state-dir = "{tmp_path / "state"}"\n'
        '[readers.alice]\ntransport = "vscard"\n[readers.bob]\ntransport = "vscard"\n'
    )
    listen = [f"--listen={tmp_path / name}" for name in ("bob.sock", "alice.sock")]
    activation = ["systemd-socket-activate", *listen, "--fdname=bob:alice"]
    log = tmp_path / "log"
    command = [*activation, *CCIDD, f"--config={file}"]
    with started(command, log=log) as process, trio.fail_after(60):
        async with await connect_when_ready(tmp_path / "alice.sock") as stream:
            assert await stream.receive_some(1)
        process.terminate()
        assert process.wait(5) == 0
    assert re.search("event=connection_opened.* reader=alice", log.read_text())
    assert "reader=bob" not in log.read_text().replace("card_opened", "")


@pytest.mark.parametrize(
    "option",
    [
        *("--socket-path=x", "--fd=3", "--connect=x", "--transport=vscard"),
        *("--reader=level=short", "--card=piv,card=x", "--trace=x", "--unsafe-trace-secrets"),
    ],
)
def test_what_is_in_the_file_is_not_on_the_command_line(config: Path, option: str) -> None:
    result = run_ccidd(f"--config={config}", option)
    assert result.returncode == 2
    name = option.partition("=")[0]
    assert f"{name} is not allowed with the file {config}: put it there" in result.stderr


def test_a_reader_that_cannot_be_opened_is_named(config: Path, tmp_path: Path) -> None:
    with config.open("a") as file:
        file.write('cards = [{type = "piv", card = "nobody"}]\n')
    result = run_ccidd(f"--config={config}", "--log-level=error")
    assert result.returncode == 1
    where = f"{config}: readers.bob.cards[0].card"
    assert result.stderr.startswith(f"ccidd: {where}: there is no card nobody")


def test_a_socket_that_is_in_use_leaves_no_other_behind(config: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "bob.sock"))
        other.listen()
        result = run_ccidd(f"--config={config}", "--log-level=error")
    assert result.returncode == 1
    assert "another process listens there" in result.stderr
    assert not (tmp_path / "alice.sock").exists()
