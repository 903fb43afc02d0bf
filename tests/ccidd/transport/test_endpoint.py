# SPDX-License-Identifier: Apache-2.0
import os
import resource
import socket
import stat
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from ccidd.errors import UserError
from ccidd.transport.endpoint import (
    FIRST_RETRY_DELAY,
    LAST_RETRY_DELAY,
    Connector,
    Endpoint,
    adopt,
    listen,
    take_systemd_fds,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


async def greet(stream: trio.abc.Stream) -> bool:
    await stream.send_all(b"hello")
    assert await stream.receive_some(100) == b"bye"
    return True


async def say_bye(stream: trio.abc.Stream) -> None:
    async with stream:
        assert await stream.receive_some(100) == b"hello"
        await stream.send_all(b"bye")
        assert await stream.receive_some(100) == b""


# Listening.


async def test_connections_are_served_one_after_the_other(
    path: Path, nursery: trio.Nursery
) -> None:
    await nursery.start(listen(path).run, greet)
    first = await trio.open_unix_socket(str(path))
    second = await trio.open_unix_socket(str(path))
    await say_bye(first)
    await say_bye(second)
    nursery.cancel_scope.cancel()


async def test_the_socket_is_for_its_user_alone_and_goes_in_the_end(path: Path) -> None:
    endpoint = listen(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    endpoint.close()
    assert not path.exists()
    endpoint.close()


async def test_a_socket_in_the_place_of_ours_stays(path: Path) -> None:
    ours = listen(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        ours.close()
        assert path.exists()


async def test_a_stale_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    endpoint = listen(path)
    await (await trio.open_unix_socket(str(path))).aclose()
    endpoint.close()


async def test_a_path_in_use_is_left_alone(path: Path) -> None:
    def refusal() -> str:
        with pytest.raises(UserError) as refused:
            listen(path)
        return str(refused.value)

    path.write_text("a file")
    assert "exists and is no socket" in refusal()
    assert path.read_text() == "a file"
    path.unlink()

    path.symlink_to("elsewhere")
    assert "exists and is no socket" in refusal()
    path.unlink()

    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        assert "another process listens" in refusal()
        assert "another process listens" in refusal()


def test_a_path_that_cannot_be_bound_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot listen on .*too long"):
        listen(tmp_path / ("x" * 200))
    with pytest.raises(UserError, match="No such file"):
        listen(tmp_path / "missing" / "socket")


async def test_too_many_open_files_are_waited_out(
    path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    await nursery.start(listen(path).run, greet)
    stream = await trio.open_unix_socket(str(path))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use - 1, limits[1]))
    try:
        await trio.sleep(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await say_bye(stream)
    nursery.cancel_scope.cancel()


# Descriptors.


async def test_an_inherited_listening_socket_is_served(path: Path, nursery: trio.Nursery) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    endpoint = adopt(listening.detach())
    await nursery.start(endpoint.run, greet)
    await say_bye(await trio.open_unix_socket(str(path)))
    await say_bye(await trio.open_unix_socket(str(path)))
    nursery.cancel_scope.cancel()
    endpoint.close()
    assert path.exists()


async def test_an_inherited_connection_is_served_once(nursery: trio.Nursery) -> None:
    ours, theirs = socket.socketpair()
    ended = trio.Event()

    async def run(endpoint: Endpoint) -> None:
        await endpoint.run(greet)
        ended.set()

    nursery.start_soon(run, adopt(ours.detach()))
    await say_bye(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
    await ended.wait()


def test_descriptors_that_cannot_be_served_are_refused() -> None:
    def refusal(fd: int) -> str:
        with pytest.raises(UserError) as refused:
            adopt(fd)
        return str(refused.value)

    assert "file descriptor 999 cannot be served: Bad file descriptor" in refusal(999)
    assert "cannot be served" in refusal(-1)
    with Path(os.devnull).open() as null:
        assert "Socket operation on non-socket" in refusal(null.fileno())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        assert "no stream socket" in refusal(datagram.fileno())
    with socket.socket(socket.AF_UNIX) as idle:
        assert "neither listens nor is connected" in refusal(idle.fileno())


def test_the_descriptors_that_systemd_passes() -> None:
    pid = str(os.getpid())
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "x:y", "HOME": "/"}
    assert take_systemd_fds(environ) == [("x", 3), ("y", 4)]
    assert environ == {"HOME": "/"}
    assert take_systemd_fds({}) == []
    assert take_systemd_fds({"LISTEN_PID": f"{os.getpid() + 1}", "LISTEN_FDS": "1"}) == []
    assert take_systemd_fds({"LISTEN_PID": pid, "LISTEN_FDS": "0"}) == []
    assert take_systemd_fds({"LISTEN_PID": pid, "LISTEN_FDS": "x"}) == []
    unnamed = {"LISTEN_PID": pid, "LISTEN_FDS": "2"}
    assert [fd for _name, fd in take_systemd_fds(unnamed)] == [3, 4]


# Connecting.


async def test_a_qemu_that_listens_is_connected_to_again_and_again(
    path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    await nursery.start(Connector(str(path)).run, greet)
    await trio.sleep(60)
    endpoint = listen(path)

    async def qemu(stream: trio.abc.Stream) -> bool:
        await say_bye(stream)
        served.append(trio.current_time())
        if len(served) == 3:
            enough.set()
        return True

    served: list[float] = []
    enough = trio.Event()
    start = trio.current_time()
    nursery.start_soon(endpoint.run, qemu)
    await enough.wait()
    assert served[0] - start <= LAST_RETRY_DELAY + 0.1
    # A connection that was served well is missed at once.
    assert served[2] - served[1] <= FIRST_RETRY_DELAY + 0.1
    nursery.cancel_scope.cancel()
    endpoint.close()


async def test_a_peer_that_is_no_qemu_is_tried_less_and_less(
    path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    tries: list[float] = []
    enough = trio.Event()

    async def refuse(stream: trio.abc.Stream) -> bool:
        tries.append(trio.current_time())
        if len(tries) == 9:
            enough.set()
        return False

    async def accept(stream: trio.abc.Stream) -> bool:
        return True

    endpoint = listen(path)
    await nursery.start(endpoint.run, accept)
    await nursery.start(Connector(str(path)).run, refuse)
    await enough.wait()
    waits = [round(b - a, 1) for a, b in pairwise(tries)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    nursery.cancel_scope.cancel()
    endpoint.close()


async def test_tcp_targets(nursery: trio.Nursery) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await nursery.start(Connector(f"127.0.0.1:{port}").run, greet)
    async with listener:
        await say_bye(await listener.accept())
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "target", ["", "a..b:80", "host:port", "host:0", "host:65536", "::1:2001", ":2001", "a b:"]
)
def test_targets_that_are_neither_path_nor_host_and_port(target: str) -> None:
    with pytest.raises(UserError, match=r"neither a path nor HOST:PORT|no host name"):
        Connector(target)


@pytest.mark.parametrize("target", ["socket", "./a:1", "/run/a:b", "[::1]:2001", "host:2001"])
def test_targets_of_either_kind(target: str) -> None:
    Connector(target)
