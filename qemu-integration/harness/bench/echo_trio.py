# SPDX-License-Identifier: Apache-2.0
"""An echo server in trio, the least that a server in trio can do.

python echo_trio.py SOCKET
"""

import sys

import trio


async def _echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def _serve(path: str) -> None:
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(path)
        listening.listen()
        print("event=ready", flush=True)
        await trio.serve_listeners(_echo, [trio.SocketListener(listening)])


if __name__ == "__main__":
    trio.run(_serve, sys.argv[1])
