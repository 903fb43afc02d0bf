# SPDX-License-Identifier: Apache-2.0
import errno
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from ccid_protocol.qmp import Error, Event
from ccidd.errors import UserError
from ccidd.service.ctl.client import (
    RECONNECT_INTERVAL,
    SYSTEM_SOCKET,
    Client,
    DisconnectedError,
    connected,
    default_socket,
    keep_connected,
)
from scripted_control import ScriptedControl, listening

REFUSED = Error("GenericError", "slot 3 is empty")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


# Where the socket is.


def test_the_socket_is_the_one_that_is_named(tmp_path: Path) -> None:
    environ = {"CCIDD_CONTROL": "/home/x/control", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert default_socket(environ) == Path("/home/x/control")


def test_the_socket_is_the_users_own_if_there_is_one(tmp_path: Path) -> None:
    environ = {"CCIDD_CONTROL": "", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert default_socket(environ) == SYSTEM_SOCKET
    (tmp_path / "ccidd").mkdir()
    own = tmp_path / "ccidd/control.sock"
    own.touch()
    assert default_socket(environ) == own


def test_else_the_socket_is_the_machines() -> None:
    assert default_socket({}) == SYSTEM_SOCKET == Path("/run/ccidd/control.sock")


# What a server says.


async def test_a_command_returns_what_the_server_says(path: Path) -> None:
    control = ScriptedControl({"query-status": {"readers": 2}})
    async with listening(path, control.serve), connected(path) as client:
        assert await client.execute("query-status") == {"readers": 2}
    assert control.requests == [("qmp_capabilities", {}), ("query-status", {})]


async def test_a_refusal_is_said_as_the_server_says_it(path: Path) -> None:
    control = ScriptedControl({"card-remove": REFUSED})
    async with listening(path, control.serve), connected(path) as client:
        with pytest.raises(UserError, match=r"^slot 3 is empty$"):
            await client.execute("card-remove", {"reader": "alice", "slot": 3})
        # The connection is of use as before.
        with pytest.raises(UserError, match="no command of this name"):
            await client.execute("query-status")
    assert control.requests[1] == ("card-remove", {"reader": "alice", "slot": 3})


async def test_events_that_come_before_a_response_are_not_lost(path: Path) -> None:
    control = ScriptedControl({"query-status": {}})
    async with listening(path, control.serve), connected(path) as client:
        for number in range(3):
            await control.emit("CARD_INSERTED", slot=number)
        await client.execute("query-status")
        await control.emit("STOPPING")
        events = [await client.receive() for _ in range(4)]
    assert [event.name for event in events if isinstance(event, Event)] == [
        *["CARD_INSERTED"] * 3,
        "STOPPING",
    ]


async def test_an_agent_says_that_it_is_one(path: Path) -> None:
    control = ScriptedControl()
    async with listening(path, control.serve), connected(path, as_agent=True):
        pass
    assert control.requests == [("qmp_capabilities", {"enable": ["agent"]})]


async def test_a_socket_without_the_role_takes_no_agent(path: Path) -> None:
    control = ScriptedControl(capabilities=())
    async with listening(path, control.serve):
        with pytest.raises(UserError, match="takes no agents; use a control socket whose role"):
            async with connected(path, as_agent=True):
                pass


async def test_a_server_that_has_enough_clients_says_so(path: Path) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.send_all(b'{"error": {"class": "GenericError", "desc": "no more"}}\r\n')

    async with listening(path, refuse):
        with pytest.raises(UserError, match=r"^no more$"):
            async with connected(path):
                pass


# What is no server.


async def fails(path: Path) -> UserError:
    with pytest.raises(UserError) as failure:
        async with connected(path):
            pass
    assert "\n" not in str(failure.value)
    return failure.value


async def test_without_a_socket_it_is_said_how_to_get_one(path: Path) -> None:
    for missing in (path, path / "below"):
        failure = await fails(missing)
        assert isinstance(failure, DisconnectedError)
        assert f"there is no control socket {missing}; start ccidd with --control={missing}" in str(
            failure
        )


async def test_a_socket_that_was_left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    failure = await fails(path)
    assert isinstance(failure, DisconnectedError)
    assert str(failure) == f"no ccidd listens at {path} any more; start it again"


async def test_a_file_is_no_socket(path: Path) -> None:
    path.touch()
    assert str(await fails(path)) == f"{path} is no socket; name the one of ccidd's --control"


async def test_a_path_may_be_too_long(tmp_path: Path) -> None:
    assert "cannot connect to" in str(await fails(tmp_path / ("x" * 200)))


async def test_a_socket_of_somebody_elses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may use any.
    async def refuse(_path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(trio, "open_unix_socket", refuse)
    assert str(await fails(path)) == (
        f"{path} is not for this user; who may use it is said by ccidd's"
        " --control=PATH,mode=...,group=..."
    )


@pytest.mark.parametrize(
    "greeting",
    [
        b"\x00\x00\x00\x00HTTP",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b'{"QMP": 1}\r\n',
        b'{"return": {}}\r\n',
        b'{"timestamp": {"seconds": 1, "microseconds": 1}, "event": "A"}',
        b"[" * 1000,
    ],
)
async def test_another_server_is_none_of_ours(path: Path, greeting: bytes) -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(greeting)
        await stream.receive_some()

    async with listening(path, greet):
        failure = await fails(path)
    assert f"{path} is no control socket of a ccidd (" in str(failure)
    assert not isinstance(failure, DisconnectedError)


async def test_a_server_that_says_nothing_is_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    with pytest.raises(UserError, match=r"is no control socket of a ccidd \(nobody greets\)"):
        await Client(ours, Path("/x")).open()


async def test_a_server_that_goes_at_once(path: Path) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with listening(path, hang_up):
        assert isinstance(await fails(path), DisconnectedError)


# A server that comes and goes.


class Kept:
    """What `keep_connected` does with its connections."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.clients = 0

    async def serve(self, client: Client) -> None:
        self.clients += 1
        while True:
            await client.receive()

    async def keep(self, path: Path, *, reconnects: bool) -> None:
        await keep_connected(path, self.serve, self.told.append, reconnects=reconnects)  # type: ignore[arg-type]


async def test_a_ccidd_that_ends_ends_it(path: Path) -> None:
    async def hang_up_later(stream: trio.SocketStream) -> None:
        with trio.move_on_after(0.1):
            await ScriptedControl().serve(stream)

    kept = Kept()
    async with listening(path, hang_up_later):
        with pytest.raises(DisconnectedError, match="has ended the connection"):
            await kept.keep(path, reconnects=False)
    assert kept.told == [f"connected to {path}"]


async def test_without_a_ccidd_it_does_not_begin(path: Path) -> None:
    kept = Kept()
    with pytest.raises(DisconnectedError, match="there is no control socket"):
        await kept.keep(path, reconnects=True)
    assert kept.told == []


async def test_it_comes_back_to_a_ccidd_that_does(
    path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1
    kept = Kept()
    for _ in range(2):
        control = ScriptedControl()
        async with listening(path, control.serve):
            if not kept.clients:
                nursery.start_soon(lambda: kept.keep(path, reconnects=True))
            else:
                mock_clock.jump(RECONNECT_INTERVAL)
            await control.received("qmp_capabilities")
            await trio.testing.wait_all_tasks_blocked(0.01)
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(RECONNECT_INTERVAL)
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(RECONNECT_INTERVAL)
        await trio.testing.wait_all_tasks_blocked(0.01)
    nursery.cancel_scope.cancel()
    assert kept.clients == 2
    ended, missing = "has ended the connection", "there is no control socket"
    assert [
        part in line
        for line, part in zip(
            kept.told,
            [
                "connected to",
                ended,
                missing,
                "connected to",
                ended,
                missing,
            ],
            strict=True,
        )
    ] == [True] * 6
