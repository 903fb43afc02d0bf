# SPDX-License-Identifier: Apache-2.0
import socket
from collections.abc import Callable

import pytest
import trio

from ccidd.transport.endpoint import Connector, Endpoint, adopt
from ccidd.transport.tcp import PromptStream, prompt

# The endpoints that TCP connections come from: each is given a socket that listens, and its peer
# is what connects to it or is connected by it.
Case = tuple[Endpoint, Callable[[], socket.socket]]


def connecting(listening: socket.socket) -> Case:
    host, port, *_ = listening.getsockname()
    return Connector(f"[{host}]:{port}"), lambda: listening.accept()[0]


def listening_descriptor(listening: socket.socket) -> Case:
    address = listening.getsockname()[:2]
    return adopt(listening.detach()), lambda: socket.create_connection(address)


def connected_descriptor(listening: socket.socket) -> Case:
    ours = socket.create_connection(listening.getsockname()[:2])
    theirs = listening.accept()[0]
    return adopt(ours.detach()), lambda: theirs


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
@pytest.mark.parametrize("case", [connecting, listening_descriptor, connected_descriptor])
async def test_each_tcp_connection_acknowledges_at_once(
    family: socket.AddressFamily, address: str, case: Callable[[socket.socket], Case]
) -> None:
    seen: list[tuple[bool, bool, bool]] = []

    async def handle(stream: trio.abc.Stream) -> bool:
        assert isinstance(stream, PromptStream)
        ours = stream._stream
        at_start = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
        # As the kernel does it by itself, once data of ours went out with an acknowledgement.
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        assert not ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
        assert await stream.receive_some(100) == b"header"
        after_receiving = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
        no_delay = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        seen.append((bool(at_start), bool(after_receiving), bool(no_delay)))
        await stream.wait_send_all_might_not_block()
        await stream.send_all(b"answer")
        return True

    listening = socket.create_server((address, 0), family=family)
    with listening:
        endpoint, peer_of = case(listening)
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run, handle)
            with await trio.to_thread.run_sync(peer_of) as peer:
                peer.sendall(b"header")
                assert await trio.to_thread.run_sync(peer.recv, 100) == b"answer"
            nursery.cancel_scope.cancel()
        endpoint.close()
    assert seen == [(True, True, True)]


async def test_a_unix_socket_stays_as_it_is() -> None:
    ours, theirs = trio.socket.socketpair()
    with theirs:
        async with trio.SocketStream(ours) as stream:
            assert prompt(stream) is stream
