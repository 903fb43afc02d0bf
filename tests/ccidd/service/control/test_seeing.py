# SPDX-License-Identifier: Apache-2.0
"""Commands about what is counted, traced and logged."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from ccidd.service.configuration import Configuration
from ccidd.service.control.commands.seeing import LogLevel
from ccidd.service.log import LEVELS, is_logged, set_log_level
from ccidd.service.sandbox.confine import Confinement, Mode
from ccidd.service.sandbox.needs import Needs
from ccidd.service.sandbox.sandbox import Sandbox
from ccidd.service.sandbox.surroundings import Surroundings
from ccidd.service.state import State
from control_client import CommandFailedError, controlled
from kept_cards import PIN, keep_card, reader, service_of
from qemu_peer import QemuPeer

SELECT_PIV = bytes.fromhex("00A4040009A0000003080000100000")
WRONG_PIN = b"\x00\x20\x00\x80\x08" + b"999999\xff\xff"


@pytest.fixture
def _log_level() -> Iterator[None]:
    yield
    set_log_level("info")


async def test_what_a_guest_does_is_counted_told_and_traced(state: State, tmp_path: Path) -> None:
    keep_card(state, "one")
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    service.listen()
    file = tmp_path / "a.pcapng"
    with trio.fail_after(60):
        async with controlled(service, state) as clients:
            client = await clients.begun()
            with pytest.raises(CommandFailedError, match="absolute path"):
                await client.execute("trace-start", file="a.pcapng")
            assert await client.execute("trace-start", file=str(file)) == {}
            assert await client.event("TRACE_STARTED") == {"reader": "a", "file": str(file)}
            (told,) = await client.query("query-readers")
            assert told["trace"] == str(file)
            with pytest.raises(CommandFailedError, match="there is a trace already"):
                await client.execute("trace-start", file=str(file))
            async with (
                await trio.open_unix_socket(f"{tmp_path}/a.sock") as stream,
                trio.open_nursery() as nursery,
            ):
                peer = QemuPeer(stream)
                nursery.start_soon(peer.run)
                await peer.until(lambda: peer.atr)
                await peer.transmit(SELECT_PIV)
                assert await peer.transmit(WRONG_PIN) == b"\x63\xc2"
                failed = await client.event("PIN_FAILED")
                assert (failed["reader"], failed["tries-left"]) == ("a", 2)
                for _ in range(2):
                    await peer.transmit(WRONG_PIN)
                blocked = await client.event("PIN_BLOCKED")
                assert (blocked["reader"], blocked["slot"]) == ("a", 0)
                nursery.cancel_scope.cancel()
            stats = await client.execute("query-stats")
            assert isinstance(stats, dict)
            (counted,) = stats["readers"]
            assert counted["reader"] == "a"
            assert counted["connections"] == 1
            assert counted["slots"][0]["pin-failures"] == 3
            assert await client.execute("trace-stop", reader="a") == {}
            assert await client.event("TRACE_STOPPED") == {"reader": "a", "file": str(file)}
            with pytest.raises(CommandFailedError, match="there is no trace"):
                await client.execute("trace-stop")
    trace = file.read_bytes()
    assert len(trace) > 100
    assert b"999999" not in trace
    assert PIN not in str(stats)


async def test_a_trace_stays_within_the_sandbox(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_card(state, "one")
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    sandbox = Sandbox(
        Configuration((), sandbox="off"), Surroundings.here(state.directory, None, os.environ)
    )
    sandbox.confinement = Confinement(Mode.ON, granted=Needs())
    monkeypatch.setattr(service, "sandbox", sandbox)
    service.listen()
    async with controlled(service, state) as clients:
        client = await clients.begun()
        refusal = f"restart ccidd with --sandbox-path={tmp_path}$"
        with pytest.raises(CommandFailedError, match=refusal):
            await client.execute("trace-start", file=f"{tmp_path}/a.pcapng")


async def test_what_a_guard_refuses_is_told(state: State, tmp_path: Path) -> None:
    keep_card(state, "one")
    service = service_of(state, reader(tmp_path, "a", "piv,card=one,policy=read"))
    service.listen()
    with trio.fail_after(60):
        async with (
            controlled(service, state) as clients,
            await trio.open_unix_socket(f"{tmp_path}/a.sock") as stream,
            trio.open_nursery() as nursery,
        ):
            client = await clients.begun()
            peer = QemuPeer(stream)
            nursery.start_soon(peer.run)
            await peer.until(lambda: peer.atr)
            await peer.transmit(SELECT_PIV)
            assert await peer.transmit(WRONG_PIN) == b"\x69\x85"
            refused = await client.event("GUARD_REFUSED")
            assert (refused["instruction"], refused["reason"]) == ("VERIFY", "policy")
            nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("_log_level")
async def test_the_log_level_is_set(state: State) -> None:
    async with controlled(service_of(state), state) as clients:
        client = await clients.begun()
        assert await client.execute("set-log-level", level="warning") == {}
        assert is_logged("warning")
        assert not is_logged("info")
        assert await client.execute("set-log-level", level="debug") == {}
        assert is_logged("debug")
        with pytest.raises(CommandFailedError, match="did you mean debug"):
            await client.execute("set-log-level", level="debgu")
    assert tuple(LogLevel) == LEVELS
