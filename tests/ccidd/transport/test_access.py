# SPDX-License-Identifier: Apache-2.0
"""Who is let in, and that nobody else holds anybody up."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.typing import EventDict

from ccidd.transport import access
from ccidd.transport.access import Admission, RefusedError, Rules, Unencrypted, is_overflow
from ccidd.transport.endpoint import (
    MAX_ARRIVING,
    MAX_REFUSALS_LOGGED,
    MAX_WAITING,
    REFUSALS_PERIOD,
    Connector,
    adopt,
    listen,
)
from ccidd.transport.sockets import Credentials, peer_credentials
from other_user import directory_for_all, heard_by_other_user

ME = Rules(users=frozenset({os.getuid()}))
SOMEBODY_ELSE = Rules(users=frozenset({os.getuid() + 1}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A socket that other users can reach."""
    with directory_for_all() as directory:
        yield directory / "socket"


async def greet(stream: trio.abc.Stream) -> bool:
    await stream.send_all(b"hello")
    assert await stream.receive_some(100) == b"bye"
    return True


async def say_bye(stream: trio.abc.Stream) -> None:
    async with stream:
        assert await stream.receive_some(100) == b"hello"
        await stream.send_all(b"bye")
        assert await stream.receive_some(100) == b""


# Rules.


@pytest.mark.parametrize(
    ("rules", "is_let_in"),
    [
        (Rules(), True),
        (Rules(subjects=frozenset({"CN=a"})), True),
        (Rules(users=frozenset({7})), True),
        (Rules(users=frozenset({8})), False),
        (Rules(groups=frozenset({70})), True),
        (Rules(groups=frozenset({71})), True),
        (Rules(groups=frozenset({7, 80})), False),
        (Rules(users=frozenset({8}), groups=frozenset({71})), True),
        (Rules(users=frozenset({70}), groups=frozenset({7})), False),
    ],
)
def test_a_process_is_held_against_the_rules(rules: Rules, *, is_let_in: bool) -> None:
    process = Credentials(pid=700, uid=7, gid=70, groups=frozenset({71, 72}))
    if is_let_in:
        rules.check_process(process)
        return
    with pytest.raises(RefusedError) as refused:
        rules.check_process(process)
    assert refused.value.peer == {"uid": 7, "gid": 70, "pid": 700}


def test_the_process_at_the_other_end_is_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_credentials(ours) == Credentials(
            os.getpid(), os.getuid(), os.getgid(), frozenset(os.getgroups())
        )


def test_nobody_is_known_over_tcp() -> None:
    everybody = Rules(users=frozenset(range(100)), groups=frozenset(range(100)))
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket() as client:
        client.connect(tcp.getsockname())
        with pytest.raises(RefusedError):
            everybody.check_process(peer_credentials(client))


def test_users_of_other_namespaces_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/overflowuid").write_text("65534\n")
    ranges = tmp_path / "proc/self/uid_map"
    monkeypatch.setattr(access, "Path", lambda name: tmp_path / name.lstrip("/"))
    ranges.write_text("         0          0 4294967295\n")
    assert not is_overflow("uid", 65534)
    ranges.write_text("         0          0          1\n       107        107          1\n")
    assert is_overflow("uid", 65534)
    assert not is_overflow("uid", 107)
    # Where neither file can be read, the worst is to be expected.
    assert is_overflow("gid", 65534)
    assert not is_overflow("gid", 65533)
    with pytest.raises(RefusedError, match="not known in this user namespace"):
        ME.check_process(Credentials(0, 65534, 65534))


# Real users.


async def test_another_user_is_let_in_by_rule_alone(
    shared: Path, logs: list[EventDict], nursery: trio.Nursery
) -> None:
    await nursery.start(listen(shared, 0o666, None, Unencrypted(ME)).run, greet)
    assert await heard_by_other_user(shared, 1, (2, 3, 4)) == ""
    (refusal,) = logs
    assert refusal["event"] == "connection_refused"
    assert refusal["log_level"] == "warning"
    assert refusal["pid"] > 0
    uid, gid = refusal["uid"], refusal["gid"]
    assert uid != os.getuid()
    await say_bye(await trio.open_unix_socket(str(shared)))

    third = gid + 1
    for rules in (
        Rules(users=frozenset({uid})),
        Rules(groups=frozenset({gid})),
        Rules(groups=frozenset({third})),
    ):
        shared.unlink()
        await nursery.start(listen(shared, 0o666, None, Unencrypted(rules)).run, greet)
        assert await heard_by_other_user(shared, 1, (2, 3, 4)) == "hello"
    nursery.cancel_scope.cancel()


async def test_the_mode_of_the_socket_comes_first(shared: Path, nursery: trio.Nursery) -> None:
    await nursery.start(listen(shared).run, greet)
    assert await heard_by_other_user(shared) == "PermissionError"
    nursery.cancel_scope.cancel()


# Strangers.


