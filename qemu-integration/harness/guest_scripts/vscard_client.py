# SPDX-License-Identifier: Apache-2.0
"""A QEMU without a guest: connects to a reader of ccidd's, and sends commands to its card.

    vscard_client.py SOCKET COMMAND... -name GUEST

Commands are hexadecimal; the ATR and each response are printed, a line each. What follows -name is
what ccidd finds in the command line of a QEMU.
"""

import sys

import trio

from qemu_peer import QemuPeer

SECONDS = 60


async def main(socket: str, commands: list[str]) -> None:
    """Sends commands once there is a card."""
    peer = QemuPeer(await trio.open_unix_socket(socket))
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            await peer.until(lambda: peer.atr)
            print((peer.atr or b"").hex())
            for command in commands:
                print((await peer.transmit(bytes.fromhex(command))).hex())
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2 : sys.argv.index("-name")])
