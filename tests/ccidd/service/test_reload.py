# SPDX-License-Identifier: Apache-2.0
"""A configuration file that changes while ccidd serves what it says."""

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ccid_protocol import vscard
from programs import CCIDD, connect_when_ready, run_ccidd, started
from qemu_peer import QemuPeer


class Served:
    """A ccidd with a configuration file, whose state, sockets and log are beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "ccidd.toml"
        self.log = directory / "log"
        self.pid = 0

    def write(self, *readers: str, more: str = "") -> None:
        lines = [f'state-dir = "{self.directory}/state"', more]
        for reader in readers:
            name, _, text = reader.partition(" ")
            lines += [
                f'[readers.{name}]\ntransport = "vscard"',
                f'socket-path = "{self.directory}/{name}.sock"',
                text,
            ]
        self.file.write_text("\n".join(lines))

    async def until(self, event: str, count: int = 1) -> str:
        """Waits until something is in the log."""
        with trio.fail_after(60):
            while True:
                text = self.log.read_text()
                if text.count(f"event={event}") >= count:
                    return text
                await trio.sleep(0.02)

    async def reload(self, event: str = "reloaded", count: int = 1) -> str:
        os.kill(self.pid, signal.SIGHUP)
        return await self.until(event, count)

    @asynccontextmanager
    async def guest(self, name: str) -> AsyncGenerator[QemuPeer]:
        """A guest with a card, at the reader of a name."""
        stream = await connect_when_ready(self.directory / f"{name}.sock")
        async with stream, trio.open_nursery() as nursery:
            peer = QemuPeer(stream)
            nursery.start_soon(peer.run)
            with trio.fail_after(10):
                await peer.until(lambda: peer.atr)
            yield peer
            nursery.cancel_scope.cancel()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    state = f"--state-dir={tmp_path}/state"
    for name in ("first", "second"):
        assert run_ccidd("card", "create", name, state).returncode == 0
    served.write("alice", 'bob cards = [{type = "piv", card = "first"}]')
    with started([*CCIDD, f"--config={served.file}"], log=served.log) as process:
        served.pid = process.pid
        yield served
    assert "fault" not in served.log.read_text()


async def test_readers_come_and_go_and_the_others_are_left_alone(served: Served) -> None:
    await served.until("ready")
    async with served.guest("alice") as alice, served.guest("bob") as bob:
        served.write("alice", "carol")
        log = await served.reload()
        assert "event=reloaded added=carol removed=bob\n" in log
        with trio.fail_after(10):
            await bob.until(lambda: vscard.ReaderRemove(0) in bob.seen)
        assert not (served.directory / "bob.sock").exists()
        async with served.guest("carol"):
            pass
        assert vscard.CardRemove(0) not in alice.seen
        assert await alice.transmit(b"\0\xa4\4\0\5\xa0\0\0\3\\8\0")


async def test_other_cards_leave_the_reader_where_it_is(served: Served) -> None:
    await served.until("ready")
    async with served.guest("bob") as bob:
        bob.seen.clear()
        served.write("alice", 'bob cards = [{type = "piv", card = "second"}]')
        assert "event=reloaded changed=bob\n" in await served.reload()
        with trio.fail_after(10):
            await bob.until(lambda: any(isinstance(each, vscard.ATR) for each in bob.seen))
        assert vscard.CardRemove(0) in bob.seen
        assert vscard.ReaderRemove(0) not in bob.seen
    # The card that went can be served by others now.
    served.write(
        'alice cards = [{type = "piv", card = "first"}]',
        'bob cards = [{type = "piv", card = "second"}]',
    )
    assert "event=reloaded changed=alice\n" in await served.reload(count=2)


async def test_a_wrong_file_changes_nothing(served: Served) -> None:
    await served.until("ready")
    async with served.guest("bob") as bob:
        served.write("alice", 'bob cards = [{type = "pivv"}]', "carol")
        log = await served.reload("reload_failed")
        assert "readers.bob.cards[0]" in log
        assert not (served.directory / "carol.sock").exists()
        served.write("alice", more='state-key-file = "key"')
        log = await served.reload("reload_failed", 2)
        assert "needs a restart of ccidd" in log
        assert vscard.CardRemove(0) not in bob.seen
    async with served.guest("alice"):
        pass


async def test_what_cannot_be_opened_is_served_as_before(served: Served) -> None:
    await served.until("ready")
    served.write(
        "alice reader = {}\ntrace = '/nowhere/trace'",
        'bob cards = [{type = "piv", card = "nobody"}]',
        "carol",
    )
    log = await served.reload("reload_failed")
    assert "readers.alice.trace: " in log
    assert "there is no card nobody" in log
    for name in ("alice", "carol"):
        async with served.guest(name):
            pass
    served.write("alice", 'bob cards = [{type = "piv", card = "second"}]', "carol")
    await served.reload()
    async with served.guest("bob"):
        pass


async def test_a_socket_of_systemds_goes_on_to_the_changed_reader(tmp_path: Path) -> None:
    served = Served(tmp_path)
    text = f'state-dir = "{tmp_path}/state"\n[readers.alice]\ntransport = "vscard"\n'
    served.file.write_text(text)
    listen = [f"--listen={tmp_path}/alice.sock", "--fdname=alice"]
    command = ["systemd-socket-activate", *listen, *CCIDD, f"--config={served.file}"]
    with started(command, log=served.log) as process:
        served.pid = process.pid
        async with served.guest("alice"):
            pass
        served.file.write_text(f'{text}trace = "{tmp_path}/state/trace.pcapng"\n')
        await served.reload()
        async with served.guest("alice"):
            pass
        process.terminate()
        assert process.wait(10) == 0


async def test_without_a_file_a_hangup_ends_it(tmp_path: Path) -> None:
    served = Served(tmp_path)
    command = [*CCIDD, f"--state-dir={tmp_path}/state", f"--socket-path={tmp_path}/x.sock"]
    with started(command, log=served.log) as process:
        await served.until("ready")
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == -signal.SIGHUP