class Choosy(Admission):
    """Lets in who says who he is; it waits for that."""

    async def admit(self, stream: trio.SocketStream) -> trio.abc.Stream:
        if await stream.receive_some(1) != b"!":
            raise RefusedError("a stranger", {"uid": 5})
        return stream


async def test_two_hundred_strangers_are_refused_while_one_is_served(
    path: Path,
    logs: list[EventDict],
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
) -> None:
    await nursery.start(listen(path, admission=Choosy()).run, greet)
    served = await trio.open_unix_socket(str(path))
    await served.send_all(b"!")
    assert await served.receive_some(100) == b"hello"
    next_one = await trio.open_unix_socket(str(path))
    await next_one.send_all(b"!")

    async def come_as_a_stranger() -> None:
        async with await trio.open_unix_socket(str(path)) as stranger:
            await stranger.send_all(b"?")
            assert await stranger.receive_some(100) == b""

    for _ in range(200):
        await come_as_a_stranger()
    # A log that is full of them would hide all else.
    assert [entry["reason"] for entry in logs] == ["a stranger"] * MAX_REFUSALS_LOGGED
    mock_clock.jump(REFUSALS_PERIOD)
    await come_as_a_stranger()
    assert logs[-2]["event"] == "more_connections_refused"
    assert logs[-2]["count"] == 200 - MAX_REFUSALS_LOGGED
    assert logs[-1]["reason"] == "a stranger"
    await served.send_all(b"bye")
    await served.aclose()
    await say_bye(next_one)
    nursery.cancel_scope.cancel()


async def test_those_who_say_nothing_give_way_to_those_who_do(
    path: Path, logs: list[EventDict], nursery: trio.Nursery
) -> None:
    await nursery.start(listen(path, admission=Choosy()).run, greet)
    silent = [await trio.open_unix_socket(str(path)) for _ in range(3 * MAX_ARRIVING)]
    honest = await trio.open_unix_socket(str(path))
    await honest.send_all(b"!")
    await say_bye(honest)
    assert len(logs) == MAX_REFUSALS_LOGGED < 2 * MAX_ARRIVING + 1
    assert {entry["reason"] for entry in logs} == {"too many others came meanwhile"}
    assert await silent[0].receive_some(1) == b""
    for stream in silent:
        await stream.aclose()
    nursery.cancel_scope.cancel()


class Faulty(Admission):
    """Fails at whoever comes first."""

    has_failed = False

    async def admit(self, stream: trio.SocketStream) -> trio.abc.Stream:
        if self.has_failed:
            return stream
        self.has_failed = True
        raise ZeroDivisionError


async def test_a_fault_costs_nobody_else_his_connection(
    path: Path, logs: list[EventDict], nursery: trio.Nursery
) -> None:
    await nursery.start(listen(path, admission=Faulty()).run, greet)
    async with await trio.open_unix_socket(str(path)) as stream:
        assert await stream.receive_some(1) == b""
    await say_bye(await trio.open_unix_socket(str(path)))
    assert [entry["event"] for entry in logs] == ["admission_fault", "connection_refused"]
    nursery.cancel_scope.cancel()


async def test_not_more_than_a_few_wait_and_they_do_so_in_order(
    path: Path, logs: list[EventDict], nursery: trio.Nursery
) -> None:
    await nursery.start(listen(path, admission=Unencrypted(ME)).run, greet)
    waiting = [await trio.open_unix_socket(str(path)) for _ in range(MAX_WAITING + 1)]
    await trio.testing.wait_all_tasks_blocked(0.01)
    async with await trio.open_unix_socket(str(path)) as one_too_many:
        assert await one_too_many.receive_some(1) == b""
    assert [entry["reason"] for entry in logs] == ["too many wait already"]
    for stream in waiting:
        await say_bye(stream)
    nursery.cancel_scope.cancel()


async def test_who_waits_is_let_go_in_the_end(path: Path) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(listen(path, admission=Choosy()).run, greet)
        streams = [await trio.open_unix_socket(str(path)) for _ in range(3)]
        for stream in streams[:2]:
            await stream.send_all(b"!")
        assert await streams[0].receive_some(100) == b"hello"
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    for stream in streams:
        async with stream:
            with trio.fail_after(5):
                assert await stream.receive_some(1) == b""


# The other endpoints.


async def test_an_inherited_connection_is_held_against_the_rules(logs: list[EventDict]) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with trio.fail_after(5):
            await adopt(ours.detach(), Unencrypted(SOMEBODY_ELSE)).run(greet)
        assert theirs.recv(100) == b""
    assert [entry["event"] for entry in logs] == ["connection_refused"]


async def test_a_qemu_that_listens_is_held_against_the_rules(
    path: Path,
    logs: list[EventDict],
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        connector = Connector(str(path), admission=Unencrypted(SOMEBODY_ELSE))
        await nursery.start(connector.run, greet)
        await trio.sleep(20)
    (failure,) = logs
    assert failure["event"] == "connect_failed"
    assert failure["reason"] == "neither its user nor a group of its is allowed"
    nursery.cancel_scope.cancel()
